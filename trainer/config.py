"""Config: what a run is.

One frozen, typed, validated object that says everything a run needs, and nothing of how it is going. It is read
from flags and JSON (`trainer.task`), written into the run directory as `config.json`, and read again to resume,
to compare and to submit. It imports no TensorFlow, so that `launch` can validate a job in a fraction of a second.

`trainer.config_fields` lists what can be set; here it is checked together, and here stands what follows from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import datetime
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from trainer.config_errors import batch_size_problem, sentence, shown, values_from_json
from trainer.config_fields import BUILT_IN_BACKBONE, Fields, changes_result
from trainer.config_texts import text_problem
from trainer.config_values import (
    AUTO_BATCH_SIZE,
    BALANCED,
    DataSpec,
    ExampleKind,
    Fault,
    RateScale,
    credentials_problem,
    parse_class_weights,
    parse_data,
    parse_fault,
    parse_rate_scale,
)
from trainer.errors import UserError
from trainer.storage_errors import is_remote

DEFAULT_RUNS_FOLDER = "runs"
"""Where runs go that are given no directory."""


class Config(Fields):
    """What a run is: the flags of `trainer.task`, checked.

    Constructing one raises pydantic's `ValidationError`; `Config.parse` turns that into the sentence a user reads.
    """

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: object) -> object:
        """Refuses what no path, name or JSON file can hold: NUL, and bytes of the command line that are no UTF-8."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and re.search(r"[\0\ud800-\udfff]", text):
                raise ValueError("must be valid UTF-8 without NUL characters")
        return value

    @model_validator(mode="after")
    def _check_data(self) -> Config:
        if sum(self.splits) != 100 or min(self.splits) < 0 or self.splits[0] == 0:
            raise ValueError(
                f"--splits={shown(self.splits)}: must be three percentages that add up to 100, the "
                "first above 0, as in 75,15,10"
            )
        if self.cache_decoded and "crop" in self.augment:
            raise ValueError(
                "--cache_decoded keeps pictures at the model's size, and --augment=crop cuts its parts out of the "
                "originals: leave one of them out"
            )
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise ValueError(f"--classes={','.join(self.classes)}: must name at least two different classes")
        return self

    @model_validator(mode="after")
    def _check_staging(self) -> Config:
        if self.stage_to and not (self.data_spec.kind == "folder" and self.data_spec.argument.startswith("gs://")):
            raise ValueError(f"--stage_to={self.stage_to} copies --data=folder:gs://…, and --data is {self.data}")
        if is_remote(self.stage_to):
            raise ValueError(f"--stage_to={self.stage_to}: must be a folder of this machine")
        return self

    @model_validator(mode="after")
    def _check_place(self) -> Config:
        if self.virtual_devices and self.strategy not in ("mirrored", "multi_worker"):
            raise ValueError(
                f"--virtual_devices={self.virtual_devices} needs --strategy=mirrored or multi_worker, not "
                f"{self.strategy}"
            )
        if self.virtual_devices and self.batch_size % self.virtual_devices:
            raise ValueError(batch_size_problem(self.batch_size, self.virtual_devices))
        if not self.tpu:
            raise ValueError("--tpu is empty: give local, the name of a Cloud TPU, or grpc://HOST:PORT")
        if not self.resume:
            raise ValueError("--resume is empty: give auto, never, or the run directory to go on from")
        return self

    @model_validator(mode="after")
    def _check_export(self) -> Config:
        if self.min_accuracy and not self.export:
            raise ValueError(
                f"--min_accuracy={self.min_accuracy:g} judges what is exported, and --export is empty: leave one out"
            )
        if self.min_accuracy and not any(self.splits[1:]):
            raise ValueError(
                f"--min_accuracy={self.min_accuracy:g} needs images to test on: --splits={shown(self.splits)} has none"
            )
        return self

    @model_validator(mode="after")
    def _check_interruptions(self) -> Config:
        if self.inject and self.strategy == "tpu" and not self.inject_on_tpu:
            raise ValueError(
                f"--inject={','.join(self.inject)} with --strategy=tpu would break a run that is paid for: give "
                "--inject_on_tpu if that is what you want"
            )
        return self

    @model_validator(mode="after")
    def _check_training(self) -> Config:
        if not self.backbone:
            raise ValueError("--backbone is empty: give convnet or a TensorFlow Hub handle")
        if self.hub_mirror and not re.match(r"https?://[^/]+", self.hub_mirror):
            raise ValueError(f"--hub_mirror={self.hub_mirror}: must be a host such as https://hub.tensorflow.google.cn")
        if self.warmup > self.epochs:
            raise ValueError(f"--warmup={self.warmup:g} is longer than the {self.epochs} --epochs")
        if (self.schedule == "step") != bool(self.decay_epochs):
            raise ValueError(
                f"--schedule={self.schedule} with --decay_epochs={shown(self.decay_epochs)}: step needs the epochs at "
                "which the rate falls, as in --decay_epochs=5,8, and the others take none"
            )
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(f"--decay_epochs={shown(self.decay_epochs)}: must ascend")
        if not self.feature_cache:
            raise ValueError("--feature_cache is empty: give auto, off, or a folder")
        if self.feature_cache_views:
            self._check_views()
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"--batch_size={self.batch_size}: --mixup and --cutmix pair images, so it must be even")
        return self

    @model_validator(mode="after")
    def _check_texts(self) -> Config:
        problem = text_problem(self, keeps_features=self.keeps_features)
        if problem:
            raise ValueError(problem)
        return self

    def _check_views(self) -> None:
        """Makes sure that `--feature_cache_views` has something to keep."""
        given = f"--feature_cache_views={self.feature_cache_views}"
        if not self.augments_images:
            raise ValueError(f"{given} needs --augment or --randaugment: without them all views are the same")
        if self.trains_backbone or self.mixes_images or self.init_from or self.feature_cache == "off":
            raise ValueError(
                f"{given} needs a frozen --backbone as it was published, neither --mixup nor --cutmix, and a "
                "--feature_cache: views are kept as features"
            )

    @property
    def features_change(self) -> str:
        """Why the features of an image are not the same in every epoch, for a person; "" if they are."""
        if self.trains_backbone:
            return "the backbone is trained, so they change with every step"
        if self.init_from:
            return "--init_from may bring other weights than the module's"
        if self.mixes_images:
            return "--mixup and --cutmix mix the images anew at every step"
        if self.augments_images and not self.feature_cache_views:
            flag = "--augment" if self.augment else "--randaugment"
            return f"{flag} changes the images in every epoch; --feature_cache_views=4 would keep four variants of each"
        return ""

    @property
    def keeps_features(self) -> bool:
        """Whether each image goes through the backbone once and not once an epoch."""
        return self.feature_cache != "off" and not self.features_change

    @property
    def exports_tflite(self) -> bool:
        """Whether TFLite files are published beside the SavedModel."""
        return "tflite" in self.export

    @property
    def augments_images(self) -> bool:
        """Whether training images are changed at random, each by itself."""
        return bool(self.augment or self.randaugment)

    @property
    def data_spec(self) -> DataSpec:
        """`data`, taken apart."""
        return parse_data(self.data)

    @property
    def example_kind(self) -> ExampleKind:
        """What is classified."""
        return self.data_spec.example_kind

    @property
    def uses_hub_module(self) -> bool:
        """Whether the backbone is a Hub module, not the built-in network."""
        return self.backbone != BUILT_IN_BACKBONE

    @property
    def trains_backbone(self) -> bool:
        """Whether gradients reach the backbone: always for the built-in network, which starts from nothing."""
        return self.train_backbone or not self.uses_hub_module

    @property
    def finds_batch_size(self) -> bool:
        """Whether `batch_size` is still to be found (`--batch_size=auto`); no number may be read from it before."""
        return self.batch_size == AUTO_BATCH_SIZE

    @property
    def smallest_replica_batch(self) -> int:
        """Of which what a replica gets must be a multiple: so many pieces, of whole pairs where images are mixed."""
        return self.accumulation_steps * (2 if self.mixes_images else 1)

    def with_batch_size(self, batch_size: int) -> Config:
        """The same run with this batch."""
        return Config.parse(self.model_dump() | {"batch_size": batch_size})

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, or the one that suits what is trained; scaled if `learning_rate_batch` says so.

        For Adam; the head's was the best of 1e-3, 2e-3, 4e-3 and 8e-3 on random splits of the flower photos
        (2026-11), the one for fine-tuning is what README's recipe was measured with.
        """
        rate = self.learning_rate
        if not rate:
            rate = 3e-4 if self.train_backbone else 8e-3
            rate = rate if self.uses_hub_module else 1e-3
        return rate * self.batch_size / self.learning_rate_batch if self.learning_rate_batch else rate

    @property
    def rate_scales(self) -> list[RateScale]:
        """`lr_scale`, taken apart."""
        return [parse_rate_scale(entry) for entry in self.lr_scale]

    @property
    def faults(self) -> list[Fault]:
        """`inject`, taken apart."""
        return [parse_fault(entry) for entry in self.inject]

    @property
    def balances_classes(self) -> bool:
        """Whether class weights come from the classes' sizes."""
        return self.class_weights == (BALANCED,)

    @property
    def named_class_weights(self) -> dict[str, float]:
        """The weights that `class_weights` names, by class."""
        return parse_class_weights(self.class_weights)

    @property
    def mixes_images(self) -> bool:
        """Whether training images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    def new_run_dir(self, moment: datetime) -> str:
        """A folder named by time, data and backbone, such as runs/20261121-093000-digits-convnet; numbered if taken."""
        backbone = re.sub(r"[^A-Za-z0-9]+", "-", self.backbone.rstrip("/").split("://")[-1]).strip("-")[-40:]
        path = suggested = f"{DEFAULT_RUNS_FOLDER}/{moment:%Y%m%d-%H%M%S}-{self.data_spec.kind}-{backbone}"
        attempt = 1
        while os.path.exists(path):
            attempt += 1
            path = f"{suggested}-{attempt}"
        return path

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Config:
        """Builds a Config from field values, as a user gave them.

        Raises:
          UserError: an unknown field or a value that is not accepted; the sentence names it and what would be. Of an
            address with a password or token in it, it does not repeat the value.
        """
        for name, value in values.items():
            # First of all, because every other complaint repeats the value.
            problem = credentials_problem(str(value))
            if problem:
                raise UserError(f"--{name} {problem}.")
        try:
            return cls(**values)
        except ValidationError as error:
            sentences = dict.fromkeys(sentence(detail, values, cls.model_fields) for detail in error.errors())
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

        The place of a folder, of records or of a table is not among them: the examples are, and `Source.fingerprint`
        stands for those. So a folder and the records made of it are the same data.
        """
        dumped = self.model_dump(mode="json")
        identity = {name: dumped[name] for name, field in type(self).model_fields.items() if changes_result(field)}
        if self.data_spec.kind in ("folder", "tfrecord", "tfds"):
            identity["data"] = "folder"
        elif self.data_spec.kind == "csv":
            identity["data"] = "csv"
        return identity

    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal for two runs that must give the same weights from the same data."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def differences(self, other: Config) -> list[str]:
        """What differs in the fields that change the result, as "--field is A here and B there" (`other`)."""
        mine, theirs = self.identity(), other.identity()
        return [
            f"--{name} is {shown(mine[name])} here and {shown(theirs[name])} there"
            for name in mine
            if mine[name] != theirs[name]
        ]
