"""What must not keep a process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable


def attempt(call: Callable[[], object], seconds: float) -> bool:
    """Makes a call in a thread of its own and waits for it, but no longer than that many seconds.

    For the last words of a process that is about to end: its storage may be what hangs.

    Returns:
      Whether it came back.
    """
    thread = threading.Thread(target=call, name="last words", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
