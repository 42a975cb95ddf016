"""Several workers on this machine, started together and, when one has failed, all again from the last checkpoint.

`launch.local.attempt` is one start of them; here is decided what comes after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.local.attempt import Attempt, Ending, Patience
from launch.local.guard import Guard
from launch.local.signals import SignalInbox
from launch.local.worker_logs import Console
from launch.local.worker_processes import free_ports, how_it_ended, shell_exit_code, worker_environment
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER


@dataclass(frozen=True)
class Launch:
    """What is to be started.

    Attributes:
      command: of every worker; TF_CONFIG tells each who it is.
      restart_command: of every worker when all start again.
      workers: how many.
      max_restarts: how often all start again after one has failed; never after exit code 2. A start that ended with
        exit code 75 is not counted: the run was asked to stop for now, and has saved.
      how_to_go_on: a sentence for when it ended early.
      settle_seconds: when one has failed, how long the others may take to end by themselves: the one that ended first
        may have died of another's error, which that one is still about to tell.
      grace_seconds: from asking workers to end (SIGTERM) to killing them (SIGKILL) when one has failed: without it the
        others come to no boundary any more.
      save_seconds: the same where the launcher was asked to end: the workers save.
      shortest_seconds: a start that ended with exit code 75 sooner did nothing, and is counted.
    """

    command: Sequence[str]
    restart_command: Sequence[str]
    workers: int
    max_restarts: int = 0
    how_to_go_on: str = ""
    settle_seconds: float = 1.0
    grace_seconds: float = 5.0
    save_seconds: float = 30.0
    shortest_seconds: float = 10.0


def supervise(launch: Launch, console: Console, environment: Mapping[str, str]) -> int:
    """Runs the workers, again if need be, until they are done. Must be called from the main thread.

    Whatever happens, no worker is left when it returns or raises, and when the launcher is killed (`Guard`).

    Args:
      launch: what is to be done.
      console: shows what the workers print and what becomes of them.
      environment: of the launcher; the workers get it with changes (`worker_environment`).

    Returns:
      0 where all workers ended with 0; 2 where one did with 2; 75 where the launcher was asked to end; otherwise the
      exit code of the worker that failed first, 128 + N for signal N.

    Raises:
      UserError: the system starts no further process.
    """
    restarts, started_before = 0, False
    ports: list[int] = []
    with SignalInbox() as inbox, contextlib.closing(Guard()) as guard:
        while True:
            ports = free_ports(launch.workers, taken=ports)
            environments = [worker_environment(environment, ports, index) for index in range(launch.workers)]
            command = launch.restart_command if started_before else launch.command
            patience = Patience(launch.settle_seconds, launch.grace_seconds, launch.save_seconds)
            start = time.monotonic()
            ending = Attempt(inbox, guard, console, patience).run(command, environments)
            code = exit_code(ending)
            if code in (EXIT_DONE, EXIT_USER):
                return code
            if ending.interrupted:
                console.warning(f"interrupted. {launch.how_to_go_on}".rstrip())
                return code
            started_before = True
            if ending.preempted and time.monotonic() - start >= launch.shortest_seconds:
                console.warning("the workers were asked to stop for now and have saved; all start again")
                continue
            if restarts == launch.max_restarts:
                console.warning(f"{_what_happened(ending)}; {_why_that_is_all(launch)} {launch.how_to_go_on}".rstrip())
                return code
            restarts += 1
            console.warning(
                f"{_what_happened(ending)}; restart {restarts} of {launch.max_restarts} from the last checkpoint"
            )


def exit_code(ending: Ending) -> int:
    """The launcher's exit code, if nothing starts again."""
    if not any(ending.codes):
        return EXIT_DONE
    if EXIT_USER in ending.codes:
        return EXIT_USER
    if ending.interrupted or ending.first_failed is None:
        return EXIT_PREEMPTED
    return shell_exit_code(ending.codes[ending.first_failed])


def _what_happened(ending: Ending) -> str:
    """As in "worker 1 was killed by SIGKILL"."""
    assert ending.first_failed is not None
    return f"worker {ending.first_failed} {how_it_ended(ending.codes[ending.first_failed])}"


def _why_that_is_all(launch: Launch) -> str:
    count = launch.max_restarts
    if count:
        return f"{'the one restart is' if count == 1 else f'all {count} restarts are'} used up."
    others = "the others were ended, and " if launch.workers > 1 else ""
    return f"{others}--max_restarts=3 would start {'all' if others else 'it'} again from the last checkpoint."
