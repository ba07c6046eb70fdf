"""A process's end of the shared-memory store: writes objects, opens views of them.

Writing an object is an allocation in a segment that this process already holds, and one copy.
Only when no segment has room does it ask the daemon.  Memory whose objects are gone is kept and
used again first, because its pages are there: copying into fresh pages is several times slower.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from skate.exceptions import NodeDiedError, ObjectStoreFullError, SessionError
from skate.runtime.store.header import HEADER_SIZE, reopen
from skate.runtime.store.link import StoreLink
from skate.runtime.store.opened import OpenSegment
from skate.runtime.store.segment import SLAB_BYTES, Descriptor, Mapping, slab_size
from skate.runtime.store.written import WrittenSegment
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.messages import (
    AcquireSegment,
    GiveBackSegment,
    Location,
    MapSegment,
    SegmentAnswer,
    StoreRequest,
)
from skate.serialization import Serialized

T = TypeVar("T")

#: Segments are multiples of this many bytes.
STEP = 64 * 1024
#: Bytes of entirely free segments that are kept for the next objects.  The segment that became
#: free last is kept in any case, so that replacing one huge object again and again runs in warm
#: memory.
KEEP_FREE = 256 * 1024 * 1024
#: A large object may take a free segment that is larger than itself by this factor.
MAX_SLACK = 1.25


class NoRoomError(Exception):
    """The daemon has no segment of ``size`` bytes: ask it for room."""

    def __init__(self, size: int, reason: str) -> None:
        super().__init__(reason)
        self.size = size


class NotHereError(Exception):
    """A location does not hold the object, or no longer: ask the daemon where it is."""


class Pin:
    """Keeps an object where it is for as long as anything made from its view lives."""

    __slots__ = ("client", "keep", "offset", "opened")

    def __init__(self, client: StoreClient, opened: OpenSegment, offset: int, keep: object) -> None:
        self.client = client
        self.opened = opened
        self.offset = offset
        #: Released after the pin itself.
        self.keep = keep

    def __del__(self) -> None:
        self.client.unpin(self.opened, self.offset)


class StoreClient:
    """Shared memory of one process.  All methods may be called from any thread.

    ``free``, ``retire`` and the ends of views never wait for the lock: a finalizer that the garbage
    collector runs may come to them while the very same thread holds it.  What they ask for is done
    by whoever has it.
    """

    def __init__(self, address: str, node_id: bytes, process_id: bytes) -> None:
        """Prepare; nothing is opened before the first large object.

        Args:
            address: path of the daemon's store socket.
            node_id: of this host; objects elsewhere are not here.
            process_id: of this process.
        """
        self._address = address
        #: May be set later, when the daemon has said it.
        self.node_id = node_id
        self._process_id = process_id
        self._lock: Any = threading.RLock()
        #: Called, without the lock, whenever a method has done its work: signals that came
        #: meanwhile may be handled now.
        self.safe_point: Callable[[], None] = lambda: None
        #: How the daemon has ended, where that is known.
        self.node_ended: Callable[[], str] = lambda: "has ended"
        self._link: StoreLink | None = None
        self._closed = False
        #: Size of segments for many objects, and how much free memory is kept for the next ones.
        self.slab_bytes = SLAB_BYTES
        self.keep_free = KEEP_FREE
        #: This process is a fork of the one whose store it is.
        self.abandoned = False
        #: Segments that this process writes.
        self._written: dict[int, WrittenSegment] = {}
        #: Those of them that take many objects, and those with nothing in them, oldest first.
        self._slabs: list[WrittenSegment] = []
        self._idle: dict[int, WrittenSegment] = {}
        #: What was idle at the last ``trim``.
        self._idle_before: set[int] = set()
        #: Every segment mapped here, written or not.
        self._opened: dict[int, OpenSegment] = {}
        #: Objects that were opened since somebody has looked here, and emptied it.
        self.used: set[bytes] = set()
        #: Segment being mapped by ``open``, and whether it was retired meanwhile.
        self._opening = 0
        self._opening_retired = False
        #: Work left by finalizers and the like for whoever holds the lock: ``settle``.
        self._unpinned: deque[tuple[OpenSegment, int]] = deque()
        self._taken: deque[tuple[bytes, Location]] = deque()
        self._freed: deque[Location] = deque()
        self._retired: deque[int] = deque()

    def set_limit(self, limit_bytes: int) -> None:
        """Adapt to a store of so many bytes."""
        self.slab_bytes = slab_size(limit_bytes)
        self.keep_free = min(KEEP_FREE, limit_bytes // 8)

    # ----------------------------------------------------------------- objects

    def write(self, object_id: bytes, serialized: Serialized) -> Location:
        """Copy an object into shared memory and return where it is.

        Raises:
            NoRoomError: there is no room for it now.
            ObjectStoreFullError: the machine's memory is full.
            NodeDiedError: the daemon had to be asked and is gone.
            SessionError: the client has been closed.
        """
        size = serialized.size

        def prepare() -> tuple[WrittenSegment, int, Callable[[Serialized], None]]:
            segment, offset = self._allocate(size)
            return segment, offset, segment.prepare(offset, object_id, size)

        segment, offset, copy = self._run(prepare)
        location = Location(self.node_id, segment.segment_id, offset, size)
        try:
            copy(serialized)
            self.safe_point()
        except OSError as error:
            self.free(location)
            raise ObjectStoreFullError(
                f"the machine has no memory left for an object of {size} bytes: {error}"
            ) from error
        except BaseException:
            self.free(location)
            raise
        return location

    def open(self, location: Location, object_id: bytes, keep: object) -> memoryview:
        """Return a read-only view of an object, which pins it.

        ``keep`` is kept alive for as long as the view or anything made from it.

        Raises:
            NotHereError: the object is not at this location, or not any more.
            NodeDiedError: the daemon had to be asked and is gone.
            SessionError: the client has been closed.
        """
        if location.node_id != self.node_id:
            raise NotHereError
        view = self._run(lambda: self._view(location, object_id, keep))
        self.safe_point()
        return view

    def _view(self, location: Location, object_id: bytes, keep: object) -> memoryview:
        opened = self._opened.get(location.segment_id) or self._map(location.segment_id)
        if not opened.pin(location.offset, object_id, location.size):
            raise NotHereError
        self.used.add(object_id)
        pin = Pin(self, opened, location.offset, keep)
        return opened.view(location.offset, location.size, pin)

    def is_writer(self, location: Location) -> bool:
        """Return whether this process writes the segment that holds the object."""
        return location.segment_id in self._written and location.node_id == self.node_id

    def take(self, object_id: bytes, location: Location) -> None:
        """Use the memory of an object of our own again, if it still lies where it was written.

        Otherwise the daemon has moved it, or is about to, and calls for ``free`` itself.
        """
        self._taken.append((object_id, location))
        self.settle_unless_busy()

    def free(self, location: Location) -> None:
        """Use memory again whose header is wiped.

        A location that is not (or no longer) in a segment written here is ignored.
        """
        self._freed.append(location)
        self.settle_unless_busy()

    def unpin(self, opened: OpenSegment, offset: int) -> None:
        """A view has died."""
        self._unpinned.append((opened, offset))
        self.settle_unless_busy()

    def retire(self, segment_id: int) -> None:
        """Do not use a segment for new objects; unmap it when nothing in it is in use here."""
        self._retired.append(segment_id)
        self.settle_unless_busy()

    def trim(self) -> None:
        """Give back what has been idle since the previous call; for a timer of some seconds."""
        self._run(self._trim)

    def _trim(self) -> None:
        for segment_id in self._idle_before.intersection(self._idle):
            self._give_back(self._idle[segment_id])
        self._idle_before = set(self._idle)

    def close(self) -> None:
        """Disconnect.  Views stay valid; writing and opening raise from now on."""
        link = self._link
        if link is not None:
            link.interrupt()  # or the lock might be held by a thread that waits for an answer
        self._run(self._close)

    def _close(self) -> None:
        self._closed = True
        self._disconnect()
        self._written.clear()
        self._slabs.clear()
        self._idle.clear()
        self._opened.clear()

    def abandon(self) -> None:
        """After a fork, in the child: the parent's locks are shared with it, do not touch them."""
        self.abandoned = True

    # ----------------------------------------------------------------- the lock

    def is_busy(self) -> bool:
        """Whether the calling thread is inside of this client: no signal must tear it."""
        return bool(self._lock._is_owned())

    def _run(self, function: Callable[[], T]) -> T:
        """Call ``function`` with the lock held, and do what others have left meanwhile."""
        if self._lock._is_owned():
            raise RuntimeError(
                "Skate's objects cannot be used here: this code (a finalizer or signal handler) has"
                " interrupted Skate itself in this thread"
            )
        if self.abandoned:
            raise SessionError("the object store of a forked process stays with its parent")
        try:
            with self._lock:
                self.settle()
                return function()
        finally:
            if self.left_to_do:
                self.settle_unless_busy()

    @property
    def left_to_do(self) -> bool:
        """Whether ``settle`` has something to do."""
        return bool(self._unpinned or self._freed or self._taken or self._retired)

    def settle_unless_busy(self) -> None:
        """Settle, unless somebody has the lock, who then does."""
        lock = self._lock
        while self.left_to_do and not self.abandoned and not lock._is_owned():
            if not lock.acquire(blocking=False):
                return
            try:
                self.settle()
            finally:
                lock.release()

    # ----------------------------------------------------------------- with the lock held

    def settle(self) -> None:
        """Do what finalizers and the like have left."""
        self._unlock()
        while self._retired:
            self._retire(self._retired.popleft())
        while self._taken:
            object_id, location = self._taken.popleft()
            # Its last view has died before: unlock what that left, if it has not been done yet.
            self._unlock()
            segment = self._writes(location)
            if segment is not None and segment.take(location.offset, object_id, location.size):
                self._reuse(segment, location.offset)
        while self._freed:
            location = self._freed.popleft()
            segment = self._writes(location)
            if segment is not None and segment.holds(location.offset, location.size):
                self._reuse(segment, location.offset)

    def _unlock(self) -> None:
        while self._unpinned:
            opened, offset = self._unpinned.popleft()
            opened.unpin(offset)

    def _writes(self, location: Location) -> WrittenSegment | None:
        return self._written.get(location.segment_id) if location.node_id == self.node_id else None

    def _reuse(self, segment: WrittenSegment, offset: int) -> None:
        segment.free(offset)
        if segment.is_empty:
            self._on_empty(segment)

    def _retire(self, segment_id: int) -> None:
        if segment_id == self._opening:
            self._opening_retired = True
        segment = self._written.get(segment_id)
        if segment is None:
            # Views hold it themselves; without any this unmaps it.
            self._opened.pop(segment_id, None)
            return
        segment.retired = True
        if segment in self._slabs:
            self._slabs.remove(segment)
        if segment.is_empty:
            self._give_back(segment)

    def _on_empty(self, segment: WrittenSegment) -> None:
        if segment.retired:
            self._give_back(segment)
            return
        self._idle[segment.segment_id] = segment
        excess = sum(idle.size for idle in self._idle.values()) - self.keep_free
        for idle in list(self._idle.values())[:-1]:
            if excess <= 0:
                break
            excess -= idle.size
            self._give_back(idle)

    def _allocate(self, size: int) -> tuple[WrittenSegment, int]:
        if self._closed:
            raise SessionError("the session of this object store has ended")
        if size + HEADER_SIZE <= self.slab_bytes // 2:
            candidates = [slab for slab in self._slabs if slab.largest_free >= size]
        else:
            candidates = []
        candidates += sorted(
            (idle for idle in self._idle.values() if size <= idle.size <= size * MAX_SLACK),
            key=lambda idle: idle.size,
        )
        for segment in candidates:
            offset = segment.allocate(size)
            if offset is not None:
                self._idle.pop(segment.segment_id, None)
                return segment, offset
        segment = self._acquire(size)
        offset = segment.allocate(size)
        if offset is None:
            raise ObjectStoreFullError(
                f"the node daemon made a segment of {segment.size} bytes for {size}"
            )
        return segment, offset

    def _acquire(self, size: int) -> WrittenSegment:
        """Become the writer of a new segment with room for ``size`` bytes."""
        # Most processes write little: the first slab is small.
        slab = self.slab_bytes if self._slabs else self.slab_bytes // 2
        exact = -(-(size + HEADER_SIZE) // STEP) * STEP
        while True:
            is_small = exact <= slab // 2
            # Little memory may be left for a slab, but enough for some objects.
            sizes = (slab, slab // 4, exact) if is_small else (exact,)
            for wanted in sizes:
                if wanted < exact:
                    continue
                segment, refusal = self._ask_for(wanted)
                if segment is not None:
                    if is_small:
                        self._slabs.append(segment)
                    return segment
            if not self._idle:
                raise NoRoomError(slab if is_small else exact, refusal)
            for idle in list(self._idle.values()):
                self._give_back(idle)

    def _ask_for(self, size: int) -> tuple[WrittenSegment | None, str]:
        answer, fd = self._exchange(AcquireSegment(size))
        if fd is None:
            return None, answer.error or "the node daemon sent no descriptor"
        try:
            opened = _open(answer.segment_id, Descriptor(fd), answer.size, writable=True)
        except (OSError, ValueError) as error:
            self._exchange(GiveBackSegment(answer.segment_id))
            return None, str(error)
        segment = self._written[answer.segment_id] = WrittenSegment(opened)
        self._opened[answer.segment_id] = opened
        return segment, ""

    def _give_back(self, segment: WrittenSegment) -> None:
        """Return an empty segment to the daemon."""
        self._idle.pop(segment.segment_id, None)
        try:
            answer, _ = self._exchange(GiveBackSegment(segment.segment_id))
        except SessionError:
            answer = SegmentAnswer(segment.segment_id, 0)  # with the daemon its store is gone, too
        if answer.error:
            # Somebody may still read it: keep it for our own objects, where it does no harm.
            return
        del self._written[segment.segment_id]
        self._opened.pop(segment.segment_id, None)
        if segment in self._slabs:
            self._slabs.remove(segment)

    # ----------------------------------------------------------------- the daemon

    def _map(self, segment_id: int) -> OpenSegment:
        if self._closed:
            raise SessionError("the session of this object store has ended")
        self._opening, self._opening_retired = segment_id, False
        try:
            answer, fd = self._exchange(MapSegment(segment_id))
            if fd is None:
                raise NotHereError
            try:
                opened = _open(segment_id, Descriptor(fd), answer.size, writable=False)
            except (OSError, ValueError) as error:
                raise ObjectStoreFullError(f"cannot map shared memory: {error}") from error
            self.settle()
            if not self._opening_retired:
                self._opened[segment_id] = opened
        finally:
            self._opening = 0
        return opened

    def _exchange(self, request: StoreRequest) -> tuple[SegmentAnswer, int | None]:
        try:
            if self._link is None:
                self._link = StoreLink(self._address, self._process_id)
            return self._link.request(request)
        except (OSError, ProtocolError) as error:
            self._disconnect()
            raise NodeDiedError(
                f"the node daemon's object store cannot be reached ({error}): the daemon"
                f" {self.node_ended()}"
            ) from error
        except BaseException:
            # Interrupted between request and answer: the next one must not read this answer.
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _open(segment_id: int, received: Descriptor, size: int, *, writable: bool) -> OpenSegment:
    """Map a segment whose descriptor the daemon has sent."""
    descriptor = Descriptor(reopen(received.fd, writable=writable))
    return OpenSegment(segment_id, descriptor, Mapping(descriptor.fd, size, writable=writable))
