"""Says again and again that something still goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reminding(say: Callable[[float], None], first: float) -> Iterator[None]:
    """Calls `say` from a thread of its own while the body runs, less and less often.

    Args:
      say: takes the seconds that have passed: `first`, twice as many, four times as many, …
      first: seconds; nothing is said of a body that ends before.
    """
    ended = threading.Event()

    def remind() -> None:
        began, seconds = time.monotonic(), first
        while not ended.wait(began + seconds - time.monotonic()):
            say(seconds)
            seconds *= 2

    thread = threading.Thread(target=remind, name="reminder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
