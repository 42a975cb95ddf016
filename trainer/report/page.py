"""A run's page: one HTML file without scripts, that asks no server for anything."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2

import trainer
from trainer.config import Config
from trainer.config_flags import as_flag, command_line
from trainer.records.examples import ShownExample
from trainer.report.charts import Chart, label_text
from trainer.report.results import Headline, Results
from trainer.report.run_record import STATE_WORDS, RunRecord
from trainer.terminal import printable
from trainer.wording import counted, duration

_BRIEF = 60
"""Characters of a class name in a table or under a picture; report.json has all."""


@dataclass(frozen=True)
class Tile:
    """A number beside the headline."""

    value: str
    name: str


@dataclass(frozen=True)
class PageHeadline:
    """The number that the page begins with, as text."""

    number: str
    what: str
    interval: str


@dataclass(frozen=True)
class Picture:
    """One prediction on the page; `text` in place of a picture where the example is one."""

    key: str
    title: str
    right: bool
    confidence: str
    tiny: bool
    data_url: str
    text: str | None


def render(template: str, moment: str, **values: Any) -> str:
    """Fills a template of this package; whatever is in a name, none of it becomes markup.

    Args:
      template: its file name.
      moment: when, for the footer; "" leaves it out.
      **values: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["plain"] = partial(printable, encoding="utf-8")
    environment.filters["brief"] = partial(label_text, most=_BRIEF)
    environment.filters["plain_lines"] = partial(printable, encoding="utf-8", kept="\n\t")
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    style = environment.get_template("style.css").render()
    page = environment.get_template(template)
    text = page.render(style=jinja2.utils.markupsafe.Markup(style), version=trainer.__version__, made=moment, **values)
    return text.encode(errors="replace").decode()


def run_page(record: RunRecord, results: Results, charts: Sequence[Chart], moment: str) -> str:
    """The page of one run.

    Args:
      record: the run.
      results: what it came to.
      charts: all that could be drawn of it.
      moment: when this is made, for a person.
    """
    by_name = {chart.name: chart for chart in charts}
    curves = ["loss-per-epoch", "accuracy-per-epoch", "loss-per-step", "accuracy-per-step", "learning-rate"]
    inventory = ["class-sizes", "time"]
    page = {
        "name": os.path.basename(record.path.rstrip("/")),
        "state": record.state,
        "state_word": STATE_WORDS.get(record.state, record.state),
        "subtitle": _subtitle(record),
        "headline": _headline(results.headline) if results.headline else None,
        "notes": list(_notes(record)),
        "tiles": _tiles(record),
        "curves": [by_name[name] for name in curves if name in by_name],
        "judged": _judged(results, by_name),
        "has_pictures": not all(example.is_text for example in record.examples),
        "examples": [_picture(example) for example in record.examples],
        "inventory": [by_name[name] for name in inventory if name in by_name],
        "model_rows": _model_rows(record),
        "attempts": [_attempt(values) for values in record.status.get("attempts", [])],
        "command": command_line(record.config),
        "command_note": f"--config={record.path}/config.json repeats the run with every one of its settings.",
        "versions": [(name, version or "not installed") for name, version in record.status.get("versions", {}).items()],
        "settings": _settings(record.config),
    }
    return render("run.html", moment, page=page)


def _subtitle(record: RunRecord) -> str:
    config = record.config
    how = "fine-tuned" if config.train_backbone else "frozen" if config.uses_hub_module else "trained from scratch"
    return f"{config.backbone}, {how}, on {record.facts.data if record.facts else config.data}"


def _headline(headline: Headline) -> PageHeadline:
    what = f"accuracy on {counted(headline.examples, f'{headline.split} example')}"
    if headline.split == "validation":
        what = f"best {what} so far" if headline.examples else "best validation accuracy so far"
    interval = "its number of examples is not known, so no interval"
    if headline.interval:
        low, high = 100 * headline.interval.low, 100 * headline.interval.high
        interval = f"95 % interval {low:.1f} to {high:.1f} %; loss {headline.loss:.4f}"
    return PageHeadline(f"{100 * headline.accuracy:.1f} %", what, interval)


