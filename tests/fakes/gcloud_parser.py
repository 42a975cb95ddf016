"""Reads command lines with gcloud's own parser, many in one process. Run by gcloud's Python:

    python gcloud_parser.py ROOT < LISTS > ANSWERS

ROOT is where gcloud is installed; LISTS a JSON list of lists of arguments; ANSWERS a JSON list that says of each
whether gcloud takes it. What it says against one goes to standard error.
"""

import json
import sys

root = sys.argv[1]
sys.path[:0] = [f"{root}/lib", f"{root}/lib/third_party"]
import gcloud  # type: ignore[import-not-found]  # noqa: E402, F401 (prepares the paths of what gcloud brings)
from googlecloudsdk import gcloud_main  # type: ignore[import-not-found]  # noqa: E402

command_line = gcloud_main.CreateCLI([])


def is_taken(arguments: list[str]) -> bool:
    """Whether gcloud's parser takes a command line."""
    try:
        command_line._CLI__parser.parse_args(arguments)
    except SystemExit:
        return False
    return True


print(json.dumps([is_taken(arguments) for arguments in json.load(sys.stdin)]))
