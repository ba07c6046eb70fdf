"""Whether a worker has to be ended before memory runs out, and which one.

Plain decisions over readings of memory and over what runs.  The kernel would kill whatever is
largest: the driver, a daemon, or a task that has almost finished.

The policy is that of newer versions of Ray (group by owner) and not the older "newest first".
Tasks are grouped by the process that has submitted them; the newest one of the largest group is
ended, so that a caller with very many tasks loses some of them before one with a single task loses
that, and of each group the oldest is left to finish.  What can be started again goes first,
whatever its group; of the rest, each is a group of its own and the newest goes.  "New" is when the
call of a task began, where its worker says so in time, and when an actor got its worker.

Before anybody loses work, idle workers that hold memory are let go: their next task costs a fork.
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
#: An idle worker is worth ending if that gives back so many bytes: what it does not share.
IDLE_WORTH = 16 << 20
#: With so much of what is above the threshold in use there is no time to ask when calls began.
URGENT = 0.5


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
    #: When the call began or, where that is not known, when it got its worker.
    since: float


class Idle(msgspec.Struct, frozen=True):
    """A worker that runs nothing, but may own objects that others need."""

    worker_id: bytes
    #: Bytes that nobody else uses.
    private: int


class MemoryGuard:
    """Decides, one worker at a time."""

    def __init__(self, threshold: float) -> None:
        """``threshold``: the share of memory in use above which workers are ended."""
        self.threshold = threshold
        #: The worker that was chosen last, until it is gone, ...
        self._victim = b""
        #: ... and not before this time is anybody else chosen.
        self._quiet_until = 0.0
        #: Idle workers that were told to end, and when: one that is still there was needed then.
        self._told: dict[bytes, float] = {}

    def exceeded(self, readings: Iterable[Reading]) -> Reading | None:
        """Return the fullest memory that is in use above the threshold, None if none is."""
        over = [reading for reading in readings if reading.share > self.threshold]
        return max(over, key=lambda reading: reading.share) if over else None

    def is_urgent(self, reading: Reading) -> bool:
        """Whether memory may be gone before workers have answered a question."""
        return reading.share > self.threshold + (1.0 - self.threshold) * URGENT

    def is_quiet(self, now: float) -> bool:
        """Whether what was done last still has to show."""
        return now < self._quiet_until

    def choose_idle(self, idle: Iterable[Idle], now: float) -> list[bytes]:
        """Return the idle workers to let go now that memory is short, all at once."""
        if self.is_quiet(now):
            return []
        chosen = [
            worker.worker_id
            for worker in idle
            if worker.private >= IDLE_WORTH
            and now - self._told.get(worker.worker_id, now - STUCK_SECONDS) >= STUCK_SECONDS
        ]
        if chosen:
            self._told.update(dict.fromkeys(chosen, now))
            self._quiet_until = now + SETTLE_SECONDS
        return chosen

    def choose(self, candidates: Sequence[Candidate], now: float) -> Candidate | None:
        """Return the worker to end now that memory is short; None: nobody, or not yet."""
        if self.is_quiet(now):
            return None
        chosen = choose(candidates)
        if chosen is not None:
            self._victim = chosen.worker_id
            self._quiet_until = now + STUCK_SECONDS
        return chosen

    def worker_ended(self, worker_id: bytes, now: float) -> None:
        """A worker is gone: its memory will be free in a moment."""
        self._told.pop(worker_id, None)
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
