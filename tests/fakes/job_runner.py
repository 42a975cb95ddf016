"""Really runs the custom jobs that the fake Vertex AI takes: each replica's command as a process of this machine.

    with serving() as cloud, JobRunner(image, cloud.logging.write) as runner:
        cloud.vertex.on_create = runner.start

A job has succeeded when its primary replica has ended with 0, whatever the others do, and has failed when any ends
otherwise (docs.cloud.google.com/vertex-ai/docs/training/understanding-training-service, 2026-11; the exit codes
134 and 139, after which Vertex AI tries again, fail here at once). That a job whose time is up becomes
JOB_STATE_CANCELLED is what users saw (github.com/tensorflow/tfx/issues/6223).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Literal, Protocol

from fakes.vertex_api import CustomJob
from fakes.vertex_replicas import ClusterShape, Replica, replicas_of

from launch.local.guard import Guard
from launch.local.worker_processes import WorkerProcess, shell_exit_code

GRACE_SECONDS = 30.0
"""From SIGTERM to SIGKILL: what a container gets on Google's preemptible machines (2026-11)."""

_LOOK_SECONDS = 0.02

Severity = Literal["INFO", "ERROR"]
"""What Vertex AI makes of standard output and standard error."""


class LogWriter(Protocol):
    """Keeps a log entry; see `fakes.logging_api.LoggingApi.write`."""

    def __call__(
        self, project: str, log: str, payload: Mapping[str, Any], resource: Mapping[str, Any], *, severity: str
    ) -> object: ...


