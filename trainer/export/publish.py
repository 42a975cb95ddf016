"""The end of a run: whether the trained model is good enough, its export, and what status.json says of that.

`--min_accuracy` holds for the model and for each TFLite file by itself. Where the model falls short, nothing is
published and the run ends with exit code 2; where only a file does, the rest is published, with a warning. The
checkpoints stand in any case.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.config import Config
from trainer.errors import UserError
from trainer.export.saved_model import FEATURE_VECTOR, FOLDER, export_model
from trainer.export.tflite import TFLITE_FOLDER, TfliteFiles, Yardstick, file_name, form_of
from trainer.export.tflite_conversion import KINDS, Kind
from trainer.preparation import Prepared, publishable
from trainer.records.status import ExportResult, earlier_exports
from trainer.session import Session
from trainer.storage import RunDirectory
from trainer.training.checkpoint import Checkpoint
from trainer.training.state import restore_weights
from trainer.wording import counted

PROBE_IMAGES = 8
"""How many images the parity gate asks about."""


def is_published(config: Config, run: RunDirectory) -> bool:
    """Whether a run that is done has left all that `--export` asks for.

    A TFLite file that was less accurate than `--min_accuracy` still asks for is not made again.

    Raises:
      UserError: the place cannot be read, or its status.json is damaged.
    """
    if not config.export:
        return True
    if not config.exports_tflite:
        return run.exists(FOLDER)
    earlier = earlier_exports(run)

    def settled(kind: Kind) -> bool:
        result = earlier.get(form_of(kind))
        too_low = result is not None and result.accuracy is not None and result.accuracy < config.min_accuracy
        return too_low or run.exists(TFLITE_FOLDER, file_name(kind))

    return run.exists(FOLDER) and all(settled(kind) for kind in KINDS)


def require_accuracy(session: Session, checkpoint: Checkpoint) -> None:
    """Makes sure that the best checkpoint may be published. Every worker comes to the same answer.

    Raises:
      UserError: it is less accurate than `--min_accuracy`.
    """
    least, yardstick = session.prepared.config.min_accuracy, _yardstick(session, checkpoint)
    if yardstick.accuracy is not None and yardstick.accuracy < least:
        judged = counted(len(yardstick.indices), f"{yardstick.split} {session.prepared.source.kind}")
        raise UserError(
            f"The best checkpoint's accuracy on the {judged} is {yardstick.accuracy:.6g}, below "
            f"--min_accuracy={least:g}: nothing was published. The checkpoints stand in {session.run.path}, and the "
            "same command with a lower --min_accuracy exports the best."
        )


def publish(session: Session, checkpoint: Checkpoint) -> None:
    """Publishes the best checkpoint in all forms that `--export` asks for, and notes them in the status.

    Raises:
      UserError: the place cannot be written; or TFLite does not take the model, then all else has been published.
    """
    prepared, run, status = session.prepared, session.run, session.status
    model = publishable(prepared, session.built)
    restore_weights(checkpoint, model)
    yardstick = _yardstick(session, checkpoint)
    files = None
    if prepared.config.exports_tflite:
        files = TfliteFiles(prepared, model, yardstick, run, session.console)
    path = export_model(model, prepared.source.class_names, _probe_images(prepared), run, files)
    examples = len(yardstick.indices)
    saved = ExportResult(path, _served_bytes(run), yardstick.accuracy, examples, yardstick.split)
    status.update(export=path, exports={"saved_model": saved, **(files.results if files else {})})
    for result in status.exports.values():
        if result.refused:
            session.console.warning(result.refused)
            status.warnings.append(result.refused)
    if files and files.problem:
        raise UserError(f"{files.problem} The SavedModel was published.")


def _yardstick(session: Session, checkpoint: Checkpoint) -> Yardstick:
    splits, test, best = session.prepared.splits, session.status.test, checkpoint.position.best
    if test:
        return Yardstick("test", splits.test, test.accuracy)
    if best:
        return Yardstick("validation", splits.validation, best.accuracy)
    return Yardstick("", splits.test, None)


def _served_bytes(run: RunDirectory) -> int:
    """The size of the published classifier, without the folders that stand beside it."""
    total, place = 0, run.join(FOLDER)
    for folder, _, names in tf.io.gfile.walk(place):
        inside = folder.rstrip("/").removeprefix(place).strip("/").split("/")[0]
        if inside not in (FEATURE_VECTOR, TFLITE_FOLDER.split("/")[-1]):
            total += sum(tf.io.gfile.stat(f"{folder.rstrip('/')}/{name}").length for name in names)
    return int(total)


def _probe_images(prepared: Prepared) -> list[bytes]:
    """Some training images, spread over the classes' names, as a client would send them."""
    source = prepared.source
    places = np.linspace(0, len(prepared.train) - 1, PROBE_IMAGES).astype(int)
    return [source.encoded(int(index)) for index in prepared.train[np.unique(places)]]
