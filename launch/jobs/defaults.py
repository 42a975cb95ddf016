"""What gcloud is set to on this machine: project, region, zone. Read from its files, without starting it."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = {
    "project": ("CLOUDSDK_CORE_PROJECT", "GOOGLE_CLOUD_PROJECT"),
    "region": ("CLOUDSDK_AI_REGION", "CLOUDSDK_COMPUTE_REGION", "GOOGLE_CLOUD_REGION"),
    "zone": ("CLOUDSDK_COMPUTE_ZONE",),
}
"""The environment variables that gcloud and Google's libraries read, the first that is set counts (2026-11)."""

_PROPERTIES = {
    "project": (("core", "project"),),
    "region": (("ai", "region"), ("compute", "region")),
    "zone": (("compute", "zone"),),
}
"""The same in the file of gcloud's active configuration: section and key."""


def gcloud_default(name: str, environment: Mapping[str, str]) -> str:
    """What gcloud would take for a project, region or zone that is not given; "" if it has none.

    Args:
      name: "project", "region" or "zone".
      environment: of this process.
    """
    for variable in _VARIABLES[name]:
        if environment.get(variable):
            return environment[variable]
    properties = _active_configuration(environment)
    for section, key in _PROPERTIES[name]:
        if properties.get(section, key, fallback=""):
            return properties.get(section, key)
    return ""


def _active_configuration(environment: Mapping[str, str]) -> configparser.ConfigParser:
    """gcloud's active configuration; an empty one where there is none that can be read."""
    properties = configparser.ConfigParser(interpolation=None)
    home = environment.get("HOME", "")
    folder = environment.get("CLOUDSDK_CONFIG") or (f"{home}/.config/gcloud" if home else "")
    if not folder:
        return properties
    try:
        name = environment.get("CLOUDSDK_ACTIVE_CONFIG_NAME") or (
            Path(folder, "active_config").read_text(encoding="utf-8").strip()
        )
        properties.read_string(Path(folder, "configurations", f"config_{name}").read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return configparser.ConfigParser(interpolation=None)
    return properties
