"""Runs the commands on jobs against services in memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from memory_service import MemoryService, Time

from launch.google.google_api import GoogleApi
from launch.records.records import Records, open_records
from trainer.errors import EXIT_USER, UserError


@dataclass
class Commands:
    """A machine with records, and the services that it reaches.

    Attributes:
      folder: of the records.
      capture: of what is printed.
      time: of all of them.
      services: by target; those that are not there are made when they are asked for.
      credentials: what looking for them fails with.
      patch: puts something in the place of what a dotted name stands for, until the test ends.
    """

    folder: Path
    capture: pytest.CaptureFixture[str]
    patch: Callable[[str, object], None]
    time: Time = field(default_factory=Time)
    services: dict[str, MemoryService] = field(default_factory=dict)
    credentials: Exception | None = None

    @property
    def records(self) -> Records:
        return open_records(str(self.folder), self.api)

    def api(self) -> GoogleApi:
        if self.credentials:
            raise self.credentials
        session: object = None
        return GoogleApi(session, {})  # type: ignore[arg-type]

    def service(self, target: str) -> MemoryService:
        return self.services.setdefault(target, MemoryService(self.time))

    def run(self, module: ModuleType, *arguments: str) -> tuple[int, str, str]:
        """Runs `python -m launch NAME ARGUMENTS`.

        Returns:
          The exit code, and what it printed to standard output and error.
        """
        parser = argparse.ArgumentParser()
        self.capture.readouterr()
        try:
            module.add_options(parser)
            code = module.execute(parser.parse_args([*arguments, f"--records={self.folder}"]), [])
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_USER
        out, err = self.capture.readouterr()
        return code, out, err


def commands_in(
    folder: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> Commands:
    """A machine with that folder for its records, whose commands reach the services in memory."""
    from launch.records import job_access
    from launch.services import by_target as services

    commands = Commands(folder, capture, monkeypatch.setattr)
    access = job_access.JobAccess

    def open_access(options: argparse.Namespace) -> job_access.JobAccess:
        return access(options, environment, sleep=commands.time.sleep, clock=commands.time.clock)

    monkeypatch.setattr(access, "api", lambda _: commands.api())
    monkeypatch.setattr(services, "service_of", lambda target, api: commands.service(target))
    for name in ("list", "status", "logs", "cancel"):
        monkeypatch.setattr(f"launch.commands.{name}_command.open_access", open_access)
    return commands
