"""report/facts.json: what a run is made of, as far as its configuration does not tell: classes, sizes, devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.errors import UserError
from trainer.records.predictions import FOLDER, Split
from trainer.storage import RunDirectory

FILE_NAME = f"{FOLDER}/facts.json"


@dataclass(frozen=True)
class Facts:
    """Known before the first step, and the same whenever the run goes on.

    Attributes:
      data: what the source is called.
      example_kind: what one example is, in a word: "image" or "text".
      class_names: in the order of the logits.
      examples: for each split, how many of each class are used; in the order of `class_names`.
      image_size: height and width that the model sees, in pixels; None where examples are no images.
      feature_size: length of a feature vector.
      parameters: numbers in the model's weights.
      trained_parameters: those of them that training changes.
      devices: a sentence on where the replicas are.
      replicas: how many there are.
      workers: processes that they belong to.
      machine: a sentence on the chief's machine.
    """

    data: str
    example_kind: str
    class_names: Sequence[str]
    examples: Mapping[Split, Sequence[int]]
    image_size: int | None
    feature_size: int
    parameters: int
    trained_parameters: int
    devices: str
    replicas: int
    workers: int
    machine: str

    def write(self, run: RunDirectory) -> None:
        """Writes the file.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        run.write_bytes(FILE_NAME, text.encode(errors="backslashreplace"))

    @classmethod
    def read(cls, run: RunDirectory) -> Facts | None:
        """What the run wrote; None where it has written none.

        Raises:
          UserError: the file is damaged.
        """
        if not run.exists(FILE_NAME):
            return None
        try:
            return cls(**json.loads(run.read_text(FILE_NAME)))
        except (ValueError, TypeError):
            raise UserError(
                f"{run.join(FILE_NAME)} is damaged: delete it; a run that goes on writes it again."
            ) from None
