"""Looks at what cloud jobs need, and says of each thing how to mend it. It changes nothing.

    python -m launch doctor
    python -m launch doctor --project=P --region=us-central1 --accelerator=l4 --run_dir=gs://BUCKET/runs/flowers
    python -m launch doctor --offline --json

Each line is "ok", "problem" (with the command that mends it) or "unknown" (with the reason: nobody answers, nothing was
given to look at, or the account may not see it). The exit code is 2 when there is a problem, and 0 otherwise. Whoever
asks is this machine's account; a job acts as its own service account.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.doctor.checks import Check
from launch.jobs.job import Target
from trainer.errors import EXIT_DONE, EXIT_USER, UserError

if TYPE_CHECKING:
    from launch.google.google_api import GoogleApi, Session
    from launch.tables import Look

NAME = "doctor"
SUMMARY = "look at what cloud jobs need, and say how to mend it"

_INDENT = " " * 10


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at; "" for what was not given.

    Attributes:
      project: id.
      region: of the job, or of `zone`.
      zone: of Cloud TPU.
      accelerator: such as "l4:2" or "v5litepod-8".
      run_dir: such as "gs://BUCKET/runs/flowers".
      image: of the container.
    """

    project: str = ""
    region: str = ""
    zone: str = ""
    accelerator: str = ""
    run_dir: str = ""
    image: str = ""

    @property
    def target(self) -> Target:
        """Who would run the job: a zone is Cloud TPU's."""
        return "tpu-vm" if self.zone else "vertex"

    @property
    def location(self) -> str:
        """Where the job would be."""
        return self.zone or self.region


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--project", default="", help="id of the Google Cloud project (default: gcloud's)")
    parser.add_argument("--region", default="", help="of a job on Vertex AI (default: gcloud's)")
    parser.add_argument("--zone", default="", help="of a job on Cloud TPU; without it, Vertex AI is meant")
    parser.add_argument("--accelerator", default="", help="whose quota is looked at, such as l4:2 or v5litepod-8")
    parser.add_argument("--run_dir", default="", help="whose bucket is looked at, such as gs://BUCKET/runs/flowers")
    parser.add_argument("--image", default="", help="the container image that is looked for")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--offline", action="store_true", help="ask nobody outside of this machine")


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Looks, and prints what it finds.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--": nothing.

    Returns:
      The exit code; see the module's head.

    Raises:
      UserError: something stands behind the "--".
    """
    from launch.tables import look_of, print_json, print_lines

    if trainer_flags:
        raise UserError(f"{trainer_flags[0]} stands behind --, where doctor takes nothing: leave it out.")
    checks = []
    look = look_of(sys.stdout, os.environ)
    for check in all_checks(wanted_by(options, os.environ), os.environ, offline=options.offline):
        checks.append(check)
        if not options.json:
            print_lines(lines_of(check, look))
    if options.json:
        print_json([check.to_json() for check in checks])
    return EXIT_USER if any(check.verdict == "problem" for check in checks) else EXIT_DONE


def wanted_by(options: argparse.Namespace, environment: Mapping[str, str]) -> Wanted:
    """What is to be looked at, with gcloud's defaults."""
    from launch.jobs.catalog import region_of
    from launch.jobs.defaults import gcloud_default

    return Wanted(
        options.project or gcloud_default("project", environment),
        region_of(options.zone) or options.region or gcloud_default("region", environment),
        options.zone,
        options.accelerator,
        options.run_dir,
        options.image,
    )


def all_checks(
    wanted: Wanted,
    environment: Mapping[str, str],
    *,
    offline: bool,
    ask_tensorflow: Callable[[], Check] | None = None,
    version_of: Callable[[str], str | None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Check]:
    """Every check, in the order in which they are shown.

    Args:
      wanted: what is to be looked at.
      environment: of this process.
      offline: whether nobody outside of this machine is asked.
      ask_tensorflow: looks at TensorFlow; a process of its own by default.
      version_of: gives the version of a distribution; those that are installed by default.
      sleep: pauses before Google is asked again.
    """
    from launch.doctor.machine_checks import program_checks, tensorflow_check, version_checks

    ask_tensorflow = ask_tensorflow or (lambda: tensorflow_check(environment=environment))
    with ThreadPoolExecutor(1) as pool:  # TensorFlow starts while Google is asked.
        tensorflow: Future[Check] = pool.submit(ask_tensorflow)
        yield from _cloud_checks(wanted, environment, offline, sleep)
        yield from program_checks(lambda program: shutil.which(program, path=environment.get("PATH", "")))
        yield from version_checks(version_of or _installed_version)
        yield tensorflow.result()


def _cloud_checks(
    wanted: Wanted, environment: Mapping[str, str], offline: bool, sleep: Callable[[float], None]
) -> Iterator[Check]:
    from launch.google.google_api import GoogleApi

    if offline:
        yield _credentials_file_check(environment)
        api, reason = None, "not asked: --offline."
    else:
        check, session = _credentials(environment)
        yield check
        api = GoogleApi(session, environment, sleep=sleep) if session and check.verdict == "ok" else None
        reason = "not asked, for want of an answer to the credentials."
    yield from _project_checks(wanted, api, reason)
    yield _machine_check(wanted)
    yield from _job_checks(wanted, api, reason)


def _credentials_file_check(environment: Mapping[str, str]) -> Check:
    """Whether there is a file with credentials, which is all that can be said without asking Google."""
    from launch.doctor.cloud_checks import LOGIN

    key = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    folder = environment.get("CLOUDSDK_CONFIG") or f"{environment.get('HOME', '')}/.config/gcloud"
    path = key or f"{folder}/application_default_credentials.json"
    if Path(path).is_file():
        return Check(
            "credentials", "unknown", f"found in {path}; whether Google accepts them was not asked: --offline."
        )
    if key:
        return Check("credentials", "problem", f"GOOGLE_APPLICATION_CREDENTIALS={key} is not there.", LOGIN)
    return Check("credentials", "unknown", f"none in {path}; only Google's own machines need none.", LOGIN)


def _credentials(environment: Mapping[str, str]) -> tuple[Check, Session | None]:
    """Whether there are credentials that Google accepts, and a session with them."""
    from launch.doctor.cloud_checks import LOGIN, credentials_check
    from launch.google.google_api import authorized_session

    try:
        session = authorized_session(environment)
    except UserError as error:
        sentence, _, _ = str(error).partition(": ")
        return Check("credentials", "problem", f"{sentence}.", LOGIN), None
    return credentials_check(session), session


def _project_checks(wanted: Wanted, api: GoogleApi | None, reason: str) -> Iterator[Check]:
    from launch.doctor.cloud_checks import apis_check, project_check

    if not wanted.project:
        yield Check("project", "problem", "none is given: give --project.", "gcloud config set project PROJECT")
        yield Check("APIs", "unknown", "not asked: no project is given.")
        return
    yield project_check(api, wanted.project) if api else Check("project", "unknown", f"{wanted.project}, {reason}")
    yield apis_check(api, wanted.project) if api else Check("APIs", "unknown", reason)


def _machine_check(wanted: Wanted) -> Check:
    """Whether there are machines with the accelerator in that place, by the catalog."""
    from launch.jobs.hardware import choose

    title = "machines"
    if not wanted.location:
        return Check(title, "unknown", "no region or zone is given: give --region or --zone.")
    try:
        hardware = choose(
            wanted.target,
            accelerator=wanted.accelerator,
            workers=None,
            machine="",
            topology="",
            location=wanted.location,
        )
    except UserError as error:
        return Check(title, "problem", str(error))
    name = (
        f"{hardware.accelerator}:{hardware.count}" if hardware.count and not hardware.is_tpu else hardware.accelerator
    )
    machine = f" ({hardware.machine})" if hardware.machine else ""
    return Check(title, "ok", f"{name or 'none'}{machine} in {wanted.location}.")


def _job_checks(wanted: Wanted, api: GoogleApi | None, reason: str) -> Iterator[Check]:
    """Bucket, image and quota."""
    from launch.doctor.cloud_checks import bucket_checks, image_check

    if not wanted.run_dir:
        yield Check("bucket", "unknown", "none is given: give --run_dir=gs://BUCKET/FOLDER.")
    elif not wanted.run_dir.startswith("gs://") or wanted.run_dir == "gs://":
        yield Check("bucket", "problem", f"--run_dir={wanted.run_dir} is not on gs://BUCKET/FOLDER.")
    elif api:
        yield from bucket_checks(api, wanted.run_dir, wanted.region, wanted.project or "PROJECT")
    else:
        yield Check("bucket", "unknown", reason)
    if not wanted.image:
        yield Check("image", "unknown", "none is given: give --image.")
    else:
        yield (
            image_check(api, wanted.image, wanted.project or "PROJECT") if api else Check("image", "unknown", reason)
        )
    yield _quota_check(wanted, api, reason)


def _quota_check(wanted: Wanted, api: GoogleApi | None, reason: str) -> Check:
    from launch.doctor.cloud_checks import quota_check
    from trainer.accelerators import Slice, slice_or_gpus_named

    title = "quota"
    if not wanted.accelerator:
        return Check(title, "unknown", "no accelerator is given: give --accelerator.")
    if not wanted.project or not wanted.location:
        return Check(title, "unknown", "no project and place are given: give --project, and --region or --zone.")
    try:
        found = slice_or_gpus_named(wanted.accelerator)
    except UserError as error:
        return Check(title, "unknown", str(error))
    if api is None:
        return Check(title, "unknown", reason)
    one, count = (found, 1) if isinstance(found, Slice) else (found.model, found.count)
    return quota_check(api, wanted.project, wanted.target, one, count, wanted.location)


def _installed_version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def lines_of(check: Check, look: Look) -> list[str]:
    """A check as a person reads it: what was found, and under it the command that mends it.

    Args:
      check: any.
      look: of the stream.
    """
    from launch.tables import folded

    found = f"{check.verdict:<{len(_INDENT)}}"
    lines = folded(found, f"{check.title}: {check.finding}", look)
    if check.way_out:
        lines += [f"{_INDENT}{line}" for line in _command_lines(look.text(check.way_out), look.width)]
    return lines


def _command_lines(command: str, width: int | None) -> list[str]:
    """A command on lines that a shell takes as one, where the terminal is too narrow for it."""
    if width is None or len(_INDENT) + len(command) <= width:
        return [command]
    return command.replace(" --", " \\\n  --").replace(" && ", " &&\\\n  ").split("\n")
