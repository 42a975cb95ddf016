"""The values of fields that are more than a number or a word: how they are written, and what they mean.

The parsers raise `ValueError` with what would be accepted; pydantic adds the field and its value. No TensorFlow.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from pydantic import ValidationError

DEFAULT_SYNTHETIC_CLASSES = 4

AUTO = "auto"

AUTO_BATCH_SIZE = 0
"""What `--batch_size=auto` is until the batch that fits was found: a number that all replicas divide."""

MOST_BATCH_SIZE = 2**20
"""More images in one training step are a typing error."""

BALANCED = "balanced"
"""The class weights that make every class count alike."""

DataKind = Literal["digits", "folder", "tfrecord", "tfds", "csv", "synthetic"]

ExampleKind = Literal["image", "text"]
"""What is classified; also the word for it, whose plural takes an s."""


# NAME, NAME/CONFIG, NAME:1.2.3 or NAME/CONFIG:1.2.3. No namespaces: they are looked up in the network.
_TFDS_NAME = r"\w+(?:/\w[\w.+-]*)?(?::\d+\.\d+\.\d+)?"


class DataSpec(NamedTuple):
    """`--data` taken apart: `folder:/photos` is kind "folder" and argument "/photos"."""

    kind: DataKind
    argument: str

    @property
    def example_kind(self) -> ExampleKind:
        """What such data holds."""
        return "text" if self.kind == "csv" else "image"

    @property
    def synthetic_classes(self) -> int:
        """How many classes `synthetic[:CLASSES]` asks for."""
        return int(self.argument) if self.argument else DEFAULT_SYNTHETIC_CLASSES


def parse_data(spec: str) -> DataSpec:
    """Takes `--data` apart.

    Raises:
      ValueError: not one of `digits`, `folder:PATH`, `tfrecord:PATTERN`, `tfds:NAME[/CONFIG][:VERSION]`, `csv:FILE`
        and `synthetic[:CLASSES]`; the message says which are accepted.
    """
    kind, colon, argument = spec.partition(":")
    if kind not in get_args(DataKind):
        near = difflib.get_close_matches(kind, get_args(DataKind), 1)
        if not near and ("/" in spec or spec.startswith((".", "~"))):
            raise ValueError(f"a folder of images is given as folder:{spec}")
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"must be digits, folder:PATH, tfrecord:PATTERN, tfds:NAME, csv:FILE or synthetic[:CLASSES]{hint}"
        )
    if kind == "folder" and not argument:
        raise ValueError("must name the folder, as in folder:PATH")
    if kind == "tfrecord" and not argument:
        raise ValueError("must name a file, a folder or a pattern, as in tfrecord:/records/train-*.tfrecord")
    if kind == "tfds" and not re.fullmatch(_TFDS_NAME, argument):
        raise ValueError("must name a data set of TensorFlow Datasets as tfds:NAME[/CONFIG][:VERSION]")
    if kind == "csv" and not argument:
        raise ValueError("must name the file, as in csv:FILE")
    if kind == "digits" and colon:
        raise ValueError("digits takes nothing after it")
    if kind == "synthetic" and colon and not (argument.isdecimal() and 2 <= int(argument) <= 1000):
        raise ValueError("synthetic takes a number of classes from 2 to 1000, as in synthetic:4")
    return DataSpec(kind, argument)  # type: ignore[arg-type]


_USER_INFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*@")

_SECRET_NAME = r"token|secret|passw|pwd|credential|signature|auth|api_?key|^(?:key|sig|jwt)$"

_PARAMETER = re.compile(r"[?&#;]([^=&#;?\s]+)=")


def credentials_problem(text: str) -> str:
    """What is wrong with a text that holds an address with a password or a token in it; "" if nothing is.

    Settings are printed, kept in config.json and sent to other workers, so no secret may be among them.
    """
    if _USER_INFO.search(text):
        found = "a user name or password"
    elif "://" in text and any(re.search(_SECRET_NAME, name, re.IGNORECASE) for name in _PARAMETER.findall(text)):
        found = "a token, key or signature"
    else:
        return ""
    return (
        f"holds an address with {found} in it, which would be printed and kept: download what it protects and give its "
        "folder, or put it on gs://, where your account's own credentials are used"
    )


def auto_or_number(value: object, number: Callable[[object], int]) -> int:
    """`AUTO_BATCH_SIZE` for "auto", otherwise what `number` makes of it.

    Raises:
      ValueError: `number` accepts nothing of the kind.
    """
    if value == AUTO:
        return AUTO_BATCH_SIZE
    try:
        return number(value)
    except ValidationError:
        raise ValueError(f"must be {AUTO} or a whole number from 1 to {MOST_BATCH_SIZE}") from None


def shown_batch_size(batch_size: int) -> int | str:
    """As `auto_or_number` reads it."""
    return AUTO if batch_size == AUTO_BATCH_SIZE else batch_size


def comma_separated(value: object) -> object:
    """Lets a list field be written as on the command line: "75,15,10"."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return value


