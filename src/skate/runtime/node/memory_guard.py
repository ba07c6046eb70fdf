"""Whether a worker has to be ended before memory runs out, and which one.

Plain decisions over readings of memory and over what runs.  The kernel would kill whatever is
largest: the driver, a daemon, or a task that has almost finished.

The policy is that of newer versions of Ray (group by owner) and not the older "newest first".
Tasks are grouped by the process that has submitted them; the newest one of the largest group is
ended, so that a caller with very many tasks loses some of them before one with a single task loses
that, and of each group the oldest is left to finish.  What can be started again goes first,
whatever its group; of the rest, each is a group of its own and the newest goes.  "New" is when the
worker was granted: a task under a lease that has run others before counts as old as the lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

GIB = 1 << 30
#: Memory of an ended worker comes back to the kernel within so many seconds; nobody else is ended
#: meanwhile.
SETTLE_SECONDS = 0.5
#: A worker that was told to end and does not (it sleeps in the kernel) holds up the guard so long.
STUCK_SECONDS = 10.0


class Reading(msgspec.Struct, frozen=True):
    """How much of some memory is in use, in bytes."""

    used: int
    total: int
    #: For the user: "this machine", or the control group that limits it.
    where: str

    @property
    def share(self) -> float:
        """The part in use, 1.0 being all."""
        return self.used / self.total if self.total else 0.0


class Candidate(msgspec.Struct, frozen=True):
    """A worker that runs something."""

    worker_id: bytes
    pid: int
    #: What it runs, for the user.
    name: str
    #: The process that has submitted it.
    owner: bytes
    #: Whether it can be started again.
    retriable: bool
    #: When it got its worker.
    since: float


class MemoryGuard:
    """Decides, one worker at a time."""

    def __init__(self, threshold: float) -> None:
        """``threshold``: the share of memory in use above which workers are ended."""
        self.threshold = threshold
        #: The worker that was chosen last, until it is gone, ...
        self._victim = b""
        #: ... and not before this time is anybody else chosen.
        self._quiet_until = 0.0

    def exceeded(self, readings: Iterable[Reading]) -> Reading | None:
        """Return the fullest memory that is in use above the threshold, None if none is."""
        over = [reading for reading in readings if reading.share > self.threshold]
        return max(over, key=lambda reading: reading.share) if over else None

    def choose(self, candidates: Sequence[Candidate], now: float) -> Candidate | None:
        """Return the worker to end now that memory is short; None: nobody, or not yet."""
        if now < self._quiet_until:
            return None
        chosen = choose(candidates)
        if chosen is not None:
            self._victim = chosen.worker_id
            self._quiet_until = now + STUCK_SECONDS
        return chosen

    def worker_ended(self, worker_id: bytes, now: float) -> None:
        """A worker is gone: its memory will be free in a moment."""
        if worker_id == self._victim:
            self._victim = b""
            self._quiet_until = now + SETTLE_SECONDS


def choose(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return whom to end, whatever has been ended before; see the top of this file."""
    groups: dict[tuple[bool, bytes], list[Candidate]] = {}
    for candidate in candidates:
        key = (True, candidate.owner) if candidate.retriable else (False, candidate.worker_id)
        groups.setdefault(key, []).append(candidate)
    if not groups:
        return None

    def rank(key: tuple[bool, bytes]) -> tuple[bool, int, float]:
        group = groups[key]
        return key[0], len(group), max(candidate.since for candidate in group)

    return max(groups[max(groups, key=rank)], key=lambda candidate: candidate.since)


def explain(reading: Reading, threshold: float, victim: Candidate, table: str) -> str:
    """Return the cause of a worker's end, for the user."""
    return (
        f"ended to keep {reading.where} from running out of memory: {_gib(reading.used)} of"
        f" {_gib(reading.total)} GiB ({reading.share:.1%}) were in use, more than the threshold of"
        f" {threshold:.1%} (init(memory_usage_threshold=...)), and {victim.name} was the newest of"
        " what could be ended. Ask for fewer tasks at the same time (num_cpus or memory of the"
        f" task), or for less data in each.\nProcesses with the most memory:\n{table}"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
