"""What would go wrong with a job whoever runs it: places that its machines cannot reach. Pure, and offline."""

from __future__ import annotations

import re

from launch.job import Job
from trainer.config import Config


def problems(job: Job) -> list[str]:
    """Sentences on what would fail once the machines are paid for, each with the way out; [] if nothing would.

    Args:
      job: of any target; what its own service refuses is for `launch.vertex_request` and `launch.tpu_request` to say.
    """
    found = [*_unreachable(job.config)]
    if not job.config.run_dir.startswith("gs://"):
        given = f"--run_dir={job.config.run_dir}" if job.config.run_dir else "No --run_dir is given"
        found.append(
            f"{given}{' is on this machine' if job.config.run_dir else ''}: what the job leaves is lost with its "
            "machines; add --run_dir=gs://BUCKET/FOLDER behind --."
        )
    if job.config.strategy == "tpu" and job.config.tpu != "local":
        found.append(f"--tpu={job.config.tpu} is set by the job itself: leave it out.")
    if job.config.max_minutes > job.max_run_hours * 60:
        found.append(
            f"--max_minutes={job.config.max_minutes:g} is more than --max_run_hours={job.max_run_hours:g}: the job "
            "would be ended before it saves; give one that is shorter."
        )
    return found


def _unreachable(config: Config) -> list[str]:
    """Files of this machine that the job would look for on its own."""
    spec = config.data_spec
    places = {
        "data": spec.argument if spec.kind in ("folder", "tfrecord", "csv") else "",
        "backbone": config.backbone if config.uses_hub_module else "",
        "data_dir": config.data_dir,
        "init_from": config.init_from,
        "resume": "" if config.resume in ("auto", "never") else config.resume,
    }
    return [
        f"--{flag}={getattr(config, flag)} is on this machine, and the job runs on others: copy it with "
        f"`gcloud storage cp --recursive {path} gs://BUCKET/` and give that place."
        for flag, path in places.items()
        if path and not re.match(r"(gs|https?)://", path)
    ]
