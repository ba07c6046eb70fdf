"""What a node knows of one object, one segment, one spill file."""

from __future__ import annotations

from skate.ids import owner_of
from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.wire.messages import Location


class SpillFile:
    """A file of spilled objects."""

    __slots__ = ("name", "objects")

    def __init__(self, name: str) -> None:
        self.name = name
        #: How many of its objects are still needed.
        self.objects = 0


class Entry:
    """An object of this node: in memory, on disk or both; or an earlier copy of one, in memory."""

    __slots__ = (
        "copying",
        "created",
        "doomed",
        "file",
        "is_copy",
        "kept_until",
        "object_id",
        "offset",
        "owner",
        "places",
        "position",
        "segment",
        "size",
        "used",
    )

    def __init__(self, object_id: bytes, location: Location, created: str = "") -> None:
        self.object_id = object_id
        self.owner = owner_of(object_id)
        self.size = location.size
        #: Where in the user's program it was made.
        self.created = created
        #: Where it is in memory, and where in the segment its header begins.
        self.segment: Segment | None = None
        self.offset = 0
        #: Where it is on disk.  It stays there when it is read again: it never changes.
        self.file: SpillFile | None = None
        self.position = 0
        #: Where it has been said to be, from the first place on: its owner may know any of these.
        self.places = [location]
        #: It was brought here from another node.
        self.is_copy = False
        #: It is being written to disk: the daemon has its header locked as a reader.
        self.copying = False
        #: Nobody can ask for it any more; it goes as soon as nobody looks at it.
        self.doomed = False
        #: It stays in memory until then, so that who has asked for it can open it: monotonic time.
        self.kept_until = 0.0
        #: When it was last used, as far as the daemon has seen: a tick of the table's clock.
        self.used = 0

    def location(self, node_id: bytes) -> Location:
        """Return where in memory it is."""
        assert self.segment is not None
        return Location(node_id, self.segment.segment_id, self.offset, self.size)


class Segment:
    """One segment and what is in it, as far as its writer has said."""

    __slots__ = (
        "early_frees",
        "entries",
        "evicting",
        "fd",
        "fresh",
        "read_fd",
        "readers",
        "retired",
        "segment_id",
        "size",
        "writer",
    )

    def __init__(self, segment_id: int, fd: int, size: int, writer: bytes) -> None:
        self.segment_id = segment_id
        self.fd = fd
        #: For readers; made when the first one asks.
        self.read_fd = -1
        self.size = size
        #: None once the writer is dead.
        self.writer: bytes | None = writer
        #: Processes that have been sent the descriptor for reading.
        self.readers: set[bytes] = set()
        self.entries: set[Entry] = set()
        #: Objects, and where they are, that were freed before the writer's announcement arrived.
        self.early_frees: set[tuple[bytes, int]] = set()
        #: Nothing has been announced yet: its writer is just filling it.
        self.fresh = True
        #: The writer was told to put nothing more into it.
        self.retired = False
        #: It is being emptied, so that its memory goes to somebody who waits for it.
        self.evicting = False

    @property
    def used(self) -> int:
        """When anything in it was last used."""
        return max((entry.used for entry in self.entries), default=0)

    def contains(self, location: Location) -> bool:
        """Return whether there is room for such an object at such a place."""
        return (
            location.offset >= 0
            and location.size >= 0
            and location.offset + HEADER_SIZE + location.size <= self.size
        )
