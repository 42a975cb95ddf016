"""Config: what a run is.

One frozen, typed, validated object that says everything a run needs, and nothing of how it is going. It is read
from flags and JSON (`trainer.task`), written into the run directory as `config.json`, and read again to resume,
to compare and to submit. It imports no TensorFlow, so that `launch` can validate a job in a fraction of a second.

Every field is a flag of `trainer.task`. A field's `topic` puts it under a heading in the README; `changes_result`
says whether it belongs to the fingerprint: what the weights depend on, and not where and how fast they come about.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from trainer.errors import UserError

BUILT_IN_BACKBONE = "convnet"
"""The backbone that needs no download: a small convolutional network, trained from scratch."""

DEFAULT_SYNTHETIC_CLASSES = 4

Topic = Literal["Where it runs", "Data", "Model", "Optimization", "Run directory"]
Augmentation = Literal["flip", "crop", "color"]
DataKind = Literal["digits", "folder", "synthetic"]


class DataSpec(NamedTuple):
    """`--data` taken apart: `folder:/photos` is kind "folder" and argument "/photos"."""

    kind: DataKind
    argument: str

    @property
    def synthetic_classes(self) -> int:
        """How many classes `synthetic[:CLASSES]` asks for."""
        return int(self.argument) if self.argument else DEFAULT_SYNTHETIC_CLASSES


def parse_data(spec: str) -> DataSpec:
    """Takes `--data` apart.

    Raises:
      ValueError: not one of `digits`, `folder:PATH`, `synthetic[:CLASSES]`; the message says which are accepted.
    """
    kind, colon, argument = spec.partition(":")
    if kind not in get_args(DataKind):
        near = difflib.get_close_matches(kind, get_args(DataKind), 1)
        if not near and ("/" in spec or spec.startswith((".", "~"))):
            raise ValueError(f"a folder of images is given as folder:{spec}")
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be digits, folder:PATH or synthetic[:CLASSES]{hint}")
    if kind == "folder" and not argument:
        raise ValueError("must name the folder, as in folder:PATH")
    if kind == "digits" and colon:
        raise ValueError("digits takes nothing after it")
    if kind == "synthetic" and colon and not (argument.isdecimal() and 2 <= int(argument) <= 1000):
        raise ValueError("synthetic takes a number of classes from 2 to 1000, as in synthetic:4")
    return DataSpec(kind, argument)  # type: ignore[arg-type]


def _comma_separated(value: object) -> object:
    """Lets a list field be written as on the command line: "75,15,10"."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return value


def _three_parts(value: object) -> object:
    parts = _comma_separated(value)
    if not isinstance(parts, (list, tuple)) or len(parts) != 3:
        raise ValueError("must be three percentages that add up to 100, as in 75,15,10")
    return parts


def _checked_data(spec: str) -> str:
    parse_data(spec)
    return spec


def _field(
    default: Any,
    topic: Topic,
    description: str,
    *,
    changes_result: bool = True,
    **constraints: Any,
) -> Any:
    return Field(
        default=default,
        description=description,
        json_schema_extra={"topic": topic, "changes_result": changes_result},
        **constraints,
    )


