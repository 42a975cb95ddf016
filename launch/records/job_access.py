"""What the commands on submitted jobs have in common: where records are, the way to the services, and their options."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from launch.records.records import Records, RecordTarget, add_records_option, default_place, open_records
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.google.google_api import GoogleApi
    from launch.local.worker_logs import Console
    from launch.records.known_jobs import KnownJob
    from launch.services.service import Service


class JobAccess:
    """Leads to records and services; whatever needs credentials is made when it is first asked for.

    Attributes:
      place: of the records, as given by --records; "": the default one.
      records: of the jobs.
      quiet: whether notes are wanted.
      sleep: pauses.
      clock: seconds since 1970.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        environment: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Asks nothing yet.

        Args:
          options: with what `add_common_options` added.
          environment: of this process.
          sleep: pauses.
          clock: seconds since 1970.

        Raises:
          UserError: --records is no place.
        """
        self.place: str = options.records
        self.quiet: bool = options.quiet
        self.sleep = sleep
        self.clock = clock
        self._environment = environment
        self._api: GoogleApi | None = None
        self._services: dict[RecordTarget, Service] = {}
        self.records: Records = open_records(self.place or default_place(environment), self.api)

    def api(self) -> GoogleApi:
        """The one way to Google's APIs.

        Raises:
          UserError: there are no credentials.
        """
        from launch.google.google_api import GoogleApi, authorized_session

        if self._api is None:
            self._api = GoogleApi(authorized_session(self._environment), self._environment, sleep=self.sleep)
        return self._api

    def service(self, target: RecordTarget) -> Service:
        """The service of a target.

        Raises:
          UserError: there are no credentials.
        """
        from launch.services.by_target import service_of

        if target not in self._services:
            self._services[target] = service_of(target, self.api())
        return self._services[target]

    def find(self, text: str) -> KnownJob:
        """The job that a text means; see `launch.records.known_jobs.find_job`."""
        from launch.records.known_jobs import find_job

        return find_job(text, self.records, self.service)

    def console(self, *, quiet: bool = False) -> Console:
        """What a person sees.

        Args:
          quiet: print no notes, whatever --quiet says.
        """
        from launch.local.worker_logs import Console

        return Console(sys.stdout, sys.stderr, self._environment, quiet=quiet or self.quiet)


def add_common_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds what all commands on submitted jobs take."""
    add_records_option(parser)
    parser.add_argument("--quiet", action="store_true", help="print no notes, only what was asked for and warnings")


def add_job_argument(parser: argparse.ArgumentParser) -> None:
    """Adds JOB."""
    parser.add_argument("job", metavar="JOB", help="its name, the beginning of one, or its full name at the service")


def open_access(options: argparse.Namespace) -> JobAccess:
    """The access of a command line."""
    return JobAccess(options, os.environ)


def refuse_trainer_flags(trainer_flags: Sequence[str]) -> None:
    """Refuses what stands behind the "--", where a job is submitted already.

    Raises:
      UserError: there is something.
    """
    if trainer_flags:
        raise UserError(f"{trainer_flags[0]} stands behind --, where this command takes nothing: leave it out.")


def as_sentences() -> contextlib.AbstractContextManager[None]:
    """Turns what an API refuses inside into what a person can do about it; see `user_errors`."""
    from launch.google.api_errors import user_errors

    return user_errors("")
