#!/usr/bin/env python3
"""Start-up script of every host of a Cloud TPU slice: runs the trainer's container, and takes the slice down after.

It is sent as the text of the metadata key "startup-script", which is why it is one file, and started as root at every
boot. It has nothing but Python 3.10's standard library (Ubuntu 22.04, which the TPU's base images are) and `docker`,
which those images bring. What to run is in the metadata key "hub-trainer" (see `tpu_request`). The machine's service
account must be allowed to pull the image, write to the bucket and to Cloud Logging, and delete the queued
resource.

How it ends:
  the trainer ends with 75      it is started again after a pause, up to a limit
  the trainer ends otherwise    so does the job: RESULTS/ended-0.json tells how, and the queued resource is deleted
  max_run_hours have passed     the trainer gets its --stop_seconds, then as above; a reboot gives no more time
  another host gives up         the same on every host
  anything fails before         the same, with what failed as "stage"
  SIGTERM, or the machine goes  the containers are told, by docker itself where it hears first; nothing is written,
                                since another slice may go on
  the job has ended before      the queued resource is deleted at once
  deleting is refused           ended-0.json and the log say so, and the machine shuts itself down
  no metadata                   the machine shuts itself down: it cannot know what to delete
  this script is killed         the machine shuts itself down an hour after the time limit: that is set at the start

Only deleting is documented to end what a TPU costs ("You can delete your TPU resources at any time to stop billing",
cloud.google.com/tpu/docs/request-using-flex-start, 2025-08). Shutting the machine down is what is left where deleting
is refused: Compute Engine bills no processor of a machine that is stopped; of TPU VMs no page says so. Should the
machine come up again, this script sees that the job has ended, and deletes again.

Metadata: instance/attributes/agent-worker-number and worker-network-endpoints ("X:Y:ADDRESS,..."), as JAX reads them
(jax/_src/clusters/cloud_tpu_cluster.py, 2024); instance/preempted and instance/service-accounts/default/token as
Compute Engine documents them (2026-11). Containers on TPU VMs: cloud.google.com/tpu/docs/run-in-container (2026-11).
"""

from __future__ import annotations

import collections
import datetime
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

EXIT_PREEMPTED = 75
"""`trainer.errors.EXIT_PREEMPTED`, which is not at hand here."""

EXIT_USER = 2
"""`trainer.errors.EXIT_USER`: the trainer has told what somebody must change."""

NOT_STARTED = (125, 126, 127)
"""What `docker run` ends with where docker failed, or the command cannot be started (docs.docker.com, 2026-11)."""


@dataclass(frozen=True)
class Pace:
    """Seconds, and how often. Tests are in more of a hurry.

    Attributes:
      metadata: how long the metadata server is asked for, once the machine is up.
      retry: the first pause before something is tried again; each further one is twice as long.
      attempts: how often a request, a pull or a deletion is tried.
      pull: what one pull may take.
      docker: what any other of docker's commands may take.
      look: between looks at the containers.
      others: between looks at how the other hosts do.
      servers: how long the TPU servers of all hosts may take to listen.
      again: before the trainer is started again.
      restarts: how often that happens.
      notice: how long word of the machine's end may come after a container's; the hosts of a slice do not go in step.
      deleted: what may pass from a deletion that was accepted to this machine's end.
      overtime: after the time limit, when the machine shuts itself down whatever this script does.
    """

    metadata: float = 300.0
    retry: float = 2.0
    attempts: int = 6
    pull: float = 1800.0
    docker: float = 120.0
    look: float = 1.0
    others: float = 30.0
    servers: float = 1800.0
    again: float = 30.0
    restarts: int = 20
    notice: float = 30.0
    deleted: float = 600.0
    overtime: float = 3600.0


class InterruptedByMachineError(Exception):
    """The machine goes away, or somebody stops this script."""


