"""Brings objects here from other nodes, and sends them there.

The daemon that needs an object asks the one that has it for chunks, several at a time, over a
connection of their own (``ChunkLinks``), and writes them into memory that it allocates itself.
The node of the object's owner knows of every copy: it is told before one is made, says who else
has one, and has all of them freed when the owner frees the object.  So nothing but the owner's
end makes a copy outlive the object.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable

from skate.ids import owner_of
from skate.runtime.head.view import ClusterView
from skate.runtime.node.chunk_links import ChunkLinks
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.links import Link
from skate.runtime.node.loop import Loop
from skate.runtime.node.objects import Found, NodeObjects
from skate.runtime.store.entries import Segment
from skate.runtime.store.header import HEADER_SIZE, header, is_there
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.messages import Location, ObjectFreed
from skate.runtime.wire.transfers import (
    CHUNK_SIZE,
    ChunkFailed,
    CopyNoted,
    FreeCopy,
    NoteCopy,
    ObjectChunk,
    PullChunk,
)

#: Chunks that one node may have to send us at a time, of all objects together.
WINDOW = 8
#: When the connection to a node ends that is not known to be gone, an object is asked for again
#: after so many seconds, so many times.  By then the head has given up a node that is gone.
RETRY_SECONDS = 0.25
MOST_RETRIES = 20


class _Pull:
    """An object on its way here."""

    __slots__ = (
        "allocating",
        "arrived",
        "found",
        "hint",
        "noted",
        "object_id",
        "offset",
        "outstanding",
        "owner_node",
        "reason",
        "requested",
        "retries",
        "segment",
        "source",
        "sources",
        "started",
    )

    def __init__(
        self, object_id: bytes, hint: Location, owner_node: bytes, reason: str, found: Found
    ) -> None:
        self.object_id = object_id
        self.hint = hint
        self.owner_node = owner_node
        self.found = found
        #: Room for it was asked for.
        self.allocating = False
        #: Where it goes, once there is room.
        self.segment: Segment | None = None
        self.offset = 0
        #: The node that sends it, and those to try if that one fails.
        self.source = b""
        self.sources: deque[bytes] = deque([hint.node_id])
        #: Bytes that were asked for, and that have come.
        self.requested = 0
        self.arrived = 0
        #: Where the chunks begin that were asked for and have not come.
        self.outstanding: set[int] = set()
        #: The owner's node knows of the copy.
        self.noted = False
        #: Why the last source failed.
        self.reason = reason
        #: How often the connection to a source has ended.
        self.retries = 0
        self.started = time.perf_counter()


class Transfers:
    """All objects on their way to or from this node."""

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        links: ClusterLinks,
        view: ClusterView,
        objects: NodeObjects,
        node_of: Callable[[bytes], bytes | None],
    ) -> None:
        """``node_of(process_id)``: the node of a living process."""
        self._loop = loop
        self._node_id = node_id
        self._links = links
        self.chunk_links = ChunkLinks(loop, links, view, self.interrupted)
        self._objects = objects
        self._table = objects.table
        self._node_of = node_of
        self._pulls: dict[bytes, _Pull] = {}
        #: Chunks that each node has been asked for and has not sent, and who wants more from it.
        self._in_flight: dict[bytes, int] = {}
        self._hungry: dict[bytes, deque[_Pull]] = {}
        #: Of objects whose owners are here: the nodes with copies.
        self._copies: dict[bytes, set[bytes]] = {}
        #: Told of each object that has come: since when, and what.
        self.on_moved: Callable[[str, float, str], None] = lambda kind, started, what: None
        objects.pull = self.pull
        objects.on_freed = self._freed

    # ------------------------------------------------------------------ pulling

    def pull(self, object_id: bytes, hint: Location, lost: str, found: Found) -> None:
        """Bring an object here; see ``NodeObjects.pull``."""
        owner_node = self._node_of(owner_of(object_id))
        if owner_node is None:
            found(None, "its owner has died")
            return
        is_here = hint.node_id == self._node_id
        if not is_here:
            lost = f"its only copy was on node {hint.node_id.hex()}, which is gone"
        pull = self._pulls[object_id] = _Pull(object_id, hint, owner_node, lost, found)
        if is_here:
            # Gone from here; so whether it is worth room depends on whether there is a copy.
            pull.sources.clear()
        else:
            self._allocate(pull)
        if self._pulls.get(object_id) is not pull:
            return  # there is no room
        if owner_node != self._node_id:
            self._links.send(owner_node, NoteCopy(object_id))
            return
        others = sorted(self._copies.get(object_id, ()))
        if not is_here:
            # The owner will name this node as the place of the object, and no longer that one.
            self._copies.setdefault(object_id, set()).add(hint.node_id)
        self._note(pull, others)

    def _allocate(self, pull: _Pull) -> None:
        pull.allocating = True
        self._objects.allocate(
            pull.hint.size, lambda place, error: self._placed(pull, place, error)
        )

    def _placed(self, pull: _Pull, place: tuple[Segment, int] | None, error: str) -> None:
        if self._pulls.get(pull.object_id) is not pull:
            if place is not None:
                self._objects.arena.free(place[0].segment_id, place[1])
        elif place is None:
            self._fail(pull, error)
        else:
            pull.segment, pull.offset = place
            self._start(pull)

    def noted(self, _link: Link, message: CopyNoted) -> None:
        """The owner's node knows of a copy that we make."""
        pull = self._pulls.get(message.object_id)
        if pull is not None and not pull.noted:
            self._note(pull, message.others)

    def _note(self, pull: _Pull, others: Iterable[bytes]) -> None:
        pull.noted = True
        pull.sources.extend(n for n in others if n not in (self._node_id, pull.hint.node_id))
        if pull.segment is None:
            if not pull.allocating:
                if pull.sources:
                    self._allocate(pull)
                else:
                    self._fail(pull, pull.reason)
            return
        if not pull.source:
            self._start(pull)
        else:
            self._finish_if_complete(pull)

    def _start(self, pull: _Pull) -> None:
        """Ask the next node that may have the object."""
        while pull.sources:
            source = pull.sources.popleft()
            if source in self._links.by_process:
                pull.source = source
                pull.requested = pull.arrived = 0
                pull.outstanding.clear()
                self._hungry.setdefault(source, deque()).append(pull)
                self._feed(source)
                self._finish_if_complete(pull)
                return
        pull.source = b""
        if pull.noted:
            self._fail(pull, pull.reason)

    def _feed(self, source: bytes) -> None:
        """Ask a node for as many chunks as it may have to send, in turns if for several objects."""
        hungry = self._hungry.get(source)
        while hungry and self._in_flight.get(source, 0) < WINDOW:
            pull = hungry.popleft()
            left = pull.hint.size - pull.requested
            if pull.source != source or self._pulls.get(pull.object_id) is not pull or left <= 0:
                continue
            length = min(CHUNK_SIZE, left)
            request = PullChunk(pull.object_id, pull.requested, length, pull.hint)
            self.chunk_links.ask(source, request)
            pull.outstanding.add(pull.requested)
            pull.requested += length
            self._in_flight[source] = self._in_flight.get(source, 0) + 1
            hungry.append(pull)

    def _answered(self, source: bytes) -> None:
        self._in_flight[source] = max(self._in_flight.get(source, 0) - 1, 0)

    def chunk(self, link: Link, message: ObjectChunk) -> None:
        """Some bytes have come.

        Raises:
            ProtocolError: They are not what was asked for.
        """
        source = link.process_id
        self.chunk_links.check_source(link)
        self._answered(source)
        pull = self._pulls.get(message.object_id)
        if pull is not None and pull.source == source and message.start in pull.outstanding:
            expected = min(CHUNK_SIZE, pull.hint.size - message.start)
            if len(message.data) != expected:
                raise ProtocolError(f"it sent {len(message.data)} bytes instead of {expected}")
            pull.outstanding.discard(message.start)
            assert pull.segment is not None
            where = pull.offset + HEADER_SIZE + message.start
            os.pwrite(pull.segment.fd, message.data, where)
            pull.arrived += expected
            self._finish_if_complete(pull)
        self._feed(source)

    def chunk_failed(self, link: Link, message: ChunkFailed) -> None:
        """A node does not have what it was asked for.

        Raises:
            ProtocolError: That node was not asked.
        """
        source = link.process_id
        self.chunk_links.check_source(link)
        self._answered(source)
        pull = self._pulls.get(message.object_id)
        if pull is not None and pull.source == source and message.start in pull.outstanding:
            pull.reason = f"node {source.hex()} does not have it any more: {message.reason}"
            self._start(pull)
        self._feed(source)

    def interrupted(self, source: bytes) -> None:
        """The connection to a node has ended: ask again, unless it is gone itself."""
        self._in_flight.pop(source, None)
        self._hungry.pop(source, None)
        for pull in [p for p in self._pulls.values() if p.source == source]:
            pull.outstanding.clear()
            pull.reason = f"the connection to node {source.hex()}, which had it, ended"
            pull.retries += 1
            if pull.retries > MOST_RETRIES:
                self._start(pull)
            else:
                self._loop.call_later(RETRY_SECONDS, functools.partial(self._retry, pull, source))

    def _retry(self, pull: _Pull, source: bytes) -> None:
        if self._pulls.get(pull.object_id) is pull and pull.source == source:
            pull.sources.appendleft(source)
            self._start(pull)

    def _finish_if_complete(self, pull: _Pull) -> None:
        if not pull.noted or pull.arrived < pull.hint.size:
            return
        object_id, segment = pull.object_id, pull.segment
        assert segment is not None
        del self._pulls[object_id]
        location = self._table.locate(object_id)
        if location is None:
            os.pwrite(segment.fd, header(object_id, pull.hint.size), pull.offset)
            location, outgoing = self._table.pulled(object_id, pull.hint, segment, pull.offset)
            self._objects.send(outgoing)
            what = f"object {object_id.hex()} ({pull.hint.size} bytes) from {pull.source.hex()}"
            self.on_moved("transfer", pull.started, what)
        else:
            # The task that makes it ran once more, here.
            self._objects.arena.free(segment.segment_id, pull.offset)
        pull.found(location, "")

    def _fail(self, pull: _Pull, reason: str) -> None:
        del self._pulls[pull.object_id]
        if pull.segment is not None:
            self._objects.arena.free(pull.segment.segment_id, pull.offset)
        pull.found(None, reason)

    # ------------------------------------------------------------------ sending

    def wanted(self, link: Link, message: PullChunk) -> None:
        """Another node wants some bytes of an object.

        Raises:
            ProtocolError: There can be no such bytes.
        """
        start, size = message.start, message.location.size
        if start < 0 or not 0 <= message.length <= min(CHUNK_SIZE, size - start):
            raise ProtocolError("it wants bytes outside of an object")
        self._look_for(link, message)

    def _look_for(self, link: Link, message: PullChunk) -> None:
        object_id, size = message.object_id, message.location.size

        def found(location: Location | None, reason: str) -> None:
            if location is None:
                self.chunk_links.fail(link, message, reason)
            else:
                self.chunk_links.send(
                    link,
                    message,
                    functools.partial(self._read, message, location),
                    lambda: self._look_for(link, message),
                )

        entry = self._table.find(object_id)
        if entry is None and self._table.lies_at(object_id, message.location):
            # Its writer is about to announce it.
            found(message.location, "")
        elif entry is None or entry.size != size:
            found(None, "it was freed or lost")
        else:
            self._objects.find(object_id, Location(self._node_id, 0, 0, size), found)

    def _read(self, message: PullChunk, location: Location, space: memoryview) -> bool:
        """Read what was asked for; False if the object was moved or freed meanwhile."""
        segment = self._table.find_segment(location)
        if segment is None:
            return False
        where = location.offset + HEADER_SIZE + message.start
        # Memory is wiped before it is used again: what was read before that is good.
        return os.preadv(segment.fd, [space], where) == len(space) and is_there(
            segment.fd, location.offset, message.object_id, location.size
        )

    # ------------------------------------------------------------------ copies

    def note_copy(self, link: Link, message: NoteCopy) -> None:
        """Another node is about to have a copy of an object whose owner is here."""
        object_id, node_id = message.object_id, link.process_id
        copies = self._copies.setdefault(object_id, set())
        others = sorted(copies - {node_id})
        copies.add(node_id)
        if self._table.find(object_id) is not None:
            others.append(self._node_id)
        self._links.send(node_id, CopyNoted(object_id, others))

    def _freed(self, message: ObjectFreed) -> None:
        """A process of ours has freed an object of its own."""
        pull = self._pulls.get(message.object_id)
        if pull is not None:
            self._fail(pull, "it was freed")
        nodes = self._copies.pop(message.object_id, set())
        nodes.add(message.location.node_id)
        for node_id in nodes:
            if node_id != self._node_id:
                self._links.send(node_id, FreeCopy(message.object_id, message.location))

    def free_copy(self, _link: Link, message: FreeCopy) -> None:
        """The owner of something that is here, a process of another node, has freed it."""
        pull = self._pulls.get(message.object_id)
        if pull is not None:
            self._fail(pull, "it was freed")
        self._objects.send(
            self._table.object_freed(ObjectFreed(message.object_id, message.location))
        )

    # ------------------------------------------------------------------ deaths

    def process_died(self, process_id: bytes) -> None:
        """A process is gone: what it owned is of no use to anybody."""
        for object_id in [i for i in self._copies if owner_of(i) == process_id]:
            del self._copies[object_id]
        for pull in [p for p in self._pulls.values() if owner_of(p.object_id) == process_id]:
            self._fail(pull, "its owner has died")

    def node_left(self, node_id: bytes) -> None:
        """A node is gone: go on with other copies, if there are any."""
        self.chunk_links.node_left(node_id)
        self._in_flight.pop(node_id, None)
        self._hungry.pop(node_id, None)
        for copies in self._copies.values():
            copies.discard(node_id)
        for pull in [p for p in self._pulls.values() if p.source == node_id]:
            pull.reason = f"node {node_id.hex()}, which had it, died"
            self._start(pull)
