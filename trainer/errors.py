"""How a run ends, and the one exception that is the user's to mend.

Everything else that is raised is a bug or a fault of the machine and keeps its traceback.
"""

from __future__ import annotations

EXIT_DONE = 0
"""The run did all it was asked to do."""

EXIT_USER = 2
"""The user must change something: a flag, a file, a folder. A sentence on stderr says what."""

EXIT_PREEMPTED = 75
"""The run was stopped from outside and can be started again (EX_TEMPFAIL of sysexits.h)."""


class UserError(Exception):
    """Something the user must change.

    The message is one sentence or two: it names the thing, its value, and the way out. `trainer.task` prints
    it without a traceback and exits with `EXIT_USER`.
    """