class FailedError(Exception):
    """The job has failed.

    Attributes:
      stage: where: "metadata", "pull", "servers", "server", "run", "time limit", "another host", "script".
      exit_code: of the trainer, or 1.
    """

    def __init__(self, stage: str, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.stage = stage
        self.exit_code = exit_code


class RefusedError(Exception):
    """A server refused, or did not answer; `status` is HTTP's, or 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Machine:
    """This machine and what it may ask Google: metadata, Cloud Storage, Cloud TPU, Cloud Logging."""

    def __init__(self, environment: Mapping[str, str], pace: Pace) -> None:
        """Asks nothing yet.

        Args:
          environment: GCE_METADATA_HOST and gcloud's CLOUDSDK_API_ENDPOINT_OVERRIDES_<API> may name other servers,
            STATE_DIRECTORY the folder for what outlives a boot.
          pace: see `Pace`.
        """
        self._environment = environment
        self._pace = pace
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.stopping = threading.Event()
        """Set by SIGTERM."""

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A handler of signals."""
        self.stopping.set()

    def wait(self, seconds: float) -> None:
        """Waits.

        Raises:
          InterruptedByMachineError: SIGTERM came.
        """
        if self.stopping.wait(seconds):
            raise InterruptedByMachineError

    def metadata(self, path: str, seconds: float | None = None) -> str | None:
        """What the metadata server says; None where it has no such entry.

        Args:
          path: below computeMetadata/v1/.
          seconds: how long it is asked for.

        Raises:
          FailedError: it does not answer.
        """
        host = self._environment.get("GCE_METADATA_HOST", "metadata.google.internal")
        request = urllib.request.Request(
            f"http://{host}/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
        )
        deadline = time.monotonic() + (self._pace.metadata if seconds is None else seconds)
        while True:
            try:
                return self._sent(request).decode()
            except RefusedError as error:
                if error.status == 404:
                    return None
                if time.monotonic() >= deadline:
                    raise FailedError("metadata", f"the metadata server does not give {path} ({error})") from None
            self.wait(self._pace.retry)

    def token(self) -> str:
        """An access token of the machine's service account.

        Raises:
          FailedError: it has none.
        """
        answer = self.metadata("instance/service-accounts/default/token")
        if answer is None:
            raise FailedError("metadata", "the machine has no service account")
        return str(json.loads(answer)["access_token"])

    def ask(self, api: str, method: str, path: str, body: Mapping[str, Any] | None = None, tries: int = 0) -> bytes:
        """Sends a request to a Google API, again if need be, and gives the answer.

        Args:
          api: "storage", "tpu" or "logging".
          method: of HTTP.
          path: and query.
          body: as JSON.
          tries: how often at most; 0: `Pace.attempts`.

        Raises:
          RefusedError: it was refused.
        """
        base = self._environment.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}", f"https://{api}.googleapis.com/")
        tries = tries or self._pace.attempts
        for attempt in range(1, tries + 1):
            try:
                headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
                data = None if body is None else json.dumps(body).encode()
                url = f"{base.rstrip('/')}/{path}"
                return self._sent(urllib.request.Request(url, data=data, headers=headers, method=method))
            except FailedError as error:
                raise RefusedError(0, str(error)) from None
            except RefusedError as error:
                if attempt == tries or error.status not in (0, 408, 429, 500, 502, 503, 504):
                    raise
            self.stopping.wait(self._pace.retry * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")

    def _sent(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.code, f"{error.code} {_said(error.read(10_000))}".strip()) from None
        except (OSError, urllib.error.URLError) as error:
            raise RefusedError(0, str(error)) from None

    def is_going(self) -> bool:
        """Whether the cloud, or whoever else, is taking this machine down."""
        try:
            if self.metadata("instance/preempted", 0) == "TRUE":
                return True
        except FailedError as error:
            print(error, file=sys.stderr)
        try:
            state = subprocess.run(
                ["systemctl", "is-system-running"], capture_output=True, text=True, timeout=self._pace.docker
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"systemctl: {error}", file=sys.stderr)
            return False
        return state.stdout.strip() == "stopping"

    def shut_down(self, when: str) -> None:
        """Shuts the machine down: "now", or "+MINUTES"."""
        try:
            subprocess.run(["shutdown", "-P", when], check=True, timeout=self._pace.docker)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"shutdown: {error}", file=sys.stderr)

    def seconds_since_first_start(self, name: str) -> float:
        """Since this was first called on this machine's disk, across boots.

        Args:
          name: of what is started.
        """
        folder = pathlib.Path(self._environment.get("STATE_DIRECTORY", "/var/lib/hub-trainer"))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.started"
        if not file.exists():
            file.write_text(str(time.time()), encoding="utf-8")
        return max(0.0, time.time() - float(file.read_text(encoding="utf-8")))


