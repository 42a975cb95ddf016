"""What a job is, from a command line: the options of `launch plan` and `launch submit`, and the Job they come to.

Nothing here asks anybody: it is all checked by what is known on this machine.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from launch.jobs.defaults import gcloud_default
from launch.jobs.job import LONGEST_NAME, Hardware, Job, Provisioning, Target
from launch.option_types import hours, whole_number
from trainer.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from trainer.config import Config

MOST_RUN_HOURS = 168.0
"""A week: what a custom job of Vertex AI runs unless it asks for more (2026-11)."""

DEFAULT_RUN_HOURS = 24.0
"""After a day a job that nobody thinks of any more has cost enough."""


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says where a job runs and what it may cost."""
    where = parser.add_argument_group("where it runs")
    where.add_argument("--project", default="", help="the Google Cloud project (default: gcloud's)")
    where.add_argument("--region", default="", help="of Vertex AI and of the image (default: gcloud's)")
    where.add_argument("--zone", default="", help="of a Cloud TPU (default: gcloud's)")
    where.add_argument(
        "--accelerator",
        default="",
        metavar="NAME[:N]",
        help="GPUs of each machine, as in l4 or a100-80gb:4, or a TPU slice, as in v5litepod-8 (default: none)",
    )
    where.add_argument(
        "--workers",
        type=whole_number("--workers", 1, 64),
        metavar="N",
        help="machines that train together (default: 1; a TPU slice has the hosts it has)",
    )
    where.add_argument("--machine", default="", metavar="TYPE", help="machine type (default: the smallest that fits)")
    where.add_argument("--topology", default="", metavar="AxB", help="of a TPU slice (default: the usual one)")
    where.add_argument(
        "--provisioning",
        choices=get_args(Provisioning),
        default="standard",
        help="how the machines are come by: at the full price (standard), cheaper and preemptible (spot), when there "
        "are some (flex-start, Vertex AI), or as reserved (Cloud TPU)",
    )
    where.add_argument("--image", default="", help="the container (default: the one that --build makes of this commit)")
    where.add_argument("--runtime", default="", metavar="VERSION", help="software version of a Cloud TPU's machines")
    _add_limits(parser.add_argument_group("limits"))
    _add_names(parser.add_argument_group("names and rights"))


def _add_limits(group: Any) -> None:
    group.add_argument(
        "--max_run_hours",
        type=hours("--max_run_hours", MOST_RUN_HOURS),
        default=DEFAULT_RUN_HOURS,
        metavar="H",
        help=f"after so many hours the job is ended, whatever it does (default: {DEFAULT_RUN_HOURS:g})",
    )
    group.add_argument(
        "--max_wait_hours",
        type=hours("--max_wait_hours", MOST_RUN_HOURS, zero=True),
        default=0.0,
        metavar="H",
        help="how long it may wait for machines (default: as long as the service lets it)",
    )
    group.add_argument(
        "--max_requests",
        type=whole_number("--max_requests", 1, 100),
        default=5,
        metavar="N",
        help="with --wait: how often a preempted TPU slice is requested in all (default: 5)",
    )
    group.add_argument(
        "--keep_slice",
        action="store_true",
        help="leave a TPU slice running when the trainer has ended: it costs until you delete it",
    )


def _add_names(group: Any) -> None:
    group.add_argument("--name", default="", help="of the job (default: by data, module and time)")
    group.add_argument("--service_account", default="", metavar="EMAIL", help="what the workers act as")
    group.add_argument("--network", default="", metavar="NAME", help="projects/NUMBER/global/networks/NAME")
    group.add_argument("--tensorboard", default="", metavar="NAME", help="a TensorBoard instance of Vertex AI")
    group.add_argument("--web_access", action="store_true", help="let people look into the running container")
    group.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="may be given several times")


def job_from_options(
    target: Target,
    options: argparse.Namespace,
    trainer_flags: Sequence[str],
    environment: Mapping[str, str],
    moment: datetime,
    image: str,
) -> Job:
    """The job that a command line describes.

    Args:
      target: who is to run it.
      options: as `add_job_options` defined them.
      trainer_flags: what stands behind the "--".
      environment: of this process, for gcloud's settings.
      moment: names the job, where it is given no name.
      image: the container, where the options name none: a format of project, region and device (cpu, gpu or tpu).

    Raises:
      UserError: an option or a flag is not accepted, or they do not go together.
    """
    from launch.jobs.hardware import choose
    from launch.trainer_flags import config_of, parsed_flags, without_end_marks

    given = parsed_flags(without_end_marks(trainer_flags))
    if given.dry_run:
        raise UserError("--dry_run does not go with a job: python -m launch plan shows what would be submitted.")
    config = config_of(without_end_marks(trainer_flags))
    name = options.name or _default_name(config, moment)
    project = options.project or _needed("project", "--project=ID", environment)
    location = _location(target, options, environment)
    hardware = choose(
        target,
        accelerator=options.accelerator,
        workers=options.workers,
        machine=options.machine,
        topology=options.topology,
        location=location,
    )
    config = _with_strategy(config, given, hardware)
    if options.tensorboard and not given["run_dir_layout"].present:
        # Vertex AI shows the curves of a folder of that name alone.
        config = type(config).parse({**config.model_dump(), "run_dir_layout": "vertex"})
    region = options.region or _region_of(location)
    return Job(
        target=target,
        name=name,
        project=project,
        location=location,
        hardware=hardware,
        image=options.image or image.format(project=project, region=region, device=device_of(hardware)),
        config=config,
        trainer_flags=_worker_flags(config, quiet=given.quiet),
        provisioning=options.provisioning,
        max_run_hours=options.max_run_hours,
        max_wait_hours=options.max_wait_hours,
        service_account=options.service_account,
        network=options.network,
        tensorboard=options.tensorboard,
        web_access=options.web_access,
        runtime=_runtime(target, options.runtime, hardware),
        max_requests=options.max_requests,
        delete_when_done=not options.keep_slice,
        labels=_labels(options.label),
    )


