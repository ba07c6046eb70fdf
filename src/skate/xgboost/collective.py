"""An actor's part in XGBoost's collective: the tracker, joining, and what it prints."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

from skate.xgboost.library import xgboost

#: Where the collective listens.  All actors of a session run on one machine.
HOST = "127.0.0.1"
#: Seconds that XGBoost waits in one collective operation.  Its default of five minutes ends
#: trainings in which one actor needs longer than the others; deaths are noticed otherwise.
TIMEOUT_S = 7 * 24 * 3600


class Tracker:
    """XGBoost's tracker, in the process of rank 0.

    It lives as long as that process, and one process trains once: there is nobody left to whom it
    could matter when rank 0 ends.  It is never freed, because a tracker whose workers have died
    raises when it is, also in its finalizer.
    """

    def __init__(self, num_actors: int) -> None:
        from xgboost.tracker import RabitTracker

        # By task: ranks of the collective are ours, so that shards and ranks go together.
        self._tracker = RabitTracker(n_workers=num_actors, host_ip=HOST, sortby="task")
        self._tracker.start()
        self.worker_args: dict[str, Any] = dict(self._tracker.worker_args())
        # The handle is forgotten, and with it what the finalizer would free.
        del self._tracker.handle


def join(tracker: Mapping[str, Any] | None, rank: int) -> None:
    """Make the calling thread member ``rank`` of a collective; of none if there is no tracker.

    Nobody leaves: leaving waits for peers, who may be dead, and the process ends with the training.
    What XGBoost logs in this thread goes to stderr for rank 0 and nowhere for the others.
    """
    library: Any = xgboost()
    library.core._LIB.XGBRegisterLogCallback(_RANK_0 if rank == 0 else _OTHERS)
    if tracker is None:
        return
    from xgboost import collective

    context = collective.CommunicatorContext(
        **tracker, dmlc_task_id=f"{rank:08d}", dmlc_timeout=TIMEOUT_S
    )
    context.__enter__()


def _log_of_rank_0(message: bytes) -> None:
    text = message.decode(errors="replace")
    # Who has which rank is said at the start of every training and is of no use to anybody.
    if "got rank" not in text:
        print(text.rstrip("\n"), file=sys.stderr)


def _log_of_others(_message: bytes) -> None:
    """Drop it: the other ranks repeat what rank 0 says."""


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
# XGBoost keeps their addresses for as long as its threads live.
_RANK_0, _OTHERS = _LogCallback(_log_of_rank_0), _LogCallback(_log_of_others)
