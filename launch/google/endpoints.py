"""Where Google's APIs are asked.

That can be changed by the variables that gcloud has for it, `CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM` and so on, as
private access to Google's APIs needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from launch.services.service import ApiRequest
from trainer.errors import UserError

_ENDPOINTS = {"aiplatform": "https://{location}-aiplatform.googleapis.com"}
"""The APIs whose host is not simply NAME.googleapis.com (2026-11)."""


def endpoint(request: ApiRequest, environment: Mapping[str, str]) -> str:
    """The address that a request goes to, without its query.

    Args:
      request: any.
      environment: may name another host; see the module's head.

    Raises:
      UserError: the host that the environment names would get the credentials over an open line.
    """
    variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{request.api.upper()}"
    base = environment.get(variable, "").rstrip("/")
    if base:
        _check_is_safe(base, variable)
        if request.api == "storage":  # gcloud takes its address with and without the version, which our paths have.
            base = base.removesuffix("/storage/v1")
    else:
        location = re.search(r"/locations/([a-z0-9-]+)", request.path)
        base = _ENDPOINTS.get(request.api, "https://{api}.googleapis.com").format(
            api=request.api, location=location[1] if location else "us-central1"
        )
    return f"{base}/{request.path}"


def _check_is_safe(base: str, variable: str) -> None:
    """Refuses an address to which credentials would go over an open line.

    Args:
      base: the address.
      variable: that names it.

    Raises:
      UserError: it is one.
    """
    try:
        parts = urlsplit(base)
    except ValueError:
        raise UserError(f"{variable}={base}: is no address such as https://example.p.googleapis.com/.") from None
    stays_here = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (stays_here or (parts.scheme == "https" and parts.hostname)):
        raise UserError(f"{variable}={base}: must begin with https://, since credentials are sent there.")
