"""A `docker` that runs nothing: it notes what it is told and does what the test says. Started as a program.

In the folder $FAKE_DOCKER, calls.jsonl gets a line for each call, and behaviour.json says by command ("login", "pull",
"run NAME", "stop NAME", ...) what happens at the first call, the second, ...; the last holds for all that follow:

    0                           it ends with that exit code at once
    ["some words", 1]           it says so on standard error, and ends
    "until stopped, 75"         the container runs until `docker stop`, and ends with that code
    "hangs"                     it does not end

A TPU server listens as the real one does, at $FAKE_HOST, so that others can wait for it.
"""

import fcntl
import json
import os
import pathlib
import signal
import socket
import sys
import time
from collections.abc import Callable

FOLDER = pathlib.Path(os.environ["FAKE_DOCKER"])
LONGEST_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    command = arguments[0]
    name = container_name(arguments)
    key = f"{command} {name}" if name else command
    number = note(key, arguments)
    told = json.loads((FOLDER / "behaviour.json").read_text()).get(key, [0])
    what = told[min(number, len(told) - 1)]
    if command in ("stop", "kill") and what == 0:
        (FOLDER / f"{name}.stopped").touch()
        wait_until(lambda: not (FOLDER / f"{name}.running").exists())
    if what == "hangs":
        time.sleep(LONGEST_SECONDS)
    if isinstance(what, list):
        print(what[0], file=sys.stderr)
        return int(what[1])
    if isinstance(what, str) and what.startswith("until stopped"):
        return run_until_stopped(name, arguments, int(what.rpartition(",")[2]))
    return int(what)


def container_name(arguments: list[str]) -> str:
    if arguments[0] in ("stop", "kill", "rm"):
        return arguments[-1]
    return next((each.partition("=")[2] for each in arguments if each.startswith("--name=")), "")


def note(key: str, arguments: list[str]) -> int:
    """Notes a call; gives how many there were of its kind before."""
    with (FOLDER / "calls.jsonl").open("a+") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.seek(0)
        before = [json.loads(line)["key"] for line in calls]
        call = {"key": key, "arguments": arguments, "stdin": sys.stdin.read()}
        calls.write(json.dumps({**call, "has_config": bool(os.environ.get("DOCKER_CONFIG"))}) + "\n")
    return before.count(key)


def run_until_stopped(name: str, arguments: list[str], code: int) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # The container is another process than the client that is signalled.
    (FOLDER / f"{name}.stopped").unlink(missing_ok=True)
    (FOLDER / f"{name}.running").touch()
    with socket.socket() as listener:
        port = [each.partition("=")[2] for each in arguments if each.startswith("--port=")]
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((os.environ["FAKE_HOST"], int(port[0])))
            listener.listen()
        wait_until((FOLDER / f"{name}.stopped").exists)
    (FOLDER / f"{name}.running").unlink()
    return code


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
