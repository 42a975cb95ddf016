"""What a person is told before the first step and after the last one."""

from __future__ import annotations

from trainer.model.groups import Group
from trainer.preparation import Built, Prepared, parameter_count
from trainer.records.console import Console
from trainer.records.status import ExportResult, Status
from trainer.training.loop import Progress
from trainer.wording import counted

SAMPLE_NOTE = """\
This was the built-in sample. With your own images, in one
folder a class, and a pretrained module:
  python -m trainer.task --data=folder:PHOTOS \\
    --backbone=HANDLE
HANDLE is a folder, gs:// or https://, such as
https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5
--dry_run shows the plan, --train_backbone fine-tunes,
--help has all flags."""


def describe(prepared: Prepared, built: Built, progress: Progress, console: Console) -> None:
    """Tells what will be done: devices, images, model, steps, and which of them are done already."""
    config, cluster, source, splits = prepared.config, prepared.cluster, prepared.source, prepared.splits
    console.entry("devices", cluster.description)
    if cluster.hint:
        console.entry("", cluster.hint)
    console.entry(
        f"{source.kind}s",
        f"{source.name}: {len(source)} of {len(source.class_names)} classes; {len(prepared.train)} to train, "
        f"{len(splits.validation)} to validate, {len(splits.test)} to test",
    )
    if source.skipped:
        console.warning(
            f"{counted(len(source.skipped), 'file')} cannot be decoded and will not be used; status.json lists which."
        )
    trained, total = parameter_count(built.optimizer.variables), parameter_count(built.model.variables)
    size = built.model.backbone.image_size
    at_size = f" at {size} x {size} pixels" if size else ""
    console.entry("model", f"{config.backbone}{at_size}: {total:,} parameters, {trained:,} trained")
    per_replica = cluster.replica_batch(config.batch_size)
    shared = f", {per_replica} a replica" if cluster.replicas > 1 else ""
    pieces = f", in {config.accumulation_steps} pieces" if config.accumulation_steps > 1 else ""
    console.entry(
        "plan",
        f"{counted(config.epochs, 'epoch')}, {counted(prepared.steps_total, 'step')} of "
        f"{counted(config.batch_size, source.kind)}{shared}{pieces}",
    )
    scales = "".join(f", {_scaled(group)}" for group in built.optimizer.groups if group.rate_scale != 1)
    console.entry("rate", f"{config.optimizer}, {config.schedule} from {config.peak_learning_rate:g}{scales}")
    if built.warm_start:
        console.entry("init", built.warm_start.summary)
    if progress.step:
        console.entry("resume", f"from step {progress.step}, epoch {progress.epoch}")


def list_variables(built: Built, console: Console) -> None:
    """Lists every variable's path and shape, and whether and at which multiple of the rate it is trained."""
    scales = {v.path: group.rate_scale for group in built.optimizer.groups for v in group.variables}
    for variable in built.model.variables:
        how = f"trained at {scales[variable.path]:g} x the rate" if variable.path in scales else "kept"
        console.note(f"{variable.path} {list(variable.shape)}: {how}")


def say_result(prepared: Prepared, status: Status, console: Console) -> None:
    """Tells the test result and where the model is."""
    if status.test:
        test, kind = status.test, prepared.source.kind
        chosen = f", checkpoint of epoch {status.best.epoch}" if status.best else ""
        console.entry(
            "test", f"accuracy {test.accuracy:.4f}, loss {test.loss:.4f} on {counted(test.examples, kind)}{chosen}"
        )
    console.entry("export", status.export or "left out, as --export= says")
    for form, result in status.exports.items():
        if form != "saved_model" and result.path:
            console.entry("tflite", _told(result))


def say_next_steps(prepared: Prepared, console: Console) -> None:
    """After the built-in sample, tells how it goes with one's own images."""
    if prepared.config.data == "digits" and not prepared.config.uses_hub_module:
        console.note(SAMPLE_NOTE)


def _told(result: ExportResult) -> str:
    """A file's path, accuracy and size."""
    accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.4f}"
    return f"{result.path}{accuracy}, {(result.bytes or 0) / 1e6:.2f} MB"


def _scaled(group: Group) -> str:
    return f"{counted(len(group.variables), 'variable')} at {group.rate_scale:g} x"
