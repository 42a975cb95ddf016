"""`launch plan`: the whole of it in golden files, offline, within a second."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from golden import check_golden

from launch.__main__ import main
from launch.jobs.preflight import Preflight
from trainer.errors import EXIT_DONE, EXIT_USER

GOLDEN = Path(__file__).with_name("golden")
REPOSITORY = Path(__file__).resolve().parents[2]

VERTEX = [
    *("vertex", "--project=project-1", "--region=us-central1", "--accelerator=l4:2", "--workers=2"),
    *("--name=flowers-1", "--image=us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc1234"),
]
SLICE = [
    *("tpu-vm", "--project=project-1", "--zone=us-west4-a", "--accelerator=v5litepod-16", "--name=flowers-1"),
    *("--image=us-west4-docker.pkg.dev/project-1/hub-trainer/trainer-tpu:abc1234", "--preflight=off"),
]
FLAGS = ["--", "--data=tfds:tf_flowers", "--run_dir=gs://bucket/flowers"]

OFFLINE = """
import socket, sys
def refuse(*_): raise AssertionError("the network is asked")
socket.socket.connect = socket.getaddrinfo = refuse
from launch.__main__ import main
from launch.jobs.preflight import Preflight
code = main(sys.argv[1:])
slow = {"tensorflow", "google.auth", "requests", "yaml", "numpy"} & set(sys.modules)
assert not slow, slow
sys.exit(code)
"""


@pytest.mark.parametrize(("options", "name"), [(VERTEX, "plan-vertex.txt"), (SLICE, "plan-tpu-vm.txt")])
def test_a_plan(options: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *options, *FLAGS]) == EXIT_DONE
    # The start-up script has an own test; only its length is in the plan.
    check_golden(GOLDEN / name, re.sub(r"\([\d,]+ characters", "(N characters", capsys.readouterr().out))


def test_json_has_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SLICE, "--json", *FLAGS]) == EXIT_DONE
    plan = json.loads(capsys.readouterr().out)
    node = plan["requests"][0]["body"]["tpu"]["nodeSpec"][0]["node"]
    assert node["metadata"]["startup-script"] == (REPOSITORY / "launch/services/tpu_startup.py").read_text(
        encoding="utf-8"
    )
    assert plan["replicas"] == 16 and plan["price"]["dollars"] == pytest.approx(16 * 1.2)
    assert plan["commands"]["every worker"] == ["python", "-m", "trainer.tpu_server", "--port=8470"]


def test_every_problem_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--", "--data=folder:photos", "--backbone=module", "--batch_size=33"]
    assert main(["plan", *VERTEX, "--label=a=B", *flags]) == EXIT_USER
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem  ")]
    assert len(problems) == 5


def test_offline_and_within_a_second() -> None:
    """A second of processor time, with what starting Python takes: that is the same on a machine with other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "plan", *VERTEX, *FLAGS],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_nobody_reads_to_the_end() -> None:
    command = f"{sys.executable} -m launch plan {' '.join([*SLICE, '--json', *FLAGS])} | head -1"
    done = subprocess.run(["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_the_preflight_comes_after_the_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SLICE[:-1], "--preflight=auto"]
    for answer, code in ((Preflight("fits", "compiles and fits"), EXIT_DONE), (Preflight("does not", "no"), EXIT_USER)):
        monkeypatch.setattr("launch.commands.plan_command.ask", lambda job, mode, answer=answer: answer)
        assert main(["plan", *options, *FLAGS]) == code
        assert capsys.readouterr().out.endswith(f"\n\npreflight {answer.sentence}\n")
        assert main(["plan", *options, "--json", *FLAGS]) == code
        plan = json.loads(capsys.readouterr().out)
        assert plan["preflight"] == answer.sentence and bool(plan["problems"]) == bool(code)
