"""A process's end of the shared-memory store: writes objects, opens views of them.

Writing an object is an allocation in a segment that this process already holds, and one copy.
Only when no segment has room does it ask the daemon.  Memory whose objects are gone is kept and
used again first, because its pages are there: copying into fresh pages is several times slower.
"""

from __future__ import annotations

import threading
from collections import deque

from skate.exceptions import (
    NodeDiedError,
    NotSupportedError,
    ObjectLostError,
    ObjectStoreFullError,
    SessionError,
)
from skate.runtime.store.link import StoreLink
from skate.runtime.store.segment import Descriptor, Mapping
from skate.runtime.store.written import MIB, WrittenSegment
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

#: Sizes of the first slab and of the later ones.  Most processes write little: the first is small.
FIRST_SLAB = 32 * MIB
LATER_SLABS = 64 * MIB
#: Bytes of entirely free segments that are kept for the next objects.  The segment that became
#: free last is kept in any case, so that replacing one huge object again and again runs in warm
#: memory.
KEEP_FREE = 256 * MIB
#: A large object may take a free segment that is larger than itself by this factor.
MAX_SLACK = 1.25


class StoreClient:
    """Shared memory of one process.  All methods may be called from any thread.

    ``free`` and ``retire`` never wait for the lock: they may be called by a finalizer that the
    garbage collector runs while the very same thread holds it.  What they ask for is done by
    whoever has it.
    """

    def __init__(self, address: str, node_id: bytes, process_id: bytes) -> None:
        """Prepare; nothing is opened before the first large object.

        Args:
            address: path of the daemon's store socket.
            node_id: of this host; locations elsewhere are refused.
            process_id: of this process.
        """
        self._address = address
        #: May be set later, when the daemon has said it.
        self.node_id = node_id
        self._process_id = process_id
        self._lock = threading.Lock()
        self._link: StoreLink | None = None
        self._closed = False
        #: Segments that this process writes.
        self._written: dict[int, WrittenSegment] = {}
        #: Those of them that take many objects, and those with nothing in them, oldest first.
        self._slabs: list[WrittenSegment] = []
        self._idle: dict[int, WrittenSegment] = {}
        #: What was idle at the last ``trim``.
        self._idle_before: set[int] = set()
        #: Every segment mapped here, written or not.
        self._mappings: dict[int, Mapping] = {}
        #: Segment being mapped by ``open``, and whether it was retired meanwhile.
        self._opening = 0
        self._opening_retired = False
        #: Work left by ``free`` and ``retire`` for whoever holds the lock.
        self._freed: deque[Location] = deque()
        self._retired: deque[int] = deque()

    # ----------------------------------------------------------------- objects

    def write(self, serialized: Serialized) -> Location:
        """Copy an object into shared memory and return where it is.

        Raises:
            ObjectStoreFullError: there is no room for it.
            NodeDiedError: the daemon had to be asked and is gone.
            SessionError: the client has been closed.
        """
        size = serialized.size
        with self._lock:
            self._settle()
            segment, offset = self._allocate(size)
            copy = segment.prepare(offset, size)
        location = Location(self.node_id, segment.segment_id, offset, size)
        try:
            copy(serialized)
        except OSError as error:
            self.free(location)
            raise ObjectStoreFullError(
                f"the machine has no memory left for an object of {size} bytes: {error}"
            ) from error
        except BaseException:
            self.free(location)
            raise
        return location

    def open(self, location: Location, pin: object) -> memoryview:
        """Return a read-only view of an object.

        ``pin`` is kept alive for as long as the view or anything made from it.

        Raises:
            ObjectLostError: the segment is gone, because its writer and the object's owner are.
            NotSupportedError: the object is on another node.
        """
        mapping = self._mappings.get(location.segment_id)
        if mapping is None or location.node_id != self.node_id:
            mapping = self._map(location)
        try:
            return mapping.pinned_view(location.offset, location.size, pin)
        except ValueError as error:
            raise ObjectLostError(f"the location of the object is wrong: {error}") from None

    def is_writer(self, location: Location) -> bool:
        """Return whether this process writes the segment that holds the object."""
        return location.segment_id in self._written and location.node_id == self.node_id

    def free(self, location: Location) -> None:
        """Use the memory of an object again.  Nobody may hold a view of it any more.

        A location that is not (or no longer) in a segment written here is ignored.
        """
        self._freed.append(location)
        self._settle_unless_busy()

    def retire(self, segment_id: int) -> None:
        """Do not use a segment for new objects; unmap it when nothing in it is in use here."""
        self._retired.append(segment_id)
        self._settle_unless_busy()

    def trim(self) -> None:
        """Give back what has been idle since the previous call; for a timer of some seconds."""
        with self._lock:
            self._settle()
            for segment_id in self._idle_before.intersection(self._idle):
                self._give_back(self._idle[segment_id])
            self._idle_before = set(self._idle)

    def close(self) -> None:
        """Disconnect.  Views stay valid; writing and opening raise from now on."""
        link = self._link
        if link is not None:
            link.interrupt()  # or the lock might be held by a thread that waits for an answer
        with self._lock:
            self._closed = True
            self._disconnect()
            self._written.clear()
            self._slabs.clear()
            self._idle.clear()
            self._mappings.clear()

    # ----------------------------------------------------------------- with the lock held

    def _settle_unless_busy(self) -> None:
        while (self._freed or self._retired) and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Do what ``free`` and ``retire`` asked for."""
        while self._retired:
            self._retire(self._retired.popleft())
        while self._freed:
            location = self._freed.popleft()
            segment = self._written.get(location.segment_id)
            if segment is None or location.node_id != self.node_id:
                continue
            if segment.free(location.offset, location.size) and segment.is_empty:
                self._on_empty(segment)

    def _retire(self, segment_id: int) -> None:
        if segment_id == self._opening:
            self._opening_retired = True
        segment = self._written.get(segment_id)
        if segment is None:
            # Views hold the mapping themselves; without any this unmaps it.
            self._mappings.pop(segment_id, None)
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
        excess = sum(idle.size for idle in self._idle.values()) - KEEP_FREE
        for idle in list(self._idle.values())[:-1]:
            if excess <= 0:
                break
            excess -= idle.size
            self._give_back(idle)

    def _allocate(self, size: int) -> tuple[WrittenSegment, int]:
        if self._closed:
            raise SessionError("the session of this object store has ended")
        if size <= LATER_SLABS // 2:
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
        slab_size = LATER_SLABS if self._slabs else FIRST_SLAB
        exact = -(-size // MIB) * MIB
        while True:
            is_small = size <= slab_size // 2
            # Little memory may be left for a slab, but enough for some objects.
            sizes = (slab_size, slab_size // 4, exact) if is_small else (exact,)
            for wanted in sizes:
                if wanted < exact:
                    continue
                segment, refusal = self._ask_for(wanted)
                if segment is not None:
                    if is_small:
                        self._slabs.append(segment)
                    return segment
            if not self._idle:
                raise ObjectStoreFullError(
                    f"no room for an object of {size} bytes: {refusal}. "
                    "Drop refs and arrays that you no longer need, or give the store more memory: "
                    "init(object_store_memory=...)"
                )
            for idle in list(self._idle.values()):
                self._give_back(idle)

    def _ask_for(self, size: int) -> tuple[WrittenSegment | None, str]:
        answer, fd = self._exchange(AcquireSegment(size))
        if fd is None:
            return None, answer.error or "the node daemon sent no descriptor"
        descriptor = Descriptor(fd)
        try:
            mapping = Mapping(fd, answer.size, writable=True)
        except (OSError, ValueError) as error:
            self._exchange(GiveBackSegment(answer.segment_id))
            return None, str(error)
        segment = WrittenSegment(answer.segment_id, mapping, descriptor)
        self._written[answer.segment_id] = segment
        self._mappings[answer.segment_id] = mapping
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
        self._mappings.pop(segment.segment_id, None)
        if segment in self._slabs:
            self._slabs.remove(segment)

    # ----------------------------------------------------------------- the daemon

    def _map(self, location: Location) -> Mapping:
        segment_id = location.segment_id
        if location.node_id != self.node_id:
            raise NotSupportedError(
                f"the object is on node {location.node_id.hex()}; objects are not yet transferred"
            )
        with self._lock:
            self._settle()
            mapping = self._mappings.get(segment_id)
            if mapping is not None:
                return mapping
            if self._closed:
                raise SessionError("the session of this object store has ended")
            self._opening, self._opening_retired = segment_id, False
            try:
                answer, fd = self._exchange(MapSegment(segment_id))
                if fd is None:
                    raise ObjectLostError(f"the object's memory is gone: {answer.error}")
                descriptor = Descriptor(fd)
                try:
                    mapping = Mapping(descriptor.fd, answer.size, writable=False)
                except (OSError, ValueError) as error:
                    raise ObjectStoreFullError(str(error)) from error
                self._settle()
                if not self._opening_retired:
                    self._mappings[segment_id] = mapping
            finally:
                self._opening = 0
            return mapping

    def _exchange(self, request: StoreRequest) -> tuple[SegmentAnswer, int | None]:
        try:
            if self._link is None:
                self._link = StoreLink(self._address, self._process_id)
            return self._link.request(request)
        except (OSError, ProtocolError) as error:
            self._disconnect()
            raise NodeDiedError(
                f"the node daemon's object store cannot be reached: {error}"
            ) from error
        except BaseException:
            # Interrupted between request and answer: the next one must not read this answer.
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
