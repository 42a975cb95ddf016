"""The fresh process of the parity gate, as the run sees it; `trainer.export.fresh_check` is what runs in it.

It starts before there is anything to load, because importing TensorFlow takes it some seconds, and is asked about each
part of an export as soon as that is written, while the run writes the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TIMEOUT_SECONDS = 600.0
"""For all answers together, counted from the last question."""

Part = Literal["classifier", "feature_vector"]


class ParityError(RuntimeError):
    """The reloaded model answers differently from the one in memory: a bug, so nothing is published."""


@dataclass(frozen=True)
class Probe:
    """Examples to ask about, and what the model in memory says of them.

    Attributes:
      encoded: n examples as clients send them: image files, or texts in UTF-8.
      pixels: float32 `[n, S, S, 3]` in [0, 1], the same images decoded and resized; None where the examples are texts,
        which the module takes as they are.
      probabilities: float32 `[n, classes]`.
      features: float32 `[n, feature_size]`.
    """

    encoded: Sequence[bytes]
    pixels: NDArray[np.float32] | None
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


class FreshProcess:
    """A process on CPU with TensorFlow and NumPy alone. Use it in a `with` block, which it does not outlive."""

    def __init__(self) -> None:
        """Starts it."""
        package = Path(__file__).resolve().parents[1]
        environment = dict(
            os.environ,
            CUDA_VISIBLE_DEVICES="",
            TF_CPP_MIN_LOG_LEVEL="3",
            PYTHONPATH=os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH", "")])),
        )
        self._folder = tempfile.TemporaryDirectory(prefix="hub-trainer-export-")
        self._asked: list[Part] = []
        # A file, not a pipe: nobody reads it before the end, and a full pipe would stop the process.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.export.fresh_check"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_questions()
        self._process.kill()
        self._process.wait()
        self._errors.close()
        self._folder.cleanup()

    def ask(self, part: Part, path: str, probe: Probe) -> None:
        """Has it load a part of an export and asks that about the probe; does not wait for the answer.

        Args:
          part: what the SavedModel is.
          path: its folder, complete.
          probe: its examples.
        """
        encoded = {f"encoded_{place}": np.frombuffer(example, np.uint8) for place, example in enumerate(probe.encoded)}
        pixels = {} if probe.pixels is None else {"pixels": probe.pixels}
        np.savez(self._path(f"{part}-questions.npz"), **encoded, **pixels)  # type: ignore[arg-type]
        question = {
            "part": part,
            "path": path,
            "questions": self._path(f"{part}-questions.npz"),
            "answers": self._path(f"{part}-answers.npz"),
        }
        self._asked.append(part)
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # It has failed: `answers` says why.
            self._process.stdin.write(f"{json.dumps(question)}\n")
            self._process.stdin.flush()

    def answers(self) -> dict[str, NDArray[Any]]:
        """What it said of all that it was asked about, by the names of `trainer.export.fresh_check`.

        Raises:
          ParityError: it failed, and the message ends with what it printed last; or it took too long.
        """
        self._close_questions()
        try:
            code = self._process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ParityError(f"the export gave no answer in a fresh process within {TIMEOUT_SECONDS:g} s") from None
        if code:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no output"])[-1]
            raise ParityError(f"the export could not be loaded in a fresh process: {last}")
        found: dict[str, NDArray[Any]] = {}
        for part in self._asked:
            with np.load(self._path(f"{part}-answers.npz")) as arrays:
                found |= {name: arrays[name] for name in arrays.files}
        return found

    def _close_questions(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)
