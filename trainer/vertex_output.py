"""Where a job on Vertex AI leaves everything: as Vertex tells it, where no `--run_dir` does. No TensorFlow.

From a job's baseOutputDirectory BASE, Vertex AI sets in every worker

    AIP_MODEL_DIR=BASE/model/  AIP_CHECKPOINT_DIR=BASE/checkpoints/  AIP_TENSORBOARD_LOG_DIR=BASE/logs/

and, in a trial of a hyperparameter tuning job, the same in BASE/TRIAL (`CustomJobSpec` in its v1 API, 2026-11). What
lies in the first it uploads as a model, and what is written to the last it shows in a Vertex AI TensorBoard instance.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import Config
from trainer.config_values import credentials_problem
from trainer.errors import UserError
from trainer.layout import Layout, folder_name
from trainer.storage import RunDirectory, is_remote

_LAYOUT: Layout = "vertex"

_FOLDERS = {"AIP_CHECKPOINT_DIR": "checkpoints", "AIP_MODEL_DIR": "export", "AIP_TENSORBOARD_LOG_DIR": "tensorboard"}
"""Which folder of a run each variable is about, by the trainer's name."""


def with_vertex_output(config: Config, environment: Mapping[str, str]) -> Config:
    """The same run; where it has no `run_dir`, with the one that Vertex AI tells, if it tells one, and its layout.

    Args:
      config: the run.
      environment: of this process.

    Raises:
      UserError: the variables are none that Vertex AI sets.
    """
    base = "" if config.run_dir else output_directory(environment)
    if not base:
        return config
    return Config.parse(config.model_dump() | {"run_dir": base, "run_dir_layout": _LAYOUT})


def output_directory(environment: Mapping[str, str]) -> str:
    """What all the variables that are set lie in, BASE above; "" where none is set.

    Args:
      environment: of this process.

    Raises:
      UserError: they lie in different folders, or are not called as above.
    """
    bases = {name: _base(name, environment[name]) for name in _FOLDERS if environment.get(name)}
    for name, base in bases.items():
        first = next(iter(bases))
        if base != bases[first]:
            raise UserError(
                f"{first}={environment[first]} and {name}={environment[name]} lie in different folders, and a run has "
                "one: give it as --run_dir."
            )
    return next(iter(bases.values()), "")


def _base(variable: str, value: str) -> str:
    """The folder that the one which a variable names lies in."""
    problem = credentials_problem(value)
    if problem:
        raise UserError(f"{variable} {problem}.")
    base, _, name = value.rstrip("/").rpartition("/")
    expected = folder_name(_FOLDERS[variable], _LAYOUT)
    if name != expected or not base or is_remote(base) != is_remote(value):
        raise UserError(f"{variable}={value}: must be FOLDER/{expected}/, as Vertex AI sets it, or give --run_dir.")
    return RunDirectory(base, variable).path
