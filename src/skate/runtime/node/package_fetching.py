"""Packages that another node has: asked for node by node, and pulled piece by piece."""

from __future__ import annotations

from collections.abc import Callable

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.packages import PackageStore
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.environments import PIECE, PackageData, ReadPackage, StorePackage

#: Called with "" when the package is here, or with why it is not.
Done = Callable[[str], None]


class _Fetch:
    """One package on its way here."""

    def __init__(self, package_id: str, sources: list[bytes]) -> None:
        self.package_id = package_id
        #: Nodes to ask, the current one last.
        self.sources = sources
        self.offset = 0
        self.waiting: list[Done] = []


class PackageFetcher:
    """``PackageStore.fetch`` for a node of a cluster."""

    def __init__(
        self, node_id: bytes, links: ClusterLinks, view: ClusterView, packages: PackageStore
    ) -> None:
        self._node_id = node_id
        self._links = links
        self._view = view
        self._packages = packages
        self._number = 0
        self._by_number: dict[int, _Fetch] = {}
        self._by_package: dict[str, _Fetch] = {}

    def fetch(self, package_id: str, done: Done) -> None:
        """Bring a package here, then call ``done``."""
        fetch = self._by_package.get(package_id)
        if fetch is None:
            sources = [node.node_id for node in self._view]
            fetch = self._by_package[package_id] = _Fetch(package_id, sources)
            fetch.waiting.append(done)
            self._ask(fetch)
        else:
            fetch.waiting.append(done)

    def _ask(self, fetch: _Fetch) -> None:
        if not fetch.sources:
            self._end(fetch, f"no node of the cluster has the package {fetch.package_id}")
            return
        self._number += 1
        self._by_number[self._number] = fetch
        request = ReadPackage(self._number, fetch.package_id, fetch.offset)
        self._links.send(fetch.sources[-1], request)

    def _ask_next(self, fetch: _Fetch) -> None:
        fetch.sources.pop()
        fetch.offset = 0
        self._ask(fetch)

    def answer(self, node_id: bytes, message: ReadPackage) -> None:
        """Another node asks for a piece."""
        answer = self._packages.read(message.request_id, message.package_id, message.offset)
        self._links.send(node_id, answer)

    def answered(self, node_id: bytes, message: PackageData) -> None:
        """Another node has sent a piece, or does not have the package."""
        fetch = self._by_number.get(message.request_id)
        if fetch is None or fetch.sources[-1] != node_id:
            return
        del self._by_number[message.request_id]
        if message.error or len(message.data) > PIECE:
            self._ask_next(fetch)
            return
        start = fetch.offset
        fetch.offset += len(message.data)
        last = fetch.offset >= message.size
        if not message.data and not last:
            # It has become shorter meanwhile: nothing would ever come of this.
            self._ask_next(fetch)
            return
        piece = StorePackage(0, fetch.package_id, start, message.data, last)
        try:
            error = self._packages.store(self._node_id, piece)
        except ProtocolError:
            self._ask_next(fetch)
            return
        if error or last:
            self._end(fetch, error)
        else:
            self._ask(fetch)

    def node_left(self, node_id: bytes) -> None:
        """A node is gone: what it was asked for is asked of the others."""
        for number, fetch in list(self._by_number.items()):
            if fetch.sources[-1] == node_id:
                del self._by_number[number]
                self._ask_next(fetch)

    def _end(self, fetch: _Fetch, error: str) -> None:
        del self._by_package[fetch.package_id]
        for done in fetch.waiting:
            done(error)