class JobRunner:
    """Runs jobs until it is closed; then none of their processes is left. A context manager."""

    def __init__(
        self,
        image: Mapping[str, str],
        log: LogWriter,
        *,
        shape: ClusterShape = "pools",
        longest_seconds: float = 100.0,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Runs nothing yet.

        Args:
          image: the variables that the container image sets.
          log: keeps every line, in several threads.
          shape: of CLUSTER_SPEC.
          longest_seconds: what a job gets at most, whatever timeout it has.
          grace_seconds: see `GRACE_SECONDS`.
        """
        self._image = image
        self._log = log
        self._shape = shape
        self._longest_seconds = longest_seconds
        self._grace_seconds = grace_seconds
        self._runs: dict[str, _Run] = {}
        self._guard = Guard()

    def __enter__(self) -> JobRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, job: CustomJob) -> None:
        """Begins to run a job; for `VertexApi.on_create`."""
        replicas = replicas_of(job.name, job.spec, self._image, self._shape)
        run = _Run(job, replicas, self._guard, self._note, self._longest_seconds, self._grace_seconds)
        self._runs[job.name] = run
        run.thread.start()

    def preempt(self, job_name: str) -> None:
        """Takes all machines of a job away: SIGTERM to all replicas, then all start again on others.

        Args:
          job_name: of one that has not ended; with several replicas it has asked for restartJobOnWorkerRestart.
        """
        run = self._runs[job_name]
        assert run.restarts_as_a_whole, "each replica would start again by itself"
        run.preempted.set()

    def close(self) -> None:
        """Kills what still runs.

        Raises:
          Exception: what went wrong in a thread; once.
        """
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.closing.set()
        for run in runs.values():
            run.thread.join()
        self._guard.close()
        for run in runs.values():
            if run.problem:
                raise run.problem

    def _note(self, job_name: str, replica: str, severity: Severity, line: str) -> None:
        _, project, *_, number = job_name.split("/")
        labels = {"project_id": project, "job_id": number, "task_name": replica}
        payload = {"message": line, "attrs": {"tag": replica}}
        self._log(project, replica, payload, {"type": "ml_job", "labels": labels}, severity=severity)


class _Run:
    """One job. Its thread alone starts and ends processes."""

    def __init__(
        self,
        job: CustomJob,
        replicas: Sequence[Replica],
        guard: Guard,
        note: Callable[[str, str, Severity, str], None],
        longest_seconds: float,
        grace_seconds: float,
    ) -> None:
        self.preempted = threading.Event()
        self.closing = threading.Event()
        self.problem: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=job.name, daemon=True)
        self._job = job
        self._replicas = replicas
        self._guard = guard
        self._note = note
        self._grace_seconds = grace_seconds
        self._kill_at = 0.0  # By the clock; who was not asked to end is killed at once.
        scheduling = job.spec.get("scheduling", {})
        timeout = float(scheduling.get("timeout", "604800s").rstrip("s"))
        self._deadline = time.monotonic() + min(timeout, longest_seconds)
        self.restarts_as_a_whole = len(replicas) == 1 or bool(scheduling.get("restartJobOnWorkerRestart"))

    def _run(self) -> None:
        try:
            ending = None
            while ending is None:
                self._job.set_state("JOB_STATE_PENDING")
                ending = self._attempt()
            self._job.set_state(*ending)
        except Exception as error:
            self.problem = error
            self._job.set_state("JOB_STATE_FAILED", "Internal error occurred for the current attempt")

    def _attempt(self) -> tuple[str, str] | None:
        """Starts all replicas; gives the job's last state and error when all have ended, None if they start again."""
        with contextlib.ExitStack() as ended:
            workers = [ended.enter_context(self._started(replica)) for replica in self._replicas]
            ended.callback(self._ask_to_end, workers)
            self._job.set_state("JOB_STATE_RUNNING")
            while not self.closing.wait(_LOOK_SECONDS):
                if self.preempted.is_set():
                    self.preempted.clear()
                    return None
                if self._job.cancel_requested.is_set():
                    return "JOB_STATE_CANCELLED", ""
                if time.monotonic() >= self._deadline:
                    return "JOB_STATE_CANCELLED", "The job has run for longer than its timeout."
                ending = self._ending_by_itself(workers)
                if ending:
                    return ending
        return "JOB_STATE_CANCELLED", "The runner was closed."

    def _ending_by_itself(self, workers: Sequence[WorkerProcess]) -> tuple[str, str] | None:
        for worker, replica in zip(workers, self._replicas):
            if worker.ended() and worker.code:
                return "JOB_STATE_FAILED", self._failure(replica.name, shell_exit_code(worker.code))
        return ("JOB_STATE_SUCCEEDED", "") if workers[0].code == 0 else None

    def _failure(self, replica: str, code: int) -> str:
        """As Vertex AI words it; the second sentence as its users quote it."""
        _, project, *_, number = self._job.name.split("/")
        return (
            f"The replica {replica} exited with a non-zero status of {code}. Termination reason: Error. "
            "To find out more about why your job exited please check the logs: "
            f"https://console.cloud.google.com/logs/viewer?project={project}&resource=ml_job%2Fjob_id%2F{number}"
        )

    @contextlib.contextmanager
    def _started(self, replica: Replica) -> Iterator[WorkerProcess]:
        """A replica's process, which has ended, and whose last line is kept, when the context is left."""
        worker = WorkerProcess(0, replica.command, replica.environment)
        self._guard.watch(worker.process.pid)
        assert worker.process.stdout and worker.process.stderr
        readers = [
            threading.Thread(target=self._read, args=(replica.name, "INFO", worker.process.stdout), daemon=True),
            threading.Thread(target=self._read, args=(replica.name, "ERROR", worker.process.stderr), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            yield worker
        finally:
            self._await_end(worker)
            self._guard.forget(worker.process.pid)
            for reader in readers:
                reader.join()

    def _ask_to_end(self, workers: Sequence[WorkerProcess]) -> None:
        self._kill_at = time.monotonic() + self._grace_seconds
        for worker in workers:
            worker.send(signal.SIGTERM)

    def _await_end(self, worker: WorkerProcess) -> None:
        """Waits until a process that was asked to end has, and kills it when it takes too long."""
        while not worker.ended() and worker.code is None:
            if self.closing.is_set() or time.monotonic() > self._kill_at:
                worker.send(signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)

    def _read(self, replica: str, severity: Severity, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._note(self._job.name, replica, severity, line.decode(errors="backslashreplace").rstrip("\n"))
