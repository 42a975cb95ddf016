"""The cloud's word that it takes this machine back: Compute Engine's metadata server, which every Google VM can ask.

Vertex AI, GKE and Cloud TPU VMs are such machines too. Elsewhere nobody is asked. (Compute Engine's documentation of
preemptible and spot VMs and of the metadata server, as of 2026-11.)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")
"""Where a machine's maker stands; on Compute Engine "Google Compute Engine"."""

_HOST_VARIABLE = "GCE_METADATA_HOST"
"""Where Google's own libraries look for another metadata server."""

_TOLD = {
    "preempted": ("TRUE", "the cloud takes this machine back (preempted)"),
    "maintenance-event": ("TERMINATE_ON_HOST_MAINTENANCE", "the cloud takes this machine back (host maintenance)"),
}
"""What is asked, the answer that matters, and what that means. A VM is stopped 30 seconds after the first one."""

_WAIT_SECONDS = 60
"""How long the server holds an answer back as long as nothing changes."""

_RETRY_SECONDS = 5.0


def metadata_server(environment: Mapping[str, str], product_name: Path = _PRODUCT_NAME) -> str | None:
    """HOST or HOST:PORT of this machine's metadata server; None where it is no machine of Google's.

    Args:
      environment: may name another server (GCE_METADATA_HOST), or say that there is none (NO_GCE_CHECK).
      product_name: the file that tells what machine it is.
    """
    if environment.get("NO_GCE_CHECK", "").lower() == "true":
        return None
    if environment.get(_HOST_VARIABLE):
        return environment[_HOST_VARIABLE]
    try:
        return "metadata.google.internal" if "Google" in product_name.read_text(encoding="utf-8") else None
    except OSError:
        return None


def watch_for_notice(
    ask_to_stop: Callable[[str], object],
    environment: Mapping[str, str] = os.environ,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Asks the metadata server, in threads that end with the process, until it says that the machine goes away.

    Args:
      ask_to_stop: called with the reason, in one of these threads.
      environment: see `metadata_server`.
      sleep: waits that many seconds after the server gave no answer.
    """
    server = metadata_server(environment)
    if server is None:
        return
    for key in _TOLD:
        threading.Thread(
            target=_watch, args=(server, key, ask_to_stop, sleep), name=f"notice of {key}", daemon=True
        ).start()


def _watch(server: str, key: str, ask_to_stop: Callable[[str], object], sleep: Callable[[float], None]) -> None:
    import urllib.request  # Here: it takes time that only machines with a server need to spend.

    awaited, reason = _TOLD[key]
    # No proxy reaches a server that each machine has for itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    query = ""
    while True:
        url = f"http://{server}/computeMetadata/v1/instance/{key}{query}"
        try:
            with opener.open(
                urllib.request.Request(url, headers={"Metadata-Flavor": "Google"}), timeout=_WAIT_SECONDS + 10
            ) as answer:
                told = answer.read(100).decode(errors="replace").strip()
        except OSError:
            sleep(_RETRY_SECONDS)
            continue
        if told == awaited:
            ask_to_stop(reason)
            return
        query = f"?wait_for_change=true&timeout_sec={_WAIT_SECONDS}"
