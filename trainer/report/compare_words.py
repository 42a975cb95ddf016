"""A comparison in words, for the terminal and the page alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from trainer.config_errors import shown
from trainer.records.goodput import PHASES
from trainer.report.compare import SIGNIFICANCE, Comparison, Pair, RunSummary, Setting
from trainer.report.numbers import Interval
from trainer.report.run_record import STATE_WORDS
from trainer.wording import counted, duration

ABSENT = "–"
"""For what a run has not come to."""


_LONGEST_NAME = 24
"""Characters of a run's name that sentences repeat; runs with longer ones are numbered."""


def titled(comparison: Comparison) -> tuple[Comparison, dict[str, str]]:
    """The comparison with names that sentences can repeat, "run 1" where they are long, and each name's title."""
    names = [run.name for run in comparison.runs]
    if max(map(len, names)) <= _LONGEST_NAME:
        return comparison, {name: name for name in names}
    short = {name: f"run {number}" for number, name in enumerate(names, 1)}
    renamed = dataclasses.replace(
        comparison,
        runs=[dataclasses.replace(run, name=short[run.name]) for run in comparison.runs],
        best=short[comparison.best] if comparison.best is not None else None,
        pairs=[
            dataclasses.replace(pair, first=short[pair.first], second=short[pair.second]) for pair in comparison.pairs
        ],
    )
    return renamed, {label: f"{label}: {name}" for name, label in short.items()}


def verdicts(comparison: Comparison) -> list[str]:
    """What can be told of the best run and each of the others, a sentence each."""
    if comparison.best is None:
        return ["None of the runs has predictions on a test split yet, so nothing can be told of which is better."]
    return [_verdict(pair) for pair in comparison.pairs]


def _verdict(pair: Pair) -> str:
    if pair.counts is None or pair.interval is None or pair.adjusted_p_value is None:
        return f"{pair.first} and {pair.second} cannot be tested against each other: {pair.problem}."
    examples = counted(pair.shared, "test example")
    if pair.same_answers:
        return f"{pair.first} and {pair.second} do not differ: they answer all {examples} alike (p = 1)."
    p_value = _p_value(pair.adjusted_p_value)
    ahead, behind, points, interval = pair.first, pair.second, 100 * pair.counts.difference, pair.interval
    if points < 0:  # The best run on its own test split may be behind on the examples that both have.
        ahead, behind, points, interval = behind, ahead, -points, Interval(-interval.high, -interval.low)
    around = f"95 % {_points(interval.low)} to {_points(interval.high)}, p {p_value}"
    if pair.differs:
        return f"{ahead} is better than {behind} by {points:.1f} points on {examples} ({around})."
    if not points:
        how = f"each is right {counted(pair.counts.first_only, 'time')} where the other is wrong"
        return f"No difference between {ahead} and {behind} can be told from {examples}: {how} ({around})."
    return (
        f"No difference between {ahead} and {behind} can be told from {examples}: {ahead} is ahead by {points:.1f} "
        f"points ({around})."
    )


def notes(comparison: Comparison) -> list[str]:
    """What a reader should know of the numbers, a sentence each."""
    found = []
    if comparison.best is not None and len(comparison.pairs) > 0:
        found.append(
            f"A difference counts where p < {SIGNIFICANCE:g} (McNemar's exact test on the test examples that both "
            "have); intervals hold with 95 % confidence."
        )
    if comparison.pair_count > 1:
        found.append(
            f"The best run was picked by the numbers that are compared, so p and the intervals of differences allow "
            f"for all {comparison.pair_count} pairs of runs (Bonferroni)."
        )
    if comparison.same_images is False:
        found.append("The runs were not made from the same images.")
    unfinished = [run.name for run in comparison.runs if run.state != "done"]
    if unfinished:
        verb = "has" if len(unfinished) == 1 else "have"
        found.append(f"{', '.join(unfinished)} {verb} not come to an end: the numbers may change.")
    return found


def cells(comparison: Comparison, run: RunSummary) -> dict[str, str]:
    """What the table says of a run, by heading; the same headings in the same order for each."""
    pair = next((pair for pair in comparison.pairs if pair.second == run.name), None)
    found = {
        "state": _state(run),
        "test accuracy": _accuracy(run),
        "against best": "best" if run.name == comparison.best else _difference(pair, run),
        "time": _time(run),
        "parameters": ABSENT if run.parameters is None else f"{run.parameters:,}",
        "trained": ABSENT if run.trained_parameters is None else f"{run.trained_parameters:,}",
        "export": ABSENT if run.export_bytes is None else size(run.export_bytes),
    }
    for form in dict.fromkeys(form for each in comparison.runs for form in each.exports):
        found[form] = _export(run.exports.get(form) or {})
    return found


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All of it for a program: plain values, shares in [0, 1], None for what is not there; never NaN."""
    values = dataclasses.asdict(comparison)
    for run, summary in zip(values["runs"], comparison.runs, strict=True):
        run["accuracy"] = summary.accuracy
    for pair, found in zip(values["pairs"], comparison.pairs, strict=True):
        pair["difference"] = found.counts.difference if found.counts else None
        pair["differs"] = found.differs
    return {**values, "verdicts": verdicts(comparison), "notes": notes(comparison)}


def same_values(setting: Setting, runs: Sequence[RunSummary]) -> list[tuple[str, list[str]]]:
    """The values of a setting, as on the command line, each with the names of the runs that have it."""
    found: dict[str, list[str]] = {}
    for value, run in zip(setting.values, runs, strict=True):
        found.setdefault(shown(value), []).append(run.name)
    return list(found.items())


def size(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:.2f} MiB"


def _state(run: RunSummary) -> str:
    word = STATE_WORDS.get(run.state, run.state)
    done, planned = run.epochs
    return word if run.state == "done" else f"{word}, epoch {done} of {planned}"


def _time(run: RunSummary) -> str:
    """Of all starts, and what most of it went to."""
    if not run.seconds:
        return ABSENT
    phases = {phase: run.seconds_by_phase[phase] for phase in PHASES if run.seconds_by_phase.get(phase)}
    if not phases:
        return duration(run.seconds)
    longest = max(phases, key=lambda phase: phases[phase])
    return f"{duration(run.seconds)}, {100 * phases[longest] / run.seconds:.0f} % {longest.replace('_', ' ')}"


def _export(values: Any) -> str:
    if not values.get("bytes"):
        return ABSENT
    accuracy = "" if values.get("accuracy") is None else f", {100 * values['accuracy']:.1f} %"
    return f"{size(values['bytes'])}{accuracy}{', refused' if values.get('refused') else ''}"


def _accuracy(run: RunSummary) -> str:
    if run.accuracy is None or run.interval is None or run.right is None:
        return ABSENT
    low, high = 100 * run.interval.low, 100 * run.interval.high
    return f"{100 * run.accuracy:.1f} % ({low:.1f} to {high:.1f}), {run.right:,} of {run.examples:,}"


def _difference(pair: Pair | None, run: RunSummary) -> str:
    """Of a run against the best one: what it lacks, as a negative number."""
    if pair is None or pair.counts is None or pair.interval is None or pair.adjusted_p_value is None:
        return ABSENT
    around = f"{_points(-pair.interval.high)} to {_points(-pair.interval.low)}"
    shared = "" if pair.shared == run.examples else f", on {pair.shared:,} that both have"
    return f"{_points(-pair.counts.difference)} points ({around}), p {_p_value(pair.adjusted_p_value)}{shared}"


def _points(share: float) -> str:
    """In hundredths, without a minus before what is rounded to zero."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
