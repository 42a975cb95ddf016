"""report/ of a run directory: the page, the charts as PNG, the numbers as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from trainer.records.examples import ShownExample
from trainer.records.predictions import FOLDER
from trainer.report.charts import Chart, chart_style, label_text
from trainer.report.curves import curve_charts
from trainer.report.distributions import calibration_chart, class_sizes_chart, confusion_chart, time_chart
from trainer.report.page import run_page
from trainer.report.picture_grid import RIGHT, WRONG, TitledPicture, grid_png
from trainer.report.results import Results, results_json, results_of
from trainer.report.run_record import RunRecord
from trainer.storage import RunDirectory

PAGE = "index.html"
NUMBERS = "report.json"
PLOTS = "plots"


def write_report(source: RunDirectory, target: RunDirectory, moment: str) -> str:
    """Makes the report of a run as it stands.

    Args:
      source: the run directory.
      target: in whose `report/` it goes, normally the same.
      moment: when, for the footer.

    Returns:
      The path of the page.

    Raises:
      UserError: there is no run, one of its files is damaged, or the target cannot be written.
    """
    record = RunRecord.read(source)
    results = results_of(record)
    with chart_style():
        charts = list(_charts(record, results))
    for chart in charts:
        target.write_bytes(f"{FOLDER}/{PLOTS}/{chart.name}.png", chart.png)
    pictures = [example for example in record.examples if not example.is_text]
    if pictures:
        target.write_bytes(f"{FOLDER}/{PLOTS}/predictions.png", predictions_png(pictures))
    numbers = json.dumps(results_json(record, results), indent=1, ensure_ascii=False)
    target.write_bytes(f"{FOLDER}/{NUMBERS}", numbers.encode(errors="backslashreplace"), b"\n")
    # Last: whoever sees it finds the rest.
    target.write_text(f"{FOLDER}/{PAGE}", run_page(record, results, charts, moment))
    return target.join(FOLDER, PAGE)


def predictions_png(examples: Sequence[ShownExample]) -> bytes:
    """The pictures of the page and what was said of them, for everywhere else."""

    def titled(example: ShownExample) -> TitledPicture:
        with Image.open(io.BytesIO(example.content)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        label = "" if example.right else f"\n({label_text(example.label)})"
        title = f"{label_text(example.prediction)} {example.confidence:.0%}{label}"
        return TitledPicture(pixels, title, RIGHT if example.right else WRONG)

    return grid_png([titled(example) for example in examples])


def _charts(record: RunRecord, results: Results) -> Iterator[Chart]:
    yield from curve_charts(record)
    if record.facts:
        yield class_sizes_chart(record.facts)
        if results.judgement:
            judgement = results.judgement
            yield confusion_chart(judgement.matrix, record.facts.class_names, judgement.split)
            yield calibration_chart(judgement.calibration)
    goodput = record.status.get("goodput")
    if goodput and goodput.get("total"):
        yield time_chart(goodput)
