"""The lease of a run directory on gs://: the object `lease`, which is written under conditions. No TensorFlow.

Cloud Storage numbers each write of an object (its generation) and carries a write out only if the object still has the
number that the writer names. So of all who write instead of the same dead holder one succeeds.
"""

from __future__ import annotations

import contextlib

from trainer.errors import UserError
from trainer.lease import LeaseLostError, Standing
from trainer.lease_holder import Holder, Verdict, judge
from trainer.storage_bucket import Bucket, ReplacedError, split_address

OBJECT_NAME = "lease"

_PATIENCE_SECONDS = 15.0
"""How long a request is repeated that fails for reasons that pass: the heartbeat must not hang on one for long."""

_REQUEST_SECONDS = (5.0, 10.0)
"""What connecting and each part of an answer may take."""


class BucketPlace:
    """See `trainer.lease.Place`."""

    def __init__(self, path: str, flag: str = "--run_dir", bucket: Bucket | None = None) -> None:
        """Finds credentials.

        Args:
          path: gs://BUCKET/..., the run directory.
          flag: which one gave it.
          bucket: the bucket, open for writing; by default the path's.

        Raises:
          UserError: the credentials cannot be used.
        """
        self.path = path
        self.flag = flag
        name, folder = split_address(path)
        self._bucket = bucket or Bucket(name, flag, _PATIENCE_SECONDS, writes=True, request_seconds=_REQUEST_SECONDS)
        self._name = f"{folder}/{OBJECT_NAME}" if folder else OBJECT_NAME
        self._generation = 0

    def try_to_take(self, me: Holder) -> Standing | None:
        """See `trainer.lease.Place`."""
        dead = 0
        while True:
            try:
                self._write(me, instead_of=dead)
            except ReplacedError as error:
                now = error.now
            else:
                return None
            dead = 0
            found = self._bucket.read(self._name)
            if found is None:  # Given back in this moment.
                continue
            holder = Holder.parse(found.data)
            if holder is None:
                raise UserError(
                    f"gs://{self._bucket.name}/{self._name} is not the lease of a run: give another {self.flag}."
                )
            if holder.token == me.token:  # The answer to the write was lost.
                self._generation = found.generation
                return None
            silent_seconds = now - found.updated
            verdict = judge(holder, silent_seconds, me)
            if verdict is not Verdict.DEAD:
                return Standing(verdict, holder, silent_seconds)
            dead = found.generation

    def renew(self, me: Holder) -> None:
        """See `trainer.lease.Place`."""
        try:
            self._write(me, instead_of=self._generation)
        except ReplacedError:
            found = self._bucket.read(self._name)
            holder = Holder.parse(found.data) if found else None
            if found is None or holder is None or holder.token != me.token:
                raise LeaseLostError(holder) from None
            self._generation = found.generation  # Of a write whose answer was lost.

    def release(self, me: Holder) -> None:
        """See `trainer.lease.Place`."""
        # Where the object stays, because there is no network, its holder is found dead.
        with contextlib.suppress(ReplacedError, UserError):
            self._bucket.delete(self._name, generation=self._generation)

    def _write(self, me: Holder, *, instead_of: int) -> None:
        """Raises ReplacedError where the lease is of another generation."""
        self._generation = self._bucket.write(self._name, me.to_json(), instead_of=instead_of)
