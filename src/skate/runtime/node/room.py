"""Room in memory for those who wait for it: first come, first served, by emptying segments.

Memory goes back to the node by whole segments, so that is what is emptied: those first that were
not used for longest and in which nobody looks at anything.  Their objects are written to disk,
their writers told to put nothing more into them and to give them back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from skate.runtime.node.loop import Loop
from skate.runtime.node.spilling import FILE_BYTES, Spiller
from skate.runtime.store.entries import Entry, Segment
from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.store.server import Outgoing, SegmentTable

#: What is to be read waits no longer if the disk refuses to be written to, or if somebody has
#: waited in vain and nobody was served since, in seconds.
AGAIN_SECONDS = 1.0
#: How often to look again whether somebody still looks at an object, in seconds.
LOOK_SECONDS = 0.1
#: So long after somebody had to wait, room for the next one is made ahead, in seconds.
AHEAD_SECONDS = 1.0
#: That part of the store is kept free then.
AHEAD_PART = 8
#: What was promised to a process is kept for so many seconds.
PROMISE_SECONDS = 2.0
#: A writer that has not given an empty segment back by then has something in it that it has not
#: announced, or is stopped, in seconds.
GIVE_BACK_SECONDS = 2.0


class Request:
    """Somebody waits for a segment."""

    __slots__ = ("attempt", "done", "patience", "process_id", "since", "size", "thinning")

    def __init__(
        self,
        process_id: bytes,
        size: int,
        since: float,
        patience: float,
        done: Callable[[str], None],
        attempt: Callable[[], bool],
    ) -> None:
        self.process_id = process_id
        self.size = size
        self.since = since
        #: Seconds that it waits without anything that could be spilled.
        self.patience = patience
        #: Called with "" when there is room, or with why there is none.
        self.done = done
        #: Returns whether it has found room meanwhile where others have left holes.
        self.attempt = attempt
        #: Objects that are being written to disk to make holes in segments of the process itself.
        self.thinning: list[Entry] = []


class Room:
    """Decides what is emptied, and for whom."""

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        table: SegmentTable,
        spiller: Spiller,
        send: Callable[[Outgoing], None],
        is_filling: Callable[[Segment], bool],
    ) -> None:
        """``is_filling``: the daemon itself is just writing to a segment."""
        self._loop = loop
        self._node_id = node_id
        self._table = table
        self._spiller = spiller
        self._send = send
        self._is_filling = is_filling
        self._queue: deque[Request] = deque()
        #: Segments that are being emptied, and until when their writers have time to give them
        #: back.
        self._evicting: dict[Segment, float] = {}
        #: When it was last seen that waiting has a point, and when somebody last waited in vain.
        self._hopeful = 0.0
        self._in_vain = 0.0
        self._looking = False
        #: Until when room is made before somebody asks.
        self._ahead_until = 0.0
        #: Everything was tried: not again before this time.
        self._next_try = 0.0
        #: When to look again whether what nobody can ask for is still looked at.
        self._next_sweep = 0.0
        self._running = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_active(self) -> bool:
        """Whether ``run`` may have something to do."""
        return bool(self._queue) or bool(self._evicting) or self._loop.now() < self._ahead_until

    def request(
        self,
        process_id: bytes,
        size: int,
        patience: float,
        done: Callable[[str], None],
        attempt: Callable[[], bool] = lambda: False,
    ) -> None:
        """Call ``done`` when a process can acquire a segment of ``size`` bytes, or never can.

        It waits ``patience`` seconds without anything that could be spilled.  ``attempt`` is tried
        before; if it returns True nothing else is done.
        """
        if size > self._table.limit_bytes:
            done(
                f"it needs {size} bytes, and all of the object store has"
                f" {self._table.limit_bytes} (init(object_store_memory=...))"
            )
            return
        self._queue.append(Request(process_id, size, self._loop.now(), patience, done, attempt))
        self.run()

    def process_died(self, process_id: bytes) -> None:
        """It waits for nothing any more."""
        self._queue = deque(r for r in self._queue if r.process_id != process_id)
        self.run()

    # ------------------------------------------------------------------ one look

    def run(self) -> None:
        """See who can be served, and empty what is needed for the others; after any change."""
        if self._running:
            return  # called by somebody who was just served
        self._running = True
        try:
            for segment in list(self._evicting):
                self._advance(segment)
            while self._queue:
                if self._queue[0].attempt():
                    self._queue.popleft()
                elif self._can_serve(self._queue[0]):
                    self._serve(self._queue.popleft())
                else:
                    break
            if self._queue:
                self._ahead_until = self._loop.now() + AHEAD_SECONDS
                self._make_room(self._queue[0])
            elif self._loop.now() < self._ahead_until:
                self._work_ahead()
        finally:
            self._running = False
        self._table.contended = bool(self._queue)
        if self._queue and not self._looking:
            self._looking = True
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = False
        self.run()

    def _can_serve(self, request: Request) -> bool:
        if request.thinning:
            return not any(entry.copying for entry in request.thinning)
        return request.size <= self._table.free_bytes

    def _serve(self, request: Request) -> None:
        process_id, size = request.process_id, request.size
        self._hopeful = self._loop.now()
        if request.thinning:
            request.done("")
            return
        self._table.promise(process_id, size)
        request.done("")
        if process_id == self._node_id:
            # It has taken what it needed.
            self._table.promise(process_id, -self._table.promised(process_id))
        else:
            self._loop.call_later(PROMISE_SECONDS, lambda: self._lapse(process_id, size))

    def _lapse(self, process_id: bytes, size: int) -> None:
        self._table.promise(process_id, -min(size, self._table.promised(process_id)))
        if self._queue:
            self.run()

    def _make_room(self, head: Request) -> None:
        now = self._loop.now()
        if self._table.has_doomed and now >= self._next_sweep:
            # It may be all that is missing, and goes without being written to disk.
            self._next_sweep = now + LOOK_SECONDS
            self._send(self._table.sweep())
        coming = sum(segment.size for segment in self._evicting)
        missing = head.size - self._table.free_bytes - coming
        if missing > 0:
            if now < self._next_try:
                return
            missing -= self._evict(missing)
        if self._spiller.is_paused and self._is_hopeless(head):
            return
        if missing <= 0 or self._evicting or self._thin(head):
            if not self._spiller.failure:
                self._hopeful = now
            return
        self._next_try = now + LOOK_SECONDS
        # Those behind it may need less, and what they have may be what it waits for.
        for request in list(self._queue)[1:]:
            if self._can_serve(request):
                self._queue.remove(request)
                self._serve(request)
        self._is_hopeless(head)

    def _is_hopeless(self, head: Request) -> bool:
        """Whether it has waited long enough without a chance, and was told so."""
        now = self._loop.now()
        patience = head.patience
        # What is to be read stays where it is, so whoever wants it can ask again.
        if head.process_id == self._node_id and (
            self._spiller.failure or self._in_vain > self._hopeful
        ):
            patience = min(patience, AGAIN_SECONDS)
        if now - max(self._hopeful, head.since) <= patience:
            return False
        self._in_vain = now
        self._queue.remove(head)
        head.done(self._spiller.failure or "somebody looks at everything that is in memory")
        return True

    def _work_ahead(self) -> None:
        """Write to disk what the next request would have to wait for."""
        table, now = self._table, self._loop.now()
        coming = sum(segment.size for segment in self._evicting)
        missing = table.limit_bytes // AHEAD_PART - table.free_bytes - coming
        if missing > 0 and now >= self._next_try and not self._evict(missing):
            self._next_try = now + LOOK_SECONDS

    # ------------------------------------------------------------------ emptying segments

    def _evict(self, missing: int) -> int:
        """Begin to empty segments of so many bytes; return how many it will be."""
        # Enough for a whole file: few large writes are faster than many small ones, and the next
        # request will come.
        wanted = max(missing, min(FILE_BYTES, self._table.limit_bytes // 8))
        found = 0
        spilled: list[Entry] = []
        for segment in sorted(self._table.segments(), key=lambda segment: segment.used):
            if found >= wanted:
                break
            if segment in self._evicting or not self._may_be_emptied(segment):
                continue
            found += segment.size
            segment.evicting = True
            self._evicting[segment] = self._loop.now() + GIVE_BACK_SECONDS
            self._send(self._table.retire(segment))
            spilled += self._take_out(segment)
        self._spiller.spill(spilled)
        return found

    def _may_be_emptied(self, segment: Segment) -> bool:
        if segment.fresh or self._is_filling(segment):
            return False
        if not segment.entries:
            # Nothing in it: its writer keeps it for its next objects.
            return segment.writer is not None and not segment.retired
        now = self._loop.now()
        for entry in segment.entries:
            if entry.copying or entry.doomed or now < entry.kept_until:
                return False
            if entry.file is None and self._spiller.is_paused:
                return False
            if not self._table.is_unused(entry):
                return False
        return True

    def _take_out(self, segment: Segment) -> list[Entry]:
        """Take what is on disk already out of memory; return what has to be written first."""
        unwritten = []
        for entry in list(segment.entries):
            if entry.copying or entry.doomed:
                continue
            if entry.file is not None:
                outgoing = self._table.evict(entry)
                self._send(outgoing or [])
            elif not self._spiller.is_paused and self._table.begin_copy(entry):
                unwritten.append(entry)
        return unwritten

    def _advance(self, segment: Segment) -> None:
        """Go on with a segment that is being emptied, or give up on it."""
        if not self._table.exists(segment):
            del self._evicting[segment]
            return
        now = self._loop.now()
        if any(entry.copying for entry in segment.entries):
            self._evicting[segment] = now + GIVE_BACK_SECONDS
            return
        # What has been announced since, or was looked at for a moment.
        unwritten = self._take_out(segment)
        self._spiller.spill(unwritten)
        if not unwritten and (segment.entries or now > self._evicting[segment]):
            segment.evicting = False
            del self._evicting[segment]

    def _thin(self, request: Request) -> bool:
        """Make holes for a small object where its own writer can use them."""
        if request.thinning or request.size > self._table.slab_bytes or self._spiller.is_paused:
            return bool(request.thinning)
        now = self._loop.now()
        found: list[Entry] = []
        bytes_found = 0
        mine = [
            segment
            for segment in self._table.segments()
            if segment.writer == request.process_id and not segment.retired
        ]
        for segment in sorted(mine, key=lambda segment: segment.used):
            for entry in sorted(segment.entries, key=lambda entry: entry.used):
                if bytes_found >= request.size:
                    break
                if entry.doomed or entry.copying or now < entry.kept_until:
                    continue
                if entry.file is not None:
                    outgoing = self._table.evict(entry)
                    if outgoing is None:
                        continue
                    self._send(outgoing)
                elif not self._table.begin_copy(entry):
                    continue
                found.append(entry)
                bytes_found += HEADER_SIZE + entry.size
        self._spiller.spill([entry for entry in found if entry.copying])
        request.thinning = found
        return bool(found)
