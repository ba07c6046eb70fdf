"""An actor's part in XGBoost's collectives: tracker, joining, leaving by force, what is printed.

A collective that has lost a member cannot be used any more, and those who wait in it for that
member cannot be interrupted: XGBoost has no call for that, and waits for as long as the
connections to its neighbours stand.  So ``Membership.leave`` ends these connections.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from skate.xgboost.library import xgboost

#: Where the collective listens if all members are on one node.
LOOPBACK = "127.0.0.1"
#: Seconds that XGBoost waits in one collective operation.  Its default of five minutes ends
#: trainings in which one actor needs longer than the others; deaths are noticed otherwise.
TIMEOUT_S = 7 * 24 * 3600


class Membership:
    """The part of one process in one collective.

    Make it before anything of the collective is there, the tracker included: what it ends are the
    sockets that the process has opened from then on until it has joined.
    """

    def __init__(self) -> None:
        self._before = _sockets()
        self._joined: set[tuple[int, int]] | None = None

    def track(self, num_members: int, host: str) -> dict[str, Any]:
        """Start a tracker in this process; return how ``xgboost`` finds it.

        It is never freed, because a tracker whose members have died raises when it is, also in
        its finalizer.
        """
        from xgboost.tracker import RabitTracker

        # By task: ranks of the collective are ours, so that shards and ranks go together.
        tracker = RabitTracker(n_workers=num_members, host_ip=host, sortby="task")
        tracker.start()
        arguments = dict(tracker.worker_args())
        # The handle is forgotten, and with it what the finalizer would free.
        del tracker.handle
        return arguments

    def join(self, tracker: Mapping[str, Any], rank: int) -> None:
        """Make the calling thread member ``rank``.

        Nobody leaves in an orderly way: that waits for peers, who may be dead.
        """
        from xgboost import collective

        context = collective.CommunicatorContext(
            **tracker, dmlc_task_id=f"{rank:08d}", dmlc_timeout=TIMEOUT_S
        )
        context.__enter__()
        self._joined = _sockets() - self._before

    def leave(self) -> None:
        """End the connections to the other members: what waits for them raises ``XGBoostError``."""
        _shut_down(self._joined if self._joined is not None else _sockets() - self._before)


def _sockets() -> set[tuple[int, int]]:
    """Return descriptor and inode of every internet socket of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"):
        descriptor = int(name)
        try:
            status = os.fstat(descriptor)
        except OSError:  # closed meanwhile, as that of the listing itself
            continue
        if stat.S_ISSOCK(status.st_mode) and _is_internet(descriptor):
            found.add((descriptor, status.st_ino))
    return found


def _is_internet(descriptor: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            return copy.family in (socket.AF_INET, socket.AF_INET6)
    except OSError:
        return False


def _shut_down(sockets: Iterable[tuple[int, int]]) -> None:
    for descriptor, inode in sockets:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                # The number may belong to something else by now.
                if os.fstat(copy.fileno()).st_ino == inode:
                    copy.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed, or never connected
            continue


def speak_as(rank: int) -> None:
    """Send what XGBoost logs in this thread to stderr for rank 0, and nowhere for the others."""
    library: Any = xgboost()
    library.core._LIB.XGBRegisterLogCallback(_RANK_0 if rank == 0 else _OTHERS)


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
