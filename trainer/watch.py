"""The evaluator of a cluster: judges every checkpoint that the workers leave, beside the training.

The workers validate too, and choose the best checkpoint by that; an evaluator is for clusters that have one anyway,
and writes its own curves under `tensorboard/evaluator`. It takes no part in the workers' collective operations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.records.status import FILE_NAME as STATUS_FILE
from trainer.records.writers import TensorBoardWriter
from trainer.storage import RunDirectory
from trainer.topology import Topology
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.evaluation import Evaluator
from trainer.training.state import restore_weights

SPLIT = "evaluator"
"""What its curves are called."""

SECONDS_BETWEEN_LOOKS = 5.0

_BATCH = 32
"""Images that it judges at once where the workers' batch is still to be found."""


def watch(
    config: Config,
    run: RunDirectory,
    topology: Topology,
    console: Console,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Judges each new checkpoint on the validation split (the test split where there is none) until the run ends.

    Args:
      config: that of the workers.
      run: their run directory.
      topology: says that this is the evaluator.
      console: gets a line for each checkpoint.
      clock: seconds.
      sleep: waits that many seconds.

    Returns:
      `EXIT_DONE`, once the run is no longer going on and its last checkpoint is judged.

    Raises:
      UserError: the run does not begin within `--worker_timeout`.
    """
    if config.finds_batch_size:
        config = config.model_copy(update={"batch_size": _BATCH})  # Its results are the same with any.
    cluster = connect(config, topology)
    console.entry("devices", cluster.description)
    prepared = prepare(config, cluster, console)
    built = build(prepared)
    indices = prepared.splits.validation if len(prepared.splits.validation) else prepared.splits.test
    evaluator = Evaluator(cluster, built.model, prepared.source, config.batch_size)
    writer = TensorBoardWriter(run, 0)
    store = CheckpointStore(run)
    judged, begun = -1, clock()
    while True:
        state = _state(run)  # Before looking for checkpoints: a run that has ended writes no more.
        for step in [step for step in store.steps() if step > judged]:
            judged = step
            checkpoint = _load(store, step)
            if checkpoint:
                restore_weights(checkpoint, built.model)
                evaluation = evaluator(indices)
                values = {"accuracy": evaluation.accuracy, "loss": evaluation.loss}
                writer.write(SPLIT, step, epoch=checkpoint.position.epoch, values=values)
                writer.pending()()
                console.entry("step", f"{step}: accuracy {evaluation.accuracy:.4f}, loss {evaluation.loss:.4f}")
        if state not in (None, "running"):
            writer.close()
            return EXIT_DONE
        if state is None and clock() - begun > config.worker_timeout:
            raise UserError(
                f"There is no run in --run_dir={run.path} after --worker_timeout={config.worker_timeout:g} seconds: "
                "give the evaluator the run directory of the workers."
            )
        sleep(SECONDS_BETWEEN_LOOKS)


def _load(store: CheckpointStore, step: int) -> Checkpoint | None:
    """A checkpoint, or None where the workers deleted it in the meantime."""
    try:
        return store.load(step)
    except UserError:
        if step in store.steps():
            raise
        return None


def _state(run: RunDirectory) -> str | None:
    """What status.json says of the run; None where there is none yet."""
    if not run.exists(STATUS_FILE):
        return None
    return str(json.loads(run.read_text(STATUS_FILE))["state"])
