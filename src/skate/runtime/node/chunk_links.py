"""Connections of their own for chunks, so that nothing else waits behind megabytes.

Whoever pulls opens one to the node that has the objects, at the first of them, and keeps it.
Requests go one way, chunks the other.  The loop handles one chunk of each connection per round, and
a chunk takes it less than a millisecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster_links import ClusterLink, ClusterLinks
from skate.runtime.node.links import Link
from skate.runtime.node.loop import Loop
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.transfers import CarryChunks, ChunkFailed, PullChunk

#: Reads the bytes that were asked for; False if they are not where they were any more.
Read = Callable[[memoryview], bool]


class _Answer:
    """What another node has asked for and is to be sent."""

    __slots__ = ("again", "message", "read")

    def __init__(self, message: PullChunk, read: Read, again: Callable[[], None]) -> None:
        self.message = message
        self.read = read
        self.again = again


class ChunkLinks:
    """All connections for chunks, of either direction."""

    def __init__(
        self,
        loop: Loop,
        links: ClusterLinks,
        view: ClusterView,
        on_interrupted: Callable[[bytes], None],
    ) -> None:
        """``on_interrupted(node_id)``: what that node was asked for will not come."""
        self._loop = loop
        self._links = links
        self._view = view
        self._on_interrupted = on_interrupted
        #: To the nodes that we pull from.
        self._sources: dict[bytes, Link] = {}
        #: From the nodes that pull from us, and what they are to be sent.
        self._answers: dict[ClusterLink, deque[_Answer]] = {}

    # ------------------------------------------------------------------ pulling

    def ask(self, source: bytes, message: PullChunk) -> None:
        """Ask a node that we know for a chunk."""
        link = self._sources.get(source)
        if link is None:
            node = self._view.get(source)
            try:
                if node is None:
                    raise OSError("it is gone")
                link = self._links.connect(node.info.address, for_chunks=True)
            except (OSError, ValueError):
                # Whoever asks is not ready to hear of it.
                self._loop.call_later(0.0, lambda: self._on_interrupted(source))
                return
            link.kind = "chunks"
            self._sources[source] = link
            self._links.queue(link, CarryChunks())
        self._links.queue(link, message)

    def check_source(self, link: Link) -> None:
        """Raise ProtocolError unless the link is one over which we pull."""
        if self._sources.get(link.process_id) is not link:
            raise ProtocolError("it is not the node that was asked for chunks")

    # ------------------------------------------------------------------ sending

    def opened(self, link: Link, _message: CarryChunks) -> None:
        """Another node wants to pull over this connection."""
        if link.kind or self._view.get(link.process_id) is None:
            raise ProtocolError("it is no node that could pull objects")
        assert isinstance(link, ClusterLink)
        link.kind = "chunks"
        self._answers[link] = deque()
        link.on_flushed = lambda: self._serve(link)

    def send(self, link: Link, message: PullChunk, read: Read, again: Callable[[], None]) -> None:
        """Send a chunk when its turn has come; ``again`` is called if it cannot be read then."""
        assert isinstance(link, ClusterLink)
        answers = self._answers.get(link)
        if answers is not None:
            answers.append(_Answer(message, read, again))
            self._serve(link)

    def fail(self, link: Link, message: PullChunk, reason: str) -> None:
        """Say that a chunk cannot be sent."""
        if link in self._answers:
            self._links.queue(link, ChunkFailed(message.object_id, message.start, reason))

    def _serve(self, link: ClusterLink) -> None:
        answers = self._answers.get(link)
        connection = link.connection
        while answers and connection.is_idle:
            answer = answers.popleft()
            message = answer.message
            if answer.read(connection.chunk_space(message.length)):
                connection.send_chunk(message.object_id, message.start, message.length)
                # In the next round, for others have something to say in this one.
                self._loop.want_write(link, True)
            else:
                answer.again()

    # ------------------------------------------------------------------ ends

    def closed(self, link: Link) -> None:
        """A connection for chunks has ended."""
        for source in [node_id for node_id, known in self._sources.items() if known is link]:
            del self._sources[source]
            self._on_interrupted(source)
        if isinstance(link, ClusterLink):
            self._answers.pop(link, None)

    def node_left(self, node_id: bytes) -> None:
        """A node is gone."""
        source = self._sources.pop(node_id, None)
        links = [link for link in self._answers if link.process_id == node_id]
        for link in [source, *links] if source is not None else links:
            self._links.close(link)
