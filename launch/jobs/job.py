"""Job: a run of the trainer and where in the cloud it happens. Pure data; nothing here asks anybody anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trainer.config import Config

Target = Literal["vertex", "tpu-vm"]
"""Who runs it: Vertex AI as a custom job, or Cloud TPU as a queued resource."""

Provisioning = Literal["standard", "spot", "flex-start", "reserved"]
"""How the machines are come by: at the full price; cheaper and preemptible; when there are some; as reserved."""

LONGEST_NAME = 50
"""Characters of a job's name. Cloud TPU takes 63 (2026-11); a slice that is requested again gets "-r12" behind it."""

NAME_PATTERN = re.compile(rf"[a-z](?:[a-z0-9-]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?")
"""What a name must be whole: it is a label's value and a Cloud TPU resource's id too."""

CREATED_BY = ("created-by", "hub-trainer")
"""The label by which `launch list` knows its jobs."""

NAME_LABEL = "hub-trainer-job"
SUBMISSION_LABEL = "hub-trainer-submission"
"""Labels: the job's name; a token that is new for each submission, by which a job is found whose answer was lost."""

TRAINER = ("python", "-m", "trainer.task")
"""What a worker runs, before the flags."""


@dataclass(frozen=True)
class Hardware:
    """The machines of a job, as the catalog accepts them.

    Attributes:
      accelerator: as `trainer.accelerators` names it: "l4", "v5litepod-8"; "" where there is none.
      count: GPUs of each machine, or chips of the whole slice; 0 where there is no accelerator.
      workers: machines that run the trainer; of a TPU slice, its hosts.
      machine: the machine type, such as "g2-standard-24"; "" for Cloud TPU, which picks it by the slice.
      topology: of a TPU slice, such as "2x4"; "" otherwise.
    """

    accelerator: str
    count: int
    workers: int
    machine: str
    topology: str = ""

    @property
    def is_tpu(self) -> bool:
        """Whether it is a TPU slice."""
        return bool(self.topology)


@dataclass(frozen=True)
class Job:
    """What is submitted.

    Attributes:
      target: who runs it.
      name: for people, labels and ids; fits `NAME_PATTERN`.
      project: id of the Google Cloud project.
      location: a region ("us-central1") for Vertex AI, a zone ("us-west4-a") for Cloud TPU.
      hardware: the machines.
      image: the container, as in "us-central1-docker.pkg.dev/p/trainer/trainer:abc".
      config: what is trained, checked; its run_dir is on gs://.
      trainer_flags: what each worker gives `trainer.task`; `config` is what they come to.
      provisioning: how the machines are come by.
      max_run_hours: after which the service, or the TPU's own start-up script, ends it.
      max_wait_hours: how long it may wait for machines; 0: as long as the service lets it.
      service_account: what the workers act as; "": the service's default.
      network: of the workers, "projects/P/global/networks/N"; "": the service's default.
      tensorboard: of Vertex AI, "projects/P/locations/R/tensorboards/N"; "": none.
      web_access: whether Vertex AI lets people look into the running container.
      runtime: the Cloud TPU software version; "" for Vertex AI.
      max_requests: how often a slice is requested in all when it is preempted and somebody waits for it.
      delete_when_done: whether the TPU slice deletes itself when the trainer has ended.
      labels: of the user.
    """

    target: Target
    name: str
    project: str
    location: str
    hardware: Hardware
    image: str
    config: Config
    trainer_flags: tuple[str, ...]
    provisioning: Provisioning = "standard"
    max_run_hours: float = 24.0
    max_wait_hours: float = 0.0
    service_account: str = ""
    network: str = ""
    tensorboard: str = ""
    web_access: bool = False
    runtime: str = ""
    max_requests: int = 5
    delete_when_done: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> str:
        """Where the run leaves everything, on gs://, without a slash at its end."""
        return self.config.run_dir.rstrip("/")

    @property
    def worker_command(self) -> tuple[str, ...]:
        """What runs in every worker's container."""
        return (*TRAINER, *self.trainer_flags)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every worker's container."""
        return {"PYTHONUNBUFFERED": "1"}

    def all_labels(self, submission: str) -> dict[str, str]:
        """The user's labels and ours.

        Args:
          submission: the token of this submission.
        """
        return {**self.labels, CREATED_BY[0]: CREATED_BY[1], NAME_LABEL: self.name, SUBMISSION_LABEL: submission}
