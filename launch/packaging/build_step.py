"""The last step of cloudbuild.yaml: submits a job that runs in the image that the build just made.

    python -m launch.packaging.build_step

What to submit comes in environment variables, into which Cloud Build writes its substitutions: no shell reads them, so
that quotes, spaces and commas stay what they are.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence

from launch.__main__ import main
from trainer.errors import EXIT_DONE, EXIT_USER, UserError
from trainer.terminal import print_error

_LOST_WITH_THE_STEP = f"{tempfile.gettempdir()}/hub-trainer-jobs"
"""Where the record of a job goes that nobody wants to keep: the image's user may not write in the step's home."""


def step(environment: Mapping[str, str]) -> int:
    """Submits, where `SUBMIT` is "true"; gives the exit code.

    Args:
      environment: as cloudbuild.yaml makes it; a step that runs again finds the job that it made before by
        `JOB_SUBMISSION`, the build's id.
    """
    if environment.get("SUBMIT") != "true":
        print(f"_SUBMIT={environment.get('SUBMIT', '')}: no job is submitted.")
        return EXIT_DONE
    try:
        return main(submit_arguments(environment))
    except UserError as error:
        print_error(str(error))
        return EXIT_USER


def submit_arguments(environment: Mapping[str, str]) -> list[str]:
    """The arguments for `python -m launch`.

    Raises:
      UserError: a substitution that holds words cannot be split.
    """
    own = [
        f"--project={environment['JOB_PROJECT']}",
        f"--image={environment['JOB_IMAGE']}",
        f"--submission={environment['JOB_SUBMISSION']}",
        f"--records={environment['JOB_RECORDS'] or _LOST_WITH_THE_STEP}",
    ]
    options = words("_LAUNCH_OPTIONS", environment["LAUNCH_OPTIONS"])
    flags = words("_TRAINER_FLAGS", environment["TRAINER_FLAGS"])
    return ["submit", environment["JOB_TARGET"], *own, *options, "--", *flags]


def words(name: str, text: str) -> list[str]:
    """The words of a substitution.

    Args:
      name: of the substitution, for what is said of mistakes.
      text: a JSON list of strings, as `substitution_of` makes it, or words as a POSIX shell would split them.

    Raises:
      UserError: it is neither.
    """
    try:
        if not text.lstrip().startswith("["):
            return shlex.split(text)
        parsed = json.loads(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: cannot be split into words ({error}); quote them as for a shell.") from None
    if not all(isinstance(word, str) for word in parsed):
        raise UserError(f"{name}={text}: must be a JSON list of strings, or words as for a shell.")
    return list(parsed)


def substitution_of(given: Sequence[str]) -> str:
    """Words as the value of a substitution, which `words` reads.

    A dollar sign would be the start of another substitution to Cloud Build; JSON has another way to write it.
    """
    return json.dumps(list(given)).replace("$", r"\u0024") if given else ""


if __name__ == "__main__":
    sys.exit(step(os.environ))
