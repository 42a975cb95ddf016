"""Runs side by side: how good each is, whether they differ by more than chance, what they cost, and how they were set.

Every run is compared with the best one, on the test examples that both have answered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import UserError
from trainer.records.predictions import Predictions
from trainer.report.numbers import CONFIDENCE, Interval, accuracy_interval
from trainer.report.paired import PairedCounts, difference_interval, mcnemar_p_value
from trainer.report.run_record import RunRecord
from trainer.storage import RunDirectory, is_remote

SIGNIFICANCE = 1 - CONFIDENCE
"""A difference counts where chance alone would show one so large in a smaller share of cases than this."""


@dataclass(frozen=True)
class RunSummary:
    """One run in numbers; None for what it has not come to, or what an earlier version did not write.

    Attributes:
      name: the end of its path, as much of it as tells it from the others.
      path: of its directory.
      state: as status.json has it.
      epochs: done, and to be done.
      examples: of its test split.
      right: those of them that its best checkpoint gets right.
      interval: of its test accuracy.
      loss: on the test split.
      seconds: of all its starts.
      seconds_by_phase: the same by what they were spent on (`trainer.records.goodput.goodput`).
      examples_per_second: in training.
      parameters: numbers in the weights.
      trained_parameters: those that training changes.
      export_bytes: of all files under export/.
      exports: what status.json says of each form that was exported, by its name: "bytes", "accuracy", "refused".
    """

    name: str
    path: str
    state: str
    epochs: tuple[int, int]
    examples: int | None
    right: int | None
    interval: Interval | None
    loss: float | None
    seconds: float | None
    seconds_by_phase: Mapping[str, float]
    examples_per_second: float | None
    parameters: int | None
    trained_parameters: int | None
    export_bytes: int | None
    exports: Mapping[str, Mapping[str, Any]]

    @property
    def accuracy(self) -> float | None:
        """On its whole test split, in [0, 1]."""
        return self.right / self.examples if self.right is not None and self.examples else None


@dataclass(frozen=True)
class Pair:
    """Two runs on the test examples that both have answered.

    Attributes:
      first: name of the best run.
      second: name of another one.
      shared: how many examples both have in their test splits.
      problem: why they cannot be compared; "" if they can, and otherwise all below is None.
      counts: of the shared examples.
      same_answers: whether they predict the same class for every one of them.
      interval: of `counts.difference`.
      p_value: of McNemar's exact test, for this pair alone.
      adjusted_p_value: the same, allowing for all pairs of runs that there are.
    """

    first: str
    second: str
    shared: int
    problem: str = ""
    counts: PairedCounts | None = None
    same_answers: bool | None = None
    interval: Interval | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None

    @property
    def differs(self) -> bool:
        """Whether one is better by more than chance explains."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Setting:
    """A field of the configuration that is not the same in all runs.

    Attributes:
      field: its name.
      changes_result: whether the weights depend on what differs.
      values: one a run, in their order, as config.json has them.
    """

    field: str
    changes_result: bool
    values: Sequence[Any]


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
      runs: in the order in which they were given.
      best: name of the one with the highest test accuracy, the first of several; None where none has predictions.
      pairs: every other run against the best one, in the order of the runs.
      pair_count: how many pairs of runs with test predictions there are; p-values and intervals allow for so many.
      settings: what differs in the configurations, what changes the result first.
      same_images: whether all runs were made from the same images; None where one does not tell.
    """

    runs: Sequence[RunSummary]
    best: str | None
    pairs: Sequence[Pair]
    pair_count: int
    settings: Sequence[Setting]
    same_images: bool | None


def read_runs(paths: Sequence[str]) -> list[tuple[RunRecord, int | None]]:
    """What each run directory holds, and the bytes of its export.

    Raises:
      UserError: fewer than two, one of them twice, or one that holds no run or a damaged one.
    """
    if len(paths) < 2:
        raise UserError("Two or more run directories are needed to compare, as in runs/a runs/b.")
    directories = [RunDirectory(path, "RUN_DIR") for path in paths]
    places = [each.path if each.is_remote else os.path.realpath(each.path) for each in directories]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{paths[number]} is given twice: a run is compared with others.")
    records = [RunRecord.read(each) for each in directories]
    return [(record, _export_bytes(record)) for record in records]


def compare(runs: Sequence[tuple[RunRecord, int | None]]) -> Comparison:
    """Compares runs.

    Args:
      runs: as `read_runs` gives them.
    """
    records = [record for record, _ in runs]
    names = _short_names([record.path for record in records])
    summaries = [_summary(name, *run) for name, run in zip(names, runs, strict=True)]
    tested = [number for number, record in enumerate(records) if record.test_predictions]
    pair_count = len(tested) * (len(tested) - 1) // 2
    best = max(tested, key=lambda number: summaries[number].accuracy or 0.0, default=None)
    pairs = []
    for number in range(len(records)):
        if best is not None and number != best:
            answers = records[best].test_predictions, records[number].test_predictions
            pairs.append(_pair((names[best], names[number]), answers, pair_count))
    fingerprints = [record.status.get("data_fingerprint") for record in records]
    return Comparison(
        summaries,
        None if best is None else names[best],
        pairs,
        pair_count,
        _settings(records),
        len(set(fingerprints)) == 1 if all(fingerprints) else None,
    )


def _summary(name: str, record: RunRecord, export_bytes: int | None) -> RunSummary:
    status, facts, answers = record.status, record.facts, record.test_predictions
    test, seconds = status.get("test") or {}, status.get("goodput") or status.get("seconds") or {}
    examples = len(answers) if answers else test.get("examples")
    right = int(answers.right.sum()) if answers else None
    if right is None and examples and "accuracy" in test:
        right = round(test["accuracy"] * examples)
    return RunSummary(
        name=name,
        path=record.path,
        state=record.state,
        epochs=(int(status.get("epoch") or 0), record.config.epochs),
        examples=examples,
        right=right,
        interval=accuracy_interval(right, examples) if right is not None and examples else None,
        loss=test.get("loss"),
        seconds=seconds.get("total"),
        seconds_by_phase=seconds,
        examples_per_second=status.get("examples_per_second"),
        parameters=facts.parameters if facts else None,
        trained_parameters=facts.trained_parameters if facts else None,
        export_bytes=export_bytes,
        exports=status.get("exports") or {},
    )


def _pair(names: tuple[str, str], answers: tuple[Predictions | None, Predictions | None], pair_count: int) -> Pair:
    first, second = answers
    if first is None or second is None:
        return Pair(*names, 0, "the latter has no predictions on a test split")
    place = {key: index for index, key in enumerate(second.keys)}
    shared = [(index, place[key]) for index, key in enumerate(first.keys) if key in place]
    if len(set(first.keys)) < len(first) or len(place) < len(second):
        return Pair(*names, len(shared), "some of their test examples have the same name")
    if not shared:
        return Pair(*names, 0, "they have no test example in common")
    other = [index for index, (mine, theirs) in enumerate(shared) if first.labels[mine] != second.labels[theirs]]
    if other:
        mine, theirs = shared[other[0]]
        return Pair(
            *names,
            len(shared),
            f"of the {len(shared)} test examples in common {len(other)} have other labels, such as {first.keys[mine]}: "
            f"{first.labels[mine]} here, {second.labels[theirs]} there",
        )
    rows = [mine for mine, _ in shared], [theirs for _, theirs in shared]
    counts = PairedCounts.of(first.right[rows[0]], second.right[rows[1]])
    p_value = mcnemar_p_value(counts)
    return Pair(
        *names,
        len(shared),
        counts=counts,
        same_answers=all(first.predictions[mine] == second.predictions[theirs] for mine, theirs in shared),
        # Bonferroni: the best run was picked by the very numbers that are compared.
        interval=difference_interval(counts, 1 - SIGNIFICANCE / pair_count),
        p_value=p_value,
        adjusted_p_value=min(1.0, p_value * pair_count),
    )


def _settings(records: Sequence[RunRecord]) -> list[Setting]:
    """What differs, apart from where everything lies, which always does."""
    dumped = [record.config.model_dump(mode="json", exclude={"run_dir", "run_dir_layout"}) for record in records]
    identities = [record.config.identity() for record in records]

    def differ(field: str, values: Sequence[Mapping[str, Any]]) -> bool:
        return any(each.get(field) != values[0].get(field) for each in values)

    found = [
        Setting(field, differ(field, identities), [each[field] for each in dumped])
        for field in dumped[0]
        if differ(field, dumped)
    ]
    return sorted(found, key=lambda setting: not setting.changes_result)


def _short_names(paths: Sequence[str]) -> list[str]:
    """As many of the last parts of each path as are needed to tell all apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _export_bytes(record: RunRecord) -> int | None:
    """Of all files under export/; None where there is none."""
    run = RunDirectory(record.path, "RUN_DIR", record.config.run_dir_layout)
    if not run.exists("export"):
        return None
    if is_remote(run.path):
        from tensorflow.io import gfile

        files = [f"{folder}/{name}" for folder, _, names in gfile.walk(run.join("export")) for name in names]
        return sum(gfile.stat(path).length for path in files)
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(run.join("export"))
        for name in names
    )
