"""What checkpoints cost a training step of the built-in digits model.

    python benchmarks/checkpoint_cost.py --rounds=9

Runs of the same steps take turns: without checkpoints but those at the ends of the epochs, and with one every ten
steps to a local disk, the two newest being kept. Only the loop is timed, with all that happens at its boundaries. Each
round gives a ratio of two runs side by side; printed are the median and the range of the ratios, and how many of the
checkpoints that were due came about: one that is due while another is being written is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine

from trainer.startup import import_tensorflow_quietly

EPOCHS = 20
EVERY = 10


class Times:
    """Seconds of the loops that ran, and checkpoints that were written; put around the trainer's own."""

    def __init__(self) -> None:
        from trainer.training.checkpoint import Checkpoint, CheckpointStore
        from trainer.training.loop import TrainLoop

        self.seconds = 0.0
        self.written = 0
        run, save = TrainLoop.run, CheckpointStore.save

        def timed_run(loop: TrainLoop, *arguments: object) -> bool:
            start = time.perf_counter()
            stopped = run(loop, *arguments)  # type: ignore[arg-type]
            self.seconds = time.perf_counter() - start
            return stopped

        def counted_save(store: CheckpointStore, checkpoint: Checkpoint, *, settled: bool = True) -> None:
            save(store, checkpoint, settled=settled)
            self.written += 1

        TrainLoop.run = timed_run  # type: ignore[method-assign]
        CheckpointStore.save = counted_save  # type: ignore[method-assign]


def train(times: Times, checkpoint_steps: int, steps_per_loop: int) -> float:
    """Milliseconds a step of a run."""
    from trainer import run
    from trainer.config import Config

    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            epochs=EPOCHS,
            splits=(100, 0, 0),
            export=(),
            checkpoint_steps=checkpoint_steps,
            checkpoint_minutes=0,
            steps_per_loop=steps_per_loop,
            run_dir=f"{folder}/run",
        )
        times.written = 0
        run.execute(config, quiet=True)
    return 1000 * times.seconds / (EPOCHS * STEPS_AN_EPOCH)


STEPS_AN_EPOCH = 1797 / 32


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    import_tensorflow_quietly()
    times = Times()
    train(times, EVERY, EVERY)  # To warm up.
    plain, calls, saved, written = [], [], [], []
    for _ in range(options.rounds):
        plain.append(train(times, 0, 0))
        saved.append(train(times, EVERY, 0))
        written.append(times.written)
        calls.append(train(times, 0, EVERY))
    due = int(EPOCHS * STEPS_AN_EPOCH) // EVERY + EPOCHS
    print(
        f"{statistics.median(plain):.2f} ms a step without; {statistics.median(saved):.2f} with one every {EVERY} steps"
    )
    for name, against in (
        ("calls of as many steps as the loop picks, without checkpoints", plain),
        (f"calls of {EVERY} steps, without checkpoints", calls),
    ):
        ratios = sorted(with_ / without for with_, without in zip(saved, against))
        print(f"against {name}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(f"written {statistics.median(written):g} of about {due}; {options.rounds} rounds. {machine()}.")


if __name__ == "__main__":
    main()