def three_parts(value: object) -> object:
    """Three numbers, separated by commas.

    Raises:
      ValueError: there are more or fewer.
    """
    parts = comma_separated(value)
    if not isinstance(parts, (list, tuple)) or len(parts) != 3:
        raise ValueError("must be three percentages that add up to 100, as in 75,15,10")
    return parts


def checked_data(spec: str) -> str:
    """`spec`, if `parse_data` accepts it."""
    parse_data(spec)
    return spec


_LONGEST_PAUSE_SECONDS = 86_400.0


class RateScale(NamedTuple):
    """One entry of `--lr_scale`: variables whose path the pattern is found in learn at `factor` times the rate."""

    pattern: str
    factor: float


_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"


def split_rate_scales(value: object) -> object:
    """Takes `--lr_scale` apart at the commas that follow a number: a pattern may hold commas and colons.

    "backbone/.*x{1,2}:0.1,head:2" is `("backbone/.*x{1,2}:0.1", "head:2")`.

    Raises:
      ValueError: not of the form PATTERN:FACTOR[,PATTERN:FACTOR ...].
    """
    if not isinstance(value, str):
        return value
    if not value.strip():
        return []
    entries = re.findall(rf"(.+?:\s*{_NUMBER})\s*(?:,|$)", value)
    if ",".join(entries).replace(" ", "") != value.strip().rstrip(",").replace(" ", ""):
        raise ValueError("must be PATTERN:FACTOR, separated by commas, as in backbone:0.1,head:2")
    return [entry.strip() for entry in entries]


def parse_rate_scale(entry: str) -> RateScale:
    """Takes one entry of `--lr_scale` apart.

    Raises:
      ValueError: no factor of 0 or more stands at its end, or the pattern is no regular expression.
    """
    pattern, _, factor = entry.rpartition(":")
    if not pattern or not re.fullmatch(_NUMBER, factor.strip()):
        raise ValueError("must be PATTERN:FACTOR with a factor of 0 or more, as in backbone:0.1")
    return RateScale(checked_pattern(pattern), float(factor))


def checked_rate_scale(entry: str) -> str:
    """`entry`, if `parse_rate_scale` accepts it."""
    parse_rate_scale(entry)
    return entry


def checked_pattern(pattern: str) -> str:
    """`pattern`, if it is a regular expression.

    Raises:
      ValueError: it is not; the message says where.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from None
    return pattern


def parse_class_weights(entries: tuple[str, ...]) -> dict[str, float]:
    """The weights that `--class_weights` names, by class; empty for none and for `balanced`.

    Raises:
      ValueError: an entry is not NAME:WEIGHT with a weight of 0 or more, or a name comes twice.
    """
    if entries in ((), (BALANCED,)):
        return {}
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, weight = entry.rpartition(":")
        if not name or not re.fullmatch(_NUMBER, weight.strip()):
            raise ValueError(f"must be {BALANCED}, or NAME:WEIGHT separated by commas, as in daisy:2,roses:0.5")
        if name in weights:
            raise ValueError(f"names {name} twice")
        weights[name] = float(weight)
    return weights


def checked_class_weights(entries: tuple[str, ...]) -> tuple[str, ...]:
    """`entries`, if `parse_class_weights` accepts them."""
    parse_class_weights(entries)
    return entries


FaultKind = Literal["preempt", "kill", "nan", "slow_worker", "gcs_503"]


class Fault(NamedTuple):
    """One entry of `--inject`.

    Attributes:
      kind: what happens.
      step: when this many steps are done; 0 for gcs_503.
      amount: seconds of slow_worker, probability of gcs_503, 0 otherwise.
    """

    kind: FaultKind
    step: int = 0
    amount: float = 0.0


def parse_fault(entry: str) -> Fault:
    """Takes one entry of `--inject` apart.

    Raises:
      ValueError: it is none of the faults there are.
    """
    if match := re.fullmatch(r"(preempt|kill|nan)@([1-9][0-9]{0,17})", entry):
        return Fault(match[1], int(match[2]))  # type: ignore[arg-type]
    match = re.fullmatch(rf"slow_worker@([1-9][0-9]{{0,17}}):({_NUMBER})", entry)
    if match and float(match[2]) <= _LONGEST_PAUSE_SECONDS:
        return Fault("slow_worker", int(match[1]), float(match[2]))
    if (match := re.fullmatch(rf"gcs_503@({_NUMBER})", entry)) and float(match[1]) < 1:
        return Fault("gcs_503", amount=float(match[1]))
    raise ValueError(
        "must be preempt@STEP, kill@STEP, nan@STEP, slow_worker@STEP:SECONDS with at most "
        f"{_LONGEST_PAUSE_SECONDS:g} seconds, or gcs_503@P with a probability below 1"
    )


def checked_fault(entry: str) -> str:
    """`entry`, if `parse_fault` accepts it."""
    parse_fault(entry)
    return entry