class Config(BaseModel):
    """What a run is: the flags of `trainer.task`, checked.

    Constructing one raises pydantic's `ValidationError`; `Config.parse` turns that into the sentence a user reads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    strategy: Literal["default", "mirrored"] = _field(
        "default",
        "Where it runs",
        "Where the replicas run. default: the best single device. mirrored: every GPU of this machine, or "
        "--virtual_devices CPU replicas.",
        changes_result=False,
    )
    virtual_devices: int = _field(
        0,
        "Where it runs",
        "Split the CPU into this many devices, one replica each, to try --strategy=mirrored without a GPU. 0: no.",
        changes_result=False,
        ge=0,
        le=64,
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = _field(
        "float32",
        "Where it runs",
        "Number format of the layers' arithmetic; weights stay float32. mixed_float16 scales the loss. A Hub "
        "module computes as its publisher saved it: the format applies to the layers that are ours.",
    )
    steps_per_loop: int = _field(
        0,
        "Where it runs",
        "Training steps that run in one call without returning to Python. 0: picked so that a call takes about "
        "half a second.",
        changes_result=False,
        ge=0,
    )

    data: Annotated[str, AfterValidator(_checked_data)] = _field(
        "digits",
        "Data",
        "The labelled images. digits: 1797 handwritten digits that come with scikit-learn. folder:PATH: one "
        "folder of images a class, local or gs://. synthetic[:CLASSES]: generated images, for speed tests.",
    )
    classes: Annotated[tuple[str, ...], BeforeValidator(_comma_separated)] = _field(
        (),
        "Data",
        "Use only these classes, separated by commas. Empty: all.",
    )
    splits: Annotated[tuple[int, int, int], BeforeValidator(_three_parts)] = _field(
        (75, 15, 10),
        "Data",
        "Percent of the images for training, validation and test. Which image goes where depends on its name "
        "alone: neither the seed nor files that are added later move it.",
    )
    examples_per_class: int = _field(
        0,
        "Data",
        "Train on at most this many images a class, drawn with --seed; validation and test stay whole. 0: all.",
        ge=0,
    )
    augment: Annotated[tuple[Augmentation, ...], BeforeValidator(_comma_separated)] = _field(
        (),
        "Data",
        "Random changes to the training images, separated by commas. flip: left and right. crop: a part of at "
        "least a third of the area. color: brightness, contrast and saturation.",
    )
    resize: Literal["crop", "squash"] = _field(
        "crop",
        "Data",
        "How a picture becomes square. crop: the square in its middle. squash: all of it, out of proportion, as the "
        "Hub tutorials do.",
    )
    on_bad_image: Literal["fail", "skip"] = _field(
        "fail",
        "Data",
        "What to do about a file that cannot be decoded. fail: stop and name it. skip: look through all files "
        "first, leave the bad ones out, and list them in status.json.",
        changes_result=False,  # Which images are used does, and for those stands `Source.fingerprint`.
    )

    backbone: str = _field(
        BUILT_IN_BACKBONE,
        "Model",
        "What turns an image into a feature vector. convnet: a small network of our own, trained from scratch. "
        "Otherwise a TensorFlow Hub handle: a folder, gs://, or https://.",
    )
    train_backbone: bool = _field(
        False,
        "Model",
        "Train the Hub module's variables too (fine-tuning), not only the classification head.",
    )
    backbone_statistics: Literal["keep", "update"] = _field(
        "keep",
        "Model",
        "With --train_backbone: keep the module's batch-norm moving statistics as published, or update them "
        "from the batches (averaged over replicas after every step).",
    )
    image_size: int = _field(
        0,
        "Model",
        "Height and width, in pixels, that images are resized to. 0: what the module expects.",
        ge=0,
        le=4096,
    )
    dropout: float = _field(
        0.0,
        "Model",
        "Fraction of the feature vector that is dropped in training, from 0 to below 1.",
        ge=0,
        lt=1,
    )
    hub_mirror: str = _field(
        "",
        "Model",
        "Fetch https://tfhub.dev/… handles from this host instead, such as https://hub.tensorflow.google.cn.",
        changes_result=False,
    )
    repair_hub_cache: bool = _field(
        False,
        "Model",
        "If the cached copy of the module is incomplete, delete it and fetch it again.",
        changes_result=False,
    )

    batch_size: int = _field(
        32,
        "Optimization",
        "Images a training step, over all replicas together (the global batch).",
        ge=1,
        le=2**20,
    )
    epochs: int = _field(10, "Optimization", "Passes over the training images.", ge=1, le=1_000_000)
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "rmsprop"] = _field(
        "adam",
        "Optimization",
        "The update rule. momentum is SGD with Nesterov momentum 0.9.",
    )
    learning_rate: float = _field(
        0.0,
        "Optimization",
        "Peak learning rate. 0: by what is trained, 8e-3 for a head on a frozen module, 3e-4 for fine-tuning, 1e-3 "
        "for the built-in network.",
        ge=0,
        lt=1e3,
    )
    schedule: Literal["constant", "cosine", "linear"] = _field(
        "cosine",
        "Optimization",
        "How the learning rate falls from its peak; cosine and linear end at zero.",
    )
    warmup: float = _field(
        0.0,
        "Optimization",
        "Epochs, whole or not, over which the learning rate rises to its peak.",
        ge=0,
    )
    weight_decay: float = _field(
        0.0,
        "Optimization",
        "Pull of the weights towards zero, not applied to biases and norm scales. adamw decays the weights "
        "beside the update; the others add it to the gradient (L2).",
        ge=0,
        lt=1,
    )
    label_smoothing: float = _field(
        0.0,
        "Optimization",
        "Share of each label's probability that is spread over all classes, from 0 to below 1.",
        ge=0,
        lt=1,
    )
    clip_norm: float = _field(
        0.0,
        "Optimization",
        "Largest global norm of the gradient, taken after the sum over replicas. 0: no limit.",
        ge=0,
        allow_inf_nan=False,
    )
    seed: int = _field(
        0,
        "Optimization",
        "Everything random derives from it: initial weights, order, augmentation, dropout.",
        ge=0,
        lt=2**31,
    )

    run_dir: str = _field(
        "",
        "Run directory",
        "Where the run leaves everything, local or gs://. Empty: a new folder under runs/.",
        changes_result=False,
    )
    resume: str = _field(
        "auto",
        "Run directory",
        "auto: go on where --run_dir stopped, or start. never: start, and refuse a run_dir that holds a run. "
        "PATH: start from the last checkpoint of that run directory, position and optimizer included.",
        changes_result=False,
    )

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: object) -> object:
        """Refuses what no path, name or JSON file can hold: NUL, and bytes of the command line that are no UTF-8."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and re.search(r"[\0\ud800-\udfff]", text):
                raise ValueError("must be valid UTF-8 without NUL characters")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Config:
        parse_data(self.data)
        if sum(self.splits) != 100 or min(self.splits) < 0 or self.splits[0] == 0:
            raise ValueError(
                f"--splits={','.join(map(str, self.splits))}: must be three percentages that add up to 100, the "
                "first above 0, as in 75,15,10"
            )
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise ValueError(f"--classes={','.join(self.classes)}: must name at least two different classes")
        if self.virtual_devices and self.strategy != "mirrored":
            raise ValueError(f"--virtual_devices={self.virtual_devices} needs --strategy=mirrored, not {self.strategy}")
        if self.virtual_devices and self.batch_size % self.virtual_devices:
            raise ValueError(batch_size_problem(self.batch_size, self.virtual_devices))
        if not self.backbone:
            raise ValueError("--backbone is empty: give convnet or a TensorFlow Hub handle")
        if self.hub_mirror and not re.match(r"https?://[^/]+", self.hub_mirror):
            raise ValueError(f"--hub_mirror={self.hub_mirror}: must be a host such as https://hub.tensorflow.google.cn")
        if self.warmup > self.epochs:
            raise ValueError(f"--warmup={self.warmup:g} is longer than the {self.epochs} --epochs")
        if not self.resume:
            raise ValueError("--resume is empty: give auto, never, or the run directory to go on from")
        return self

    @property
    def data_spec(self) -> DataSpec:
        """`data`, taken apart."""
        return parse_data(self.data)

    @property
    def uses_hub_module(self) -> bool:
        """Whether the backbone is a Hub module, not the built-in network."""
        return self.backbone != BUILT_IN_BACKBONE

    @property
    def trains_backbone(self) -> bool:
        """Whether gradients reach the backbone: always for the built-in network, which starts from nothing."""
        return self.train_backbone or not self.uses_hub_module

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, or the one that suits what is trained.

        For Adam; the head's was the best of 1e-3, 2e-3, 4e-3 and 8e-3 on random splits of the flower photos
        (2026-11), the one for fine-tuning is what README's recipe was measured with.
        """
        if self.learning_rate:
            return self.learning_rate
        if not self.uses_hub_module:
            return 1e-3
        return 3e-4 if self.train_backbone else 8e-3

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Config:
        """Builds a Config from field values, as a user gave them.

        Raises:
          UserError: an unknown field or a value that is not accepted; the sentence names it and what would be.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            sentences = dict.fromkeys(_sentence(detail, values) for detail in error.errors())
            raise UserError(" ".join(sentences)) from None

    @classmethod
    def from_json(cls, text: str, *, origin: str = "config") -> Config:
        """Reads what `to_json` wrote.

        Args:
          text: a JSON object whose keys are fields; missing ones take their defaults.
          origin: what to call the text in errors, normally its path.

        Raises:
          UserError: not JSON, not an object, an unknown field or a value that is not accepted.
        """
        values = values_from_json(text, origin=origin)
        try:
            return cls.parse(values)
        except UserError as error:
            raise UserError(f"{origin}: {error}") from None

    def to_json(self) -> str:
        """All fields as an indented JSON object."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"

    def identity(self) -> dict[str, Any]:
        """The fields that change the result, by name.

        A folder's path is not among them: the images are, and `Source.fingerprint` stands for those.
        """
        dumped = self.model_dump(mode="json")
        identity = {name: dumped[name] for name, field in type(self).model_fields.items() if _changes_result(field)}
        if self.data_spec.kind == "folder":
            identity["data"] = "folder"
        return identity

    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal for two runs that must give the same weights from the same data."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def differences(self, other: Config) -> list[str]:
        """What differs in the fields that change the result, as "--field is A here and B there" (`other`)."""
        mine, theirs = self.identity(), other.identity()
        return [
            f"--{name} is {_shown(mine[name])} here and {_shown(theirs[name])} there"
            for name in mine
            if mine[name] != theirs[name]
        ]


def batch_size_problem(batch_size: int, replicas: int) -> str:
    """The sentence for a global batch that the replicas do not divide, with the nearest sizes that they do."""
    below, above = batch_size // replicas * replicas, (batch_size // replicas + 1) * replicas
    choices = f"{below} or {above}" if below else f"{above}"
    return f"--batch_size={batch_size} cannot be shared by {replicas} replicas; take {choices}"


def values_from_json(text: str, *, origin: str) -> dict[str, Any]:
    """The fields of a JSON config as they stand there, unchecked.

    Raises:
      UserError: `text` is not a JSON object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f'{origin} must be a JSON object of fields such as {{"epochs": 5}}.')
    return values


