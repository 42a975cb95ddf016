"""Which directory a run writes to, taken before TensorFlow is imported, so that nobody else writes there."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping

from trainer.config import Config
from trainer.errors import UserError
from trainer.lease import Lease, Place, take
from trainer.lease_local import LocalPlace
from trainer.storage import RunDirectory, absolute, is_remote
from trainer.topology import read_topology


def take_run_dir(
    config: Config,
    environment: Mapping[str, str],
    announce: Callable[[str], None],
    moment: datetime.datetime | None = None,
) -> Lease | None:
    """Chooses the run directory, if the configuration names none, and takes its lease.

    Args:
      config: the run.
      environment: has TF_CONFIG or CLUSTER_SPEC where `--strategy=multi_worker`.
      announce: is told why it waits.
      moment: what a directory is named by that is chosen here; by default now.

    Returns:
      The lease; None for a worker that writes nothing.

    Raises:
      UserError: another run holds the directory, it cannot be written, or lies among the images.
    """
    if config.strategy == "multi_worker" and not read_topology(environment).is_chief:
        return None
    if not config.run_dir:
        return _take_new(config, announce, moment or datetime.datetime.now())
    path = RunDirectory(config.run_dir).path
    _check_apart_from_images(config, path)
    return take(_place(path), config.run_dir, announce)


def begin_writing(lease: Lease, run: RunDirectory) -> None:
    """Makes sure once more that the directory is this process' own, and clears away what killed runs left half-written.

    Only when it is certain that the run goes on there: the start has been accepted.

    Args:
      lease: of the directory.
      run: the directory.

    Raises:
      UserError: another run has it.
    """
    lease.confirm()
    run.delete_leftovers()
    run.delete_leftovers("checkpoints")


def check_apart(path: str, flag: str, images: str, name: str) -> None:
    """Refuses to write among the class folders, where the next run would take what it finds for a class.

    Args:
      path: absolute, where to write.
      flag: which one gave it.
      images: the folder of the class folders.
      name: what it is called in the error.

    Raises:
      UserError: the path is that folder or lies in it.
    """
    if f"{path}/".startswith(f"{images}/"):
        raise UserError(f"{flag}={path} would lie among the images of {name}: give another folder.")


def _check_apart_from_images(config: Config, path: str) -> None:
    """The same before anything is made there, for the images of `--data=folder:`, whose place is known already."""
    spec = config.data_spec
    if spec.kind == "folder":
        images = absolute(spec.argument).rstrip("/")
        check_apart(path, "--run_dir", images, f"folder {images}")


def _take_new(config: Config, announce: Callable[[str], None], moment: datetime.datetime) -> Lease:
    """Takes a directory that was not there: of several jobs that start in the same second each gets its own."""
    while True:
        run_dir = config.new_run_dir(moment)
        path = RunDirectory(run_dir).path
        _check_apart_from_images(config, path)
        place = LocalPlace(path)
        if place.make_new_folder():
            return take(place, run_dir, announce)


def _place(path: str) -> Place:
    if not is_remote(path):
        return LocalPlace(path)
    from trainer.lease_bucket import BucketPlace

    return BucketPlace(path)