class Container:
    """One container, from its start to its end."""

    def __init__(self, docker: Docker, name: str, environment: Mapping[str, str], command: Sequence[str]) -> None:
        """Starts nothing yet; `docker` runs it as `name`."""
        self._docker = docker
        self.name = name
        self._arguments = docker.run_arguments(name, environment, command)
        self._last = collections.deque[str](maxlen=20)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it; what is left of an earlier one is removed."""
        self._docker.tidy(["rm", "--force", self.name])
        self._process = subprocess.Popen(
            ["docker", *self._arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # A signal to this script is passed on by `stop`, with the time that it needs.
        )
        threading.Thread(target=self._pass_on, args=(self._process,), daemon=True).start()

    def _pass_on(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        for line in process.stderr:
            self._last.append(line[:500])
            sys.stderr.write(line)
            sys.stderr.flush()

    def code(self) -> int | None:
        """Its exit code, 128 + N where signal N ended docker's client; None while it runs, or was never started."""
        code = self._process.poll() if self._process else None
        return 128 - code if code is not None and code < 0 else code

    @property
    def last_words(self) -> str:
        """The end of what it, or docker, wrote to standard error."""
        return " ".join("".join(self._last).split())[-1000:]

    def stop(self) -> int | None:
        """Ends it, with the time for it to save; gives its exit code, None where it ran not."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            self._docker.tidy(["stop", self.name], self._docker.stop_seconds)
            try:
                process.wait(timeout=self._docker.seconds)
            except subprocess.TimeoutExpired:
                self._docker.tidy(["kill", self.name])
                process.kill()  # Whatever docker does: this script goes on.
                process.wait()
        return self.code()


class Docker:
    """The docker of this machine, as this job uses it."""

    def __init__(self, job: Mapping[str, Any], worker: int, machine: Machine, pace: Pace) -> None:
        """Asks nothing yet."""
        self._job = job
        self._machine = machine
        self._pace = pace
        self.labels = {
            "hub-trainer-job": str(job["job"]),
            "hub-trainer-submission": str(job["submission"]),
            "hub-trainer-worker": str(worker),
        }
        self.seconds = pace.docker
        self.stop_seconds = float(job["stop_seconds"])

    def pull(self) -> None:
        """Brings the image here.

        Raises:
          FailedError: it does not come.
        """
        image = str(self._job["image"])
        registry = image.partition("/")[0]
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "DOCKER_CONFIG": folder}  # The token is gone once the image is here.
            for attempt in range(1, self._pace.attempts + 1):
                problem = ""
                if registry.endswith(("-docker.pkg.dev", "gcr.io")):
                    login = ["login", "--username=oauth2accesstoken", "--password-stdin", f"https://{registry}"]
                    problem = self._problem(login, self.seconds, environment, self._machine.token())
                problem = problem or self._problem(["pull", "--quiet", image], self._pace.pull, environment)
                if not problem:
                    return
                print(problem, file=sys.stderr)
                if attempt < self._pace.attempts:
                    self._machine.wait(self._pace.retry * 2 ** (attempt - 1))
        raise FailedError("pull", f"{image} cannot be pulled ({problem})")

    def run_arguments(self, name: str, environment: Mapping[str, str], command: Sequence[str]) -> list[str]:
        """Of `docker run` for a container that has the chips, the host's network, and its lines in Cloud Logging."""
        return [
            *("run", "--rm", f"--name={name}", "--privileged", "--net=host"),
            "--user=0",  # The chips' device files are root's; the image's own user is another.
            f"--stop-timeout={round(self.stop_seconds)}",
            *("--log-driver=gcplogs", f"--log-opt=gcp-project={self._job['project']}"),
            f"--log-opt=labels={','.join(self.labels)}",
            *(f"--label={key}={value}" for key, value in self.labels.items()),
            *(f"--env={key}={value}" for key, value in environment.items()),
            *(str(self._job["image"]), *command),
        ]

    def tidy(self, arguments: Sequence[str], more_seconds: float = 0.0) -> None:
        """Runs a command of which it does not matter whether it fails; what it says is printed."""
        problem = self._problem(arguments, self.seconds + more_seconds, os.environ, patient=True)
        if problem:
            print(problem, file=sys.stderr)

    def _problem(
        self,
        arguments: Sequence[str],
        seconds: float,
        environment: Mapping[str, str],
        text: str = "",
        patient: bool = False,
    ) -> str:
        """Runs one of docker's commands; gives what went wrong, or "". A patient one goes on after SIGTERM."""
        what = f"docker {arguments[0]}"
        try:
            process = subprocess.Popen(
                ["docker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            return f"{what}: {error}"
        deadline = time.monotonic() + seconds
        remaining: bytes | None = text.encode()
        while True:
            try:
                _, said = process.communicate(remaining, timeout=min(self._pace.look, max(0.0, seconds)))
                return "" if process.returncode == 0 else f"{what}: {' '.join(said.decode(errors='replace').split())}"
            except subprocess.TimeoutExpired:
                remaining = None
            interrupted = not patient and self._machine.stopping.is_set()
            if interrupted or time.monotonic() >= deadline:
                process.kill()
                process.wait()
                if interrupted:
                    raise InterruptedByMachineError
                return f"{what} took longer than {seconds:g} s"


class Host:
    """One host of the slice and its part of the job."""

    def __init__(self, machine: Machine, job: Mapping[str, Any], pace: Pace) -> None:
        """Asks nothing yet.

        Args:
          machine: that this is.
          job: as `launch.services.tpu_request` writes it.
          pace: see `Pace`.
        """
        self._machine = machine
        self._job = job
        self._pace = pace
        self._worker = 0
        self._addresses: list[str] = []
        self._docker = Docker(job, self._worker, machine, pace)
        self._deadline = 0.0
        self._next_look_at_others = 0.0
        bucket, _, self._folder = str(job["results"]).removeprefix("gs://").partition("/")
        self._bucket = urllib.parse.quote(bucket)

    def work(self) -> None:
        """Does this host's part of the job, to its end.

        Raises:
          InterruptedByMachineError: the machine goes, and the job has not ended.
        """
        containers: list[Container] = []
        try:
            self._find_itself()
            if self._has_ended():
                self._say("the job has ended before: nothing is run")
                self._leave()
                return
            self._set_alarm()
            self._docker.pull()
            containers += self._containers()
            self._run(containers)
            ended = FailedError("run", "", 0)
        except FailedError as error:
            ended = error
        except InterruptedByMachineError:
            if 0 not in self._stopped(containers):
                raise
            ended = FailedError("run", "", 0)  # It was done before it heard.
        codes = self._stopped(containers)
        if ended.stage == "time limit" and codes:
            ended = FailedError("run", "", 0) if codes[0] == 0 else FailedError(ended.stage, str(ended), codes[0])
        self.finish(ended)

    def finish(self, ended: FailedError) -> None:
        """Tells how the job ended, and takes the slice down."""
        self._say(f"ended in stage {ended.stage} with exit code {ended.exit_code} {ended}".strip(), ended.exit_code)
        self._write_ended(ended, str(ended))
        problem = self._leave()
        if problem:
            self._write_ended(ended, f"{ended} {problem}".strip())

    def _find_itself(self) -> None:
        """Finds out which host this is, and how long it may run yet.

        Raises:
          FailedError: the metadata server does not say.
        """
        endpoints = self._machine.metadata("instance/attributes/worker-network-endpoints") or ""
        number = self._machine.metadata("instance/attributes/agent-worker-number")
        self._addresses = [part.split(":")[2] for part in endpoints.split(",") if part.count(":") >= 2]
        hosts = self._job["hosts"]
        if hosts > 1 and (number is None or len(self._addresses) != hosts):
            raise FailedError("metadata", f"worker {number} of {endpoints or 'unknown hosts'} cannot be one of {hosts}")
        self._worker = int(number or 0)
        self._docker = Docker(self._job, self._worker, self._machine, self._pace)
        name = self._job["queued_resource"].rpartition("/")[2]
        left = self._job["max_run_seconds"] - self._machine.seconds_since_first_start(name)
        self._deadline = time.monotonic() + left
        self._say(f"worker {self._worker} of {hosts} has started; it may run for {max(0.0, left) / 3600:.1f} h")

    def _set_alarm(self) -> None:
        """Has the machine shut itself down some time after the limit, even if this script is killed."""
        if self._job["delete_when_done"]:
            seconds = max(0.0, self._deadline - time.monotonic()) + self._pace.overtime
            self._machine.shut_down(f"+{max(1, round(seconds / 60))}")

    def _containers(self) -> list[Container]:
        """The first worker's trainer and, where the slice has several hosts, the TPU server, in this order."""
        environment = dict(self._job["environment"])
        command = list(self._job["command"])
        if self._job["hosts"] == 1:
            return [Container(self._docker, "hub-trainer", environment, command)]
        server = Container(self._docker, "hub-trainer-server", environment, self._job["server_command"])
        if self._worker:
            return [server]
        port = self._job["server_port"]
        command.append(f"--tpu=grpc://{','.join(f'{address}:{port}' for address in self._addresses)}")
        # The chips belong to the server of this host: the trainer must not even look for them.
        trainer = Container(self._docker, "hub-trainer", {**environment, "TPU_LOAD_LIBRARY": "0"}, command)
        return [trainer, server]

    def _run(self, containers: Sequence[Container]) -> None:
        """Runs the containers until the trainer has done its work.

        Raises:
          FailedError: it has not, or cannot any more.
        """
        servers = [container for container in containers if container.name.endswith("server")]
        for server in servers:
            server.start()
        if self._worker:
            while True:
                self._look(servers)
        if servers:
            self._wait_for_servers(servers)
        trainer = containers[0]
        for _ in range(self._pace.restarts + 1):
            trainer.start()
            while (code := self._code_of(trainer)) is None:
                self._look(servers)
            if code != EXIT_PREEMPTED:
                break
            self._say(f"the trainer ended with {code}: it is started again in {self._pace.again:g} s")
            self._machine.wait(self._pace.again)
        if code:
            raise FailedError("run", _reason(trainer, code), code)

    def _wait_for_servers(self, servers: Sequence[Container]) -> None:
        """Waits until the TPU server of every host listens.

        Raises:
          FailedError: one does not.
        """
        waiting = list(self._addresses)
        deadline = time.monotonic() + self._pace.servers
        while waiting:
            try:
                socket.create_connection((waiting[0], self._job["server_port"]), timeout=5).close()
                del waiting[0]
                continue
            except OSError as error:
                if time.monotonic() >= deadline:
                    port = self._job["server_port"]
                    way_out = f"let the network's firewall pass tcp:{port} between the hosts"
                    raise FailedError(
                        "servers", f"no TPU server answers at {waiting[0]}:{port} ({error}): {way_out}"
                    ) from None
            self._look(servers)

    def _look(self, servers: Sequence[Container]) -> None:
        """Waits a moment.

        Raises:
          FailedError: the job cannot go on.
          InterruptedByMachineError: the machine goes.
        """
        self._machine.wait(self._pace.look)
        if time.monotonic() >= self._deadline:
            hours = self._job["max_run_seconds"] / 3600
            raise FailedError("time limit", f"max_run_hours={hours:g} have passed", EXIT_PREEMPTED)
        for server in servers:
            code = self._code_of(server, own=())
            if code is not None:
                raise FailedError("server", _reason(server, code), code or 1)
        if self._job["hosts"] > 1 and time.monotonic() >= self._next_look_at_others:
            self._next_look_at_others = time.monotonic() + self._pace.others
            self._look_at_others()

    def _look_at_others(self) -> None:
        folder = urllib.parse.quote(f"{self._folder}/ended-", safe="")
        try:
            listed = self._machine.ask("storage", "GET", f"storage/v1/b/{self._bucket}/o?prefix={folder}")
            for item in json.loads(listed).get("items", []):
                ended = self._read_ended(item["name"].rpartition("/")[2])
                if ended and ended["resource"] == self._job["queued_resource"]:
                    raise FailedError("another host", f"{item['name']}: {ended['message']}", ended["exit_code"])
        except RefusedError as error:
            print(f"how the other hosts do is not known: {error}", file=sys.stderr)

    def _code_of(self, container: Container, own: Sequence[int] = (0, EXIT_USER)) -> int | None:
        """A container's exit code, None while it runs.

        Args:
          container: any.
          own: the codes that it ends with of itself alone, whatever happens to the machine.

        Raises:
          InterruptedByMachineError: it has not ended by itself; the machine goes.
        """
        code = container.code()
        if code is None or code in own:
            return code
        self._machine.wait(self._pace.notice)
        if self._machine.is_going():
            raise InterruptedByMachineError
        return code

    def _stopped(self, containers: Sequence[Container]) -> list[int]:
        """Ends what runs; the exit codes of those that were ever started and are trainers."""
        codes = [(container.name, container.stop()) for container in containers]
        return [code for name, code in codes if code is not None and name == "hub-trainer"]

    def _leave(self) -> str:
        """Deletes the slice, or else shuts this machine down; gives what went wrong.

        Raises:
          InterruptedByMachineError: the machine goes, as it should.
        """
        if not self._job["delete_when_done"]:
            self._say("the slice stays, and costs what it costs, until somebody deletes it")
            return ""
        if self._worker:
            self._machine.wait(self._pace.deleted)  # The first worker deletes the whole slice.
        problem = ""
        for attempt in range(self._pace.attempts):
            try:
                self._machine.ask("tpu", "DELETE", f"v2/{self._job['queued_resource']}?force=true")
                problem = "its deletion was accepted, but this machine is still there"
                self._machine.wait(self._pace.deleted)
            except RefusedError as error:
                problem = str(error)
                self._machine.wait(self._pace.retry * 2**attempt)
        problem = f"{self._job['queued_resource']} is not deleted ({problem}): delete it by hand."
        self._say(problem, 1)
        self._machine.shut_down("now")
        return problem

    def _has_ended(self) -> bool:
        """Whether an earlier start of this very job came to an end."""
        try:
            ended = self._read_ended("ended-0.json")
        except RefusedError as error:
            self._say(f"whether the job has ended before is not known: {error}", 1)
            return False
        return ended is not None and ended["submission"] == self._job["submission"]

    def _read_ended(self, name: str) -> Mapping[str, Any] | None:
        path = urllib.parse.quote(f"{self._folder}/{name}", safe="")
        try:
            return dict(
                json.loads(self._machine.ask("storage", "GET", f"storage/v1/b/{self._bucket}/o/{path}?alt=media"))
            )
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def _write_ended(self, ended: FailedError, message: str) -> None:
        content = {
            "exit_code": ended.exit_code,
            "stage": ended.stage,
            "message": message,
            "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "submission": self._job["submission"],
            "resource": self._job["queued_resource"],
        }
        path = urllib.parse.quote(f"{self._folder}/ended-{self._worker}.json", safe="")
        try:
            self._machine.ask(
                "storage", "POST", f"upload/storage/v1/b/{self._bucket}/o?uploadType=media&name={path}", content
            )
        except RefusedError as error:
            self._say(f"ended-{self._worker}.json cannot be written: {error}", 1)

    def _say(self, text: str, exit_code: int = 0) -> None:
        """Prints a line, and sends it to where the containers' lines are; one with an exit code is an error."""
        print(text, file=sys.stderr, flush=True)
        payload = {"message": text, "container": {"metadata": self._docker.labels}}
        body = {
            "logName": f"projects/{self._job['project']}/logs/gcplogs-docker-driver",
            "resource": {"type": "global"},
            "entries": [{"severity": "ERROR" if exit_code else "INFO", "jsonPayload": payload}],
        }
        try:
            self._machine.ask("logging", "POST", "v2/entries:write", body, tries=1)
        except RefusedError as error:
            print(f"logging: {error}", file=sys.stderr, flush=True)


def _reason(container: Container, code: int) -> str:
    """Why a container ended with that code."""
    if code in NOT_STARTED:
        return f"docker could not start {container.name}: {container.last_words}"
    return f"{container.name} ended with exit code {code}; its lines are in Cloud Logging"


def _said(answer: bytes) -> str:
    """The message of a server's refusal."""
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:200]


def main(environment: Mapping[str, str], pace: Pace) -> int:
    """Does this host's part of the job; gives the exit code of the script, which nobody but the journal sees.

    Args:
      environment: see `Machine`.
      pace: see `Pace`.
    """
    machine = Machine(environment, pace)
    signal.signal(signal.SIGTERM, machine.stop)
    try:
        text = machine.metadata("instance/attributes/hub-trainer")
        host = Host(machine, json.loads(text or "{}"), pace)
    except InterruptedByMachineError:
        return EXIT_PREEMPTED
    except (FailedError, ValueError, KeyError, TypeError) as error:
        print(f"what to run is not known: {error!r}", file=sys.stderr)
        machine.shut_down("now")
        return 1
    try:
        _work(host)
    except InterruptedByMachineError:
        print("the machine goes, or this script was told to end", file=sys.stderr)
        return EXIT_PREEMPTED
    except Exception:  # Whatever is wrong here: a slice that nobody looks after must not stay.
        traceback.print_exc()
        machine.shut_down("now")
        return 1
    return 0


def _work(host: Host) -> None:
    try:
        host.work()
    except InterruptedByMachineError:
        raise
    except Exception as error:
        traceback.print_exc()
        host.finish(FailedError("script", repr(error)))


if __name__ == "__main__":
    sys.exit(main(os.environ, Pace()))
