"""What becomes of tasks whose worker was ended to save memory.

That is not their fault, so it does not use up their retries.  But a task that needs more memory
than there is would be started and ended for ever, and many that do not fit together would end each
other again and again: each one waits longer every time, and gives up in the end.
"""

from __future__ import annotations

#: A task fails after it was ended so often; with the delays below that takes at least two minutes,
#: in which others may finish.
MOST_KILLS = 10
#: It is started again after this many seconds, doubled every time, ...
FIRST_DELAY_SECONDS = 0.25
#: ... up to this many.
LAST_DELAY_SECONDS = 30.0


def delay(kills: int) -> float | None:
    """Return after how many seconds a task is started again that was ended ``kills`` times.

    None: it is not.
    """
    if kills > MOST_KILLS:
        return None
    return min(FIRST_DELAY_SECONDS * float(2 ** (kills - 1)), LAST_DELAY_SECONDS)
