"""What goes with texts (`--data=csv:FILE`) and what goes with images alone. No TensorFlow."""

from __future__ import annotations

from trainer.config_errors import shown
from trainer.config_fields import BUILT_IN_BACKBONE, Fields
from trainer.config_values import parse_data

FOR_IMAGES = (
    "augment",
    "randaugment",
    "mixup",
    "cutmix",
    "resize",
    "stage_to",
    "cache_decoded",
    "on_bad_image",
    "max_image_pixels",
    "image_size",
    "feature_cache_views",
)
"""Fields that say what happens to pixels, or to files that hold them."""

FOR_TEXTS = ("text_column", "label_column")


def text_problem(fields: Fields, *, keeps_features: bool) -> str:
    """The sentence, without its full stop, for what does not go together with the kind of examples; "" if all does.

    Args:
      fields: each checked by itself.
      keeps_features: whether features are computed before training and not in its steps.
    """
    if parse_data(fields.data).example_kind != "text":
        if given := _given(fields, FOR_TEXTS):
            return f"{given}: is for --data=csv:FILE, and --data is {fields.data}"
        return ""
    if given := _given(fields, FOR_IMAGES):
        return f"{given}: is for images, and --data={fields.data} holds texts; leave it out"
    if "tflite" in fields.export:
        return f"--export={shown(fields.export)}: TFLite files are for images, and --data={fields.data} holds texts"
    if fields.backbone == BUILT_IN_BACKBONE:
        return (
            f"--backbone={fields.backbone} takes images, and --data={fields.data} holds texts: give the handle of a "
            "text embedding module, which turns string [batch] into float [batch, features]"
        )
    if "" in (fields.text_column, fields.label_column) or fields.text_column == fields.label_column:
        return (
            f"--text_column={fields.text_column} and --label_column={fields.label_column} must name two different "
            "columns"
        )
    if fields.strategy == "tpu" and not keeps_features:
        return (
            f"--strategy=tpu: no TPU can hold the strings of --data={fields.data}; train a head on a frozen module, "
            "with the --feature_cache, or take another --strategy"
        )
    return ""


def _given(fields: Fields, names: tuple[str, ...]) -> str:
    """The first of these fields that has another value than its default, as a flag; "" if none has."""
    for name in names:
        value = getattr(fields, name)
        if value != type(fields).model_fields[name].default:
            return f"--{name}={shown(value)}"
    return ""