def field_topic(field: FieldInfo) -> Topic:
    """The heading under which the field stands in the README and in `--help`."""
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra["topic"]  # type: ignore[return-value]


def _changes_result(field: FieldInfo) -> bool:
    assert isinstance(field.json_schema_extra, dict)
    return bool(field.json_schema_extra["changes_result"])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "empty"
    return "empty" if value == "" else str(value)


_PLAINER_MESSAGES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be names, separated by commas",
}
"""What is said instead of pydantic's own words, by its type of error."""


def _sentence(detail: Any, values: dict[str, Any]) -> str:
    """One of pydantic's errors as a sentence that names the flag, its value and what is accepted.

    Args:
      detail: of `ValidationError.errors()`.
      values: what was to be a Config.
    """
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = _PLAINER_MESSAGES.get(detail["type"], message.replace("should be ", "must be ", 1))
    end = "" if message.endswith(("?", ".")) else "."
    if not detail["loc"]:
        return f"{message}{end}"
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Config.model_fields, 1)
        return f"There is no field {name}." + (f" Did you mean {near[0]}?" if near else "")
    value = values.get(name, detail["input"])
    shown = value if value == "" else _shown(value)
    each = "each " if len(detail["loc"]) > 1 else ""
    return f"--{name}={shown}: {each}{message}{end}"
