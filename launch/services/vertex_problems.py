"""What Vertex AI would refuse of a job, or would do otherwise than meant. Pure, and offline.

Machines that do not exist never get so far (`launch.jobs.hardware`). Rules are Google's documentation's, as of 2026-11;
"training" stands for https://docs.cloud.google.com/vertex-ai/docs/training.
"""

from __future__ import annotations

import re

from launch.jobs.job import Job
from launch.jobs.job_options import MOST_RUN_HOURS, described, fitting_strategies
from launch.jobs.job_problems import problems_anywhere
from trainer.wording import counted

_FLEX_START_GPUS = ("l4", "a100", "h100", "h200")
"""What our names of the GPUs begin with that can be waited for (training/schedule-jobs-dws)."""

_NETWORK = re.compile(r"projects/[0-9]+/global/networks/[a-z0-9-]+")
"""CustomJobSpec.network of the API: the project by its number."""

_TENSORBOARD = re.compile(r"projects/[^/]+/locations/(?P<region>[^/]+)/tensorboards/[^/]+")
"""CustomJobSpec.tensorboard of the API."""

_SERVICE_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")


def problems(job: Job) -> list[str]:
    """Sentences, each with the way out; [] if all is well.

    Args:
      job: for Vertex AI.
    """
    return [
        *problems_anywhere(job, job.location),
        *_device_problems(job),
        *_scheduling_problems(job),
        *_account_problems(job),
    ]


def _device_problems(job: Job) -> list[str]:
    """Whether the trainer uses every device that is paid for.

    On each host of a TPU slice a server of TensorFlow has to run, which a custom job of our image has no way to start.
    Vertex has base images for that (training/training-with-tpu-vm), of TensorFlow versions that are too old for us.
    """
    found = []
    hardware = job.hardware
    fitting = fitting_strategies(hardware)
    if job.config.strategy not in fitting:
        found.append(
            f"--strategy={job.config.strategy} does not use {described(hardware)}: take --strategy={fitting[0]}."
        )
    if hardware.is_tpu and hardware.workers > 1:
        found.append(
            f"--accelerator={hardware.accelerator} has {counted(hardware.workers, 'host')}, and on Vertex AI the "
            "trainer runs on one: take a slice of one host, such as v5litepod-8, or submit tpu-vm."
        )
    return found


def _scheduling_problems(job: Job) -> list[str]:
    """Times, and how the machines are come by.

    A week is the most for jobs that wait for their machines (training/schedule-jobs-dws). For others it is the default,
    and no page tells of a longer time that would be kept, so that more is refused for all.
    """
    found = []
    if not 0 < job.max_run_hours <= MOST_RUN_HOURS:
        found.append(
            f"--max_run_hours={job.max_run_hours:g}: must be above 0 and at most {MOST_RUN_HOURS:g}; a longer run "
            "goes on when it is submitted again with the same --run_dir."
        )
    if job.provisioning == "reserved":
        found.append("--provisioning=reserved is for tpu-vm: take standard, spot or flex-start.")
    elif job.provisioning == "flex-start":
        if not job.hardware.accelerator.startswith(_FLEX_START_GPUS):
            found.append(
                f"--provisioning=flex-start waits for GPUs of the kinds {', '.join(_FLEX_START_GPUS)}, not for "
                f"{job.hardware.accelerator or 'machines without'}: take standard or spot."
            )
    elif job.max_wait_hours:
        found.append(
            f"--max_wait_hours={job.max_wait_hours:g} has no effect with --provisioning={job.provisioning}: leave "
            "it out, or take flex-start."
        )
    return found


def _account_problems(job: Job) -> list[str]:
    """Names of other resources: their forms, and what goes with what (docs/experiments/tensorboard-setup)."""
    found = []
    if job.service_account and not _SERVICE_ACCOUNT.fullmatch(job.service_account):
        found.append(
            f"--service_account={job.service_account}: must be a service account's address, as in "
            f"trainer@{job.project}.iam.gserviceaccount.com."
        )
    if job.network and not _NETWORK.fullmatch(job.network):
        found.append(
            f"--network={job.network}: must be projects/NUMBER/global/networks/NAME, with the project's number, which "
            f"`gcloud projects describe {job.project}` prints."
        )
    if job.tensorboard:
        found += _tensorboard_problems(job)
    return found


def _tensorboard_problems(job: Job) -> list[str]:
    """Vertex uploads what is written to AIP_TENSORBOARD_LOG_DIR, which it sets to logs/ in baseOutputDirectory."""
    name = _TENSORBOARD.fullmatch(job.tensorboard)
    if not name:
        return [
            f"--tensorboard={job.tensorboard}: must be projects/P/locations/REGION/tensorboards/NUMBER, as "
            f"`gcloud ai tensorboards list --region={job.location}` prints it."
        ]
    found = []
    if name["region"] != job.location:
        found.append(f"--tensorboard={job.tensorboard} must be in the job's region, {job.location}: choose another.")
    if not job.service_account:
        found.append(
            "--tensorboard needs --service_account, with the roles storage.admin and aiplatform.user: the service's "
            "default may not write there."
        )
    if job.config.run_dir_layout != "vertex":
        found.append(
            "--tensorboard shows what is in RUN_DIR/logs, and the curves would be in RUN_DIR/tensorboard: add "
            "--run_dir_layout=vertex behind --."
        )
    return found
