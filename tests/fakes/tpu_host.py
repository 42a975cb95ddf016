"""A host of a TPU slice on this machine: a metadata server, a fake docker, and the start-up script as a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.cloud import FakeCloud
from fakes.server import Answer, FakeServer, Request, running

SECONDS = 30
"""What a start-up script may take in a test."""

TOKEN = "the-machines-token"

_ROOT = Path(__file__).resolve().parents[2]

_STARTED_BY_A_TEST = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from launch.services.tpu_startup import Pace, main
sys.exit(main(os.environ, Pace(**json.loads(sys.argv[2]))))
"""


class MetadataServer(FakeServer):
    """What a machine is told about itself, and Cloud Logging beside it.

    Attributes:
      values: by the path below computeMetadata/v1/.
      lines: that were logged.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        self.values = {
            "instance/service-accounts/default/token": json.dumps({"access_token": TOKEN, "expires_in": 3600}),
            "instance/preempted": "FALSE",
            **values,
        }
        self.logged: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Answer:
        if request.path == "/logging/v2/entries:write" and request.headers["Authorization"] == f"Bearer {TOKEN}":
            self.logged.append(json.loads(request.body))
            return Answer(200, b"{}")
        if request.headers["Metadata-Flavor"] != "Google":
            return Answer(403, b"Missing Metadata-Flavor:Google header.")
        value = self.values.get(request.path.removeprefix("/computeMetadata/v1/"))
        return Answer(404) if value is None else Answer(200, value.encode())

    def refusal(self, status: int, request: Request) -> Answer:
        return Answer(status, b"injected")

    @property
    def messages(self) -> list[str]:
        """What was logged, as text."""
        return [entry["jsonPayload"]["message"] for body in self.logged for entry in body["entries"]]


class TpuHost:
    """One machine; `starting` makes it, and ends what it left running.

    Attributes:
      metadata: its metadata server.
      process: the start-up script, once `boot` has been called.
    """

    def __init__(self, folder: Path, cloud: FakeCloud, metadata: MetadataServer, address: str) -> None:
        self._folder = folder
        self.metadata = metadata
        self.process: subprocess.Popen[str] | None = None
        self._environment = {
            **cloud.environment(),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"{metadata.address}/logging/",
            "GCE_METADATA_HOST": metadata.address.removeprefix("http://"),
            "STATE_DIRECTORY": str(folder / "state"),
            "FAKE_DOCKER": str(folder),
            "FAKE_HOST": address,
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        }
        (folder / "bin").mkdir()
        docker = f'#!/bin/sh\nexec {sys.executable} -S -E {Path(__file__).with_name("docker_program.py")} "$@"\n'
        self.install("docker", docker)
        self.install("shutdown", f'#!/bin/sh\necho "$@" >> {folder}/shutdown\n')
        self.install("systemctl", f"#!/bin/sh\ncat {folder}/system-state\n")
        (folder / "system-state").write_text("running\n")
        self.behave({})

    def install(self, name: str, text: str) -> None:
        """Puts a program on the machine's PATH; "" takes it away."""
        program = self._folder / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
        if not text:
            program.unlink()

    def behave(self, behaviour: Mapping[str, Sequence[Any]]) -> None:
        """Says what docker does; see `fakes.docker_program`."""
        (self._folder / "behaviour.json").write_text(json.dumps(behaviour))

    def goes_down(self) -> None:
        """The system is stopping from now on."""
        (self._folder / "system-state").write_text("stopping\n")

    def boot(self, script: str = "", **pace: Any) -> None:
        """Starts the start-up script.

        Args:
          script: its text, which is run as the machine would run it; "": our own, run at `pace`.
          **pace: fields of its `Pace`.
        """
        command = [sys.executable, "-c", _STARTED_BY_A_TEST, str(_ROOT), json.dumps(pace)]
        if script:
            file = self._folder / "startup-script"
            file.write_text(script)
            file.chmod(0o755)
            # The machine's python3; here this one.
            command = [sys.executable, str(file)] if script.startswith("#!/usr/bin/env python3\n") else [str(file)]
        self.process = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "journal").open("a"),
            text=True,
            start_new_session=True,
        )

    def wait(self) -> int:
        """Waits for the script's end; gives its exit code."""
        assert self.process
        return self.process.wait(timeout=SECONDS)

    def terminate(self) -> None:
        """Sends SIGTERM to the script, as systemd does when the machine goes."""
        assert self.process
        self.process.terminate()

    @property
    def journal(self) -> str:
        """What the script, and docker through it, printed."""
        return (self._folder / "journal").read_text()

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Docker's calls: "key", "arguments", "stdin", "has_config"."""
        file = self._folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def did(self) -> list[str]:
        """What docker was asked to do, such as "run hub-trainer"; what only tidies up is left out."""
        return [call["key"] for call in self.calls if not call["key"].startswith("rm ")]

    @property
    def shutdowns(self) -> list[str]:
        """Arguments of each `shutdown`."""
        file = self._folder / "shutdown"
        return file.read_text().splitlines() if file.exists() else []

    def end(self) -> None:
        """Kills whatever still runs of it."""
        for name in ("hub-trainer", "hub-trainer-server"):
            (self._folder / f"{name}.stopped").touch()
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=SECONDS)


@contextmanager
def tpu_host(
    folder: Path, cloud: FakeCloud, attributes: Mapping[str, str], address: str = "127.0.0.1"
) -> Iterator[TpuHost]:
    """A machine with those metadata attributes.

    Args:
      folder: for its files, which is made.
      cloud: that it asks.
      attributes: such as "hub-trainer".
      address: of the loopback network, where its TPU server listens.
    """
    folder.mkdir()
    values = {f"instance/attributes/{name}": value for name, value in attributes.items()}
    with running(MetadataServer(values)) as metadata:
        host = TpuHost(folder, cloud, metadata, address)
        try:
            yield host
        finally:
            host.end()
