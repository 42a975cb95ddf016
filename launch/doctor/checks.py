"""What `launch doctor` finds: one thing that is well, is not and can be mended so, or could not be looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
      title: what, in a word or two.
      verdict: "unknown" where it could not be looked at; it is never shown as "ok".
      finding: a sentence or the beginning of one.
      way_out: the command that mends it or finds out more, or a page of Google's console; "" where there is none.
    """

    title: str
    verdict: Verdict
    finding: str
    way_out: str = ""

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)