def _notes(record: RunRecord) -> list[str]:
    """What a person should know before the numbers."""
    status, notes = record.status, []
    step, total = status.get("step", 0), status.get("steps_total")
    if not record.finished:
        notes.append(
            f"This run stands at step {step} of {total}: {status.get('error') or 'it goes on, or was killed'}. "
            f"The same command with --run_dir={record.path} goes on from the last checkpoint; python -m "
            f"trainer.report {record.path} makes this page anew."
        )
    skipped = status.get("skipped_images", [])
    if skipped:
        names = ", ".join(str(image["key"]) for image in skipped[:5])
        notes.append(
            f"{counted(len(skipped), 'file')} could not be decoded and {'was' if len(skipped) == 1 else 'were'} left "
            f"out: {names}{' and others; status.json has all' if len(skipped) > 5 else ''}."
        )
    return notes + [str(warning) for warning in status.get("warnings", [])]


def _tiles(record: RunRecord) -> list[Tile]:
    status, facts = record.status, record.facts
    tiles = []
    if status.get("best"):
        best = status["best"]
        tiles.append(Tile(f"{100 * best['accuracy']:.1f} %", f"best validation accuracy, epoch {best['epoch']}"))
    if facts:
        tiles.append(Tile(f"{facts.trained_parameters:,}", f"parameters trained, of {facts.parameters:,}"))
    if status.get("examples_per_second"):
        tiles.append(Tile(f"{status['examples_per_second']:,.0f}", "examples a second in training"))
    goodput = status.get("goodput") or {}
    if goodput.get("total"):
        tiles.append(Tile(duration(goodput["total"]), "from the command to the end, all starts"))
    for form, export in (status.get("exports") or {}).items():
        if export.get("path"):  # What fell short of --min_accuracy is among the notes.
            tiles.append(Tile(f"{export['bytes'] / 1e6:.1f} MB", f"{form}{_accuracy_of(export)}"))
    return tiles


def _accuracy_of(export: dict[str, Any]) -> str:
    return "" if export.get("accuracy") is None else f", accuracy {100 * export['accuracy']:.1f} %"


def _judged(results: Results, charts: dict[str, Chart]) -> dict[str, Any] | None:
    judgement = results.judgement
    if not judgement:
        return None
    weakest = sorted(judgement.classes, key=lambda each: (-1 if each.f1 is None else each.f1, each.name))
    return {
        "split": judgement.split,
        "confusion": charts["confusion-matrix"],
        "calibration": charts["calibration"],
        "calibration_error": judgement.calibration_error,
        "pairs": judgement.pairs,
        "classes": weakest,
    }


def _picture(example: ShownExample) -> Picture:
    encoded = base64.b64encode(example.content).decode()
    return Picture(
        key=example.key,
        title=_title(example),
        right=example.right,
        confidence=f"{100 * example.confidence:.0f} %",
        tiny=example.media_type == "image/png",
        data_url=f"data:{example.media_type};base64,{encoded}",
        text=example.content.decode(errors="replace") if example.is_text else None,
    )


def _title(example: ShownExample) -> str:
    """The prediction, and behind it in brackets the true class where that is another."""
    prediction = label_text(example.prediction, _BRIEF)
    return prediction if example.right else f"{prediction} ({label_text(example.label, _BRIEF)})"


def _model_rows(record: RunRecord) -> list[tuple[str, str]]:
    facts = record.facts
    if not facts:
        return [("backbone", record.config.backbone)]
    rows = [
        ("backbone", record.config.backbone),
        ("parameters", f"{facts.parameters:,}"),
        ("trained", f"{facts.trained_parameters:,}"),
        ("frozen", f"{facts.parameters - facts.trained_parameters:,}"),
        ("feature vector", f"{facts.feature_size} numbers"),
        ("devices", facts.devices),
        ("replicas", f"{facts.replicas}, of {counted(facts.workers, 'worker')}"),
        ("machine", facts.machine),
    ]
    return rows + ([("input", f"{facts.image_size} x {facts.image_size} pixels")] if facts.image_size else [])


def _attempt(values: dict[str, Any]) -> dict[str, Any]:
    total = values.get("seconds", {}).get("total", 0.0)
    return {name: values[name] for name in ("began", "from_step", "to_step")} | {"seconds": total}


def _settings(config: Config) -> list[tuple[str, str, bool]]:
    """Name, value as on the command line, and whether that is the default."""
    return [
        (name, as_flag(getattr(config, name)), getattr(config, name) == field.default)
        for name, field in type(config).model_fields.items()
    ]