def arguments_of(options: argparse.Namespace) -> list[str]:
    """The options of a job as they would be written again: those that are not at their defaults.

    Args:
      options: as `add_job_options` defined them; others are passed over.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_job_options(parser)
    arguments = []
    for action in parser._actions:
        value = getattr(options, action.dest)
        if value == action.default:
            continue
        option = action.option_strings[0]
        if value is True:
            arguments.append(option)
        else:
            arguments += [f"{option}={each}" for each in (value if isinstance(value, list) else [value])]
    return arguments


def device_of(hardware: Hardware) -> str:
    """Which image the hardware needs: cpu, gpu or tpu."""
    if hardware.is_tpu:
        return "tpu"
    return "gpu" if hardware.accelerator else "cpu"


def _runtime(target: Target, given: str, hardware: Hardware) -> str:
    """The software version of a Cloud TPU's machines."""
    if target == "vertex":
        if given:
            raise UserError(f"--runtime={given} is for tpu-vm: leave it out.")
        return ""
    from launch.jobs.catalog import runtime
    from trainer.accelerators import slice_named

    return given or runtime(slice_named(hardware.accelerator))


def _with_strategy(config: Config, given: FlagValues, hardware: Hardware) -> Config:
    """The configuration with the strategy that uses all of the hardware, if it does not name one that does."""
    fitting = fitting_strategies(hardware)
    if given["strategy"].present or config.strategy != type(config).model_fields["strategy"].default:
        if config.strategy not in fitting:
            raise UserError(
                f"--strategy={config.strategy} does not use {described(hardware)}: leave it out, or give "
                f"--strategy={fitting[0]}."
            )
        return config
    return type(config).parse({**config.model_dump(), "strategy": fitting[0]})


def fitting_strategies(hardware: Hardware) -> tuple[str, ...]:
    """The strategies that use all of the hardware, the one to take first."""
    if hardware.is_tpu:
        return ("tpu",)
    if hardware.workers > 1:
        return ("multi_worker",)
    return ("mirrored",) if hardware.count > 1 else ("default", "mirrored")


def described(hardware: Hardware) -> str:
    """The hardware in a few words, as in "4 machines with 2 l4 each"."""
    if hardware.is_tpu:
        return f"a TPU slice {hardware.accelerator}"
    machines = "one machine" if hardware.workers == 1 else f"{hardware.workers} machines"
    each = " each" if hardware.workers > 1 else ""
    return f"{machines} with {hardware.count} {hardware.accelerator}{each}" if hardware.accelerator else machines


def _worker_flags(config: Config, *, quiet: bool) -> tuple[str, ...]:
    """What each worker is given: the flags of the checked configuration, whatever file or default they came from."""
    from trainer.config_flags import flags_of

    return (*flags_of(config), *(["--quiet"] if quiet else []))


def _default_name(config: Config, moment: datetime) -> str:
    """As in "tf-flowers-mobilenet-v2-100-224-20261122-170500", cut to what a name may have."""
    spec = config.data_spec
    place = spec.argument.rstrip("/").split("/")[-1] if spec.argument else ""
    module = re.sub(r"/(feature_vector|classification)?/?\d*$", "", config.backbone.rstrip("/")).split("/")[-1]
    words = re.sub(r"[^a-z0-9]+", "-", f"{place or spec.kind}-{module}".lower()).strip("-")
    stamp = f"{moment:%Y%m%d-%H%M%S}"
    words = words[: LONGEST_NAME - len(stamp) - 1].strip("-")
    return f"{words if words[:1].isalpha() else 'run'}-{stamp}"


def _location(target: Target, options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    if target == "tpu-vm":
        return options.zone or _needed("zone", "--zone=us-west4-a", environment)
    if options.zone:
        raise UserError(f"--zone={options.zone} is for tpu-vm: {target} runs in a region, as in --region=us-central1.")
    return options.region or _needed("region", "--region=us-central1", environment)


def _needed(name: str, example: str, environment: Mapping[str, str]) -> str:
    value = gcloud_default(name, environment)
    if not value:
        raise UserError(f"No {name} is given, and gcloud is set to none: add {example}.")
    return value


def _region_of(location: str) -> str:
    """The region of a zone, or the region itself."""
    return re.sub(r"-[a-z]$", "", location)


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--label={text}: must be KEY=VALUE, as in --label=team=vision.")
        if key in labels:
            raise UserError(f"--label={text}: {key} is given twice.")
        labels[key] = value
    return labels
