"""Says whether a run compiles and fits on a TPU slice, or fits on GPUs, on a machine that has none.

    python -m trainer.preflight --accelerator=v5litepod-8 -- --data=folder:PHOTOS --backbone=HANDLE
    python -m trainer.preflight --accelerator=all -- --config=run.json      a table of slices
    python -m trainer.preflight --accelerator=v5litepod-8 --stage=a --json -- --batch_size=512
    python -m trainer.preflight --accelerator=l4:4 -- --batch_size=512                              four GPUs

Behind "--" stand the flags of trainer.task; the steps that are checked are those that it would run with them, for a
slice with --strategy=tpu. Three answers: it compiles and fits (exit code 0; that it runs, nobody can say without the
slice), it does not (2; why, and what to change), or it could not be checked (3; why).

Stage a needs nothing more than trainer itself, and finds what no TPU takes: operations of the host, text, shapes that
depend on data, types that TPUs lack, gradients that are not summed over the replicas once. Stage b asks the TPU's real
compiler, which pip install '.[preflight]' brings: memory, work, and time at best. Of GPUs the memory is estimated.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from absl import flags

from trainer.accelerators import Gpus, Slice, slice_or_gpus_named
from trainer.cache_home import cache_home
from trainer.config import Config
from trainer.config_flags import config_from_flags, parse_arguments
from trainer.config_flags import define_flags as define_trainer_flags
from trainer.errors import UserError
from trainer.preflight.compiler import Compiler, compiler_python
from trainer.preflight.report import LABEL_WIDTH, Report, table
from trainer.preflight.verdict import combined_exit_code
from trainer.program import read_text, start
from trainer.records.console import Console
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.terminal import printable

ALL = ("v2-8", "v3-8", "v4-8", "v5litepod-8", "v5p-8", "v6e-8")
"""What --accelerator=all goes through: of each generation the slice of one host that most have."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `define_flags`.

    Attributes:
      config: the run.
      accelerators: where it is to run.
    """

    config: Config
    accelerators: tuple[Slice | Gpus, ...]
    stage: str
    timeout: float
    cache_dir: str
    json: bool
    quiet: bool


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "accelerator",
        "",
        f"A TPU slice by the name that Cloud TPU has for it, such as v5litepod-8; all: {', '.join(ALL)}; or GPUs, such "
        "as l4, or l4:4 for four that share the batch, whose memory is estimated.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "stage",
        "auto",
        ["auto", "a", "b"],
        "a: what TensorFlow itself can tell; nothing fits by that alone. b: ask the TPU's compiler, too. auto: b where "
        "it is installed.",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "timeout",
        900.0,
        "Seconds that the compiler may take for the steps of a run; and as many again to look for the largest batch, "
        "where the run's own does not fit.",
        1.0,
        flag_values=flag_values,
    )
    flags.DEFINE_bool("json", False, "Print a JSON object for each accelerator, on a line.", flag_values=flag_values)
    flags.DEFINE_bool("quiet", False, "Print nothing but verdicts and errors.", flag_values=flag_values)
    flags.DEFINE_string(
        "cache_dir", "auto", "Folder to keep results in: auto, off, or a path.", flag_values=flag_values
    )


def request_from_flags(flag_values: flags.FlagValues, arguments: Sequence[str]) -> Request:
    """What is asked for, as far as it can be checked without TensorFlow.

    Args:
      flag_values: parsed.
      arguments: the flags of the trainer.

    Raises:
      UserError: something is missing, is not known, or contradicts something else.
    """
    name = flag_values.accelerator
    if not name:
        raise UserError("Say for what: --accelerator=v5litepod-8, another TPU slice, or all.")
    accelerators = tuple(slice_or_gpus_named(each) for each in (ALL if name == "all" else (name,)))
    kept = {"auto": cache_home("preflight"), "off": ""}
    return Request(
        config=_config(arguments, accelerators),
        accelerators=accelerators,
        stage=flag_values.stage,
        timeout=flag_values.timeout,
        cache_dir=kept.get(flag_values.cache_dir, flag_values.cache_dir),
        json=flag_values.json,
        quiet=flag_values.quiet,
    )


def _config(arguments: Sequence[str], accelerators: Sequence[Slice | Gpus]) -> Config:
    """The run of some flags of trainer.task; on a slice with --strategy=tpu, which need not be among them."""
    trainer_flags = flags.FlagValues()
    define_trainer_flags(trainer_flags)
    parse_arguments(trainer_flags, arguments)
    config = config_from_flags(trainer_flags, read_text)
    if isinstance(accelerators[0], Gpus):
        return config
    if config.strategy not in ("default", "tpu"):
        raise UserError(f"--strategy={config.strategy} does not run on TPUs: give --strategy=tpu, or leave it out.")
    return Config.parse(config.model_dump() | {"strategy": "tpu"})


def preflight(request: Request) -> list[Report]:
    """Checks and prints; gives the reports."""
    require_temporary_folder()
    console = Console(quiet=request.quiet or request.json)
    import_tensorflow_quietly()
    from trainer.preflight.cache import Cache
    from trainer.preflight.check import Checker, Options
    from trainer.preflight.gpu import check_gpus
    from trainer.preflight.gpu_memory import measure

    python = compiler_python(os.environ)
    stage = request.stage if request.stage != "auto" else ("b" if python else "a")
    cache = Cache(request.cache_dir)
    checker = Checker(
        request.config,
        Options("b" if stage == "b" else "a", request.timeout),
        lambda slice_: Compiler(slice_, [python] if python else [], request.timeout),
        cache,
        console,
    )
    reports = []
    for accelerator in request.accelerators:
        if isinstance(accelerator, Gpus):
            reports.append(
                check_gpus(request.config, accelerator, partial(measure, seconds=request.timeout), cache, console)
            )
        else:
            reports.append(checker.check(accelerator))
        if request.json:
            print(json.dumps(reports[-1].to_json()), flush=True)
        elif len(request.accelerators) > 1:
            console.note(f"{accelerator.name}: {reports[-1].verdict.word}")
    if request.json:
        return reports
    if len(reports) > 1:
        _print(table(reports))
    else:
        _print(reports[0].lines()[: 1 if request.quiet else None], wrapped=True)
    return reports


def _print(lines: Sequence[str], *, wrapped: bool = False) -> None:
    """Prints lines; wrapped under what stands behind their labels, where a person looks at them in a terminal."""
    for line in lines:
        shown = printable(line, sys.stdout.encoding)
        if wrapped and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            shown = textwrap.fill(shown, width, subsequent_indent=" " * LABEL_WIDTH, break_on_hyphens=False)
        print(shown, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Checks as the command line says; gives the exit code."""
    reports = preflight(request_from_flags(flags.FLAGS, arguments))
    return combined_exit_code([report.verdict for report in reports])


if __name__ == "__main__":
    start(main, define_flags)
