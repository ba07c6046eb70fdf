"""Which nodes are asked for a package, and what becomes of their answers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, cast

import pytest

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.package_fetching import PackageFetcher
from skate.runtime.node.packages import PackageStore, package_path
from skate.runtime.wire.cluster import NodeInfo
from skate.runtime.wire.environments import PackageData, ReadPackage

CONTENT = os.urandom(1000)
NAME = hashlib.blake2b(CONTENT, digest_size=16).hexdigest()


class Links:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def send(self, node_id: bytes, message: object) -> None:
        self.sent.append((node_id, message))


class Stage:
    """A fetcher, and two other nodes."""

    def __init__(self) -> None:
        self.links = Links()
        self.view = ClusterView()
        for node_id in (b"a", b"b"):
            self.view.add(NodeInfo(node_id, "", "", 0, {}, 0, "", ""), {})
        links = cast("ClusterLinks", self.links)
        self.fetcher = PackageFetcher(b"me", links, self.view, PackageStore())
        self.ends: list[str] = []

    def asked(self) -> tuple[bytes, ReadPackage]:
        [(node_id, message)] = self.links.sent
        self.links.sent.clear()
        assert isinstance(message, ReadPackage)
        return node_id, message

    def answer(self, size: int = 400, **changes: Any) -> bytes:
        """Answer what was asked last as a node that has the package; return the node."""
        node_id, message = self.asked()
        data = CONTENT[message.offset : message.offset + size]
        fields: dict[str, Any] = {"data": data, "size": len(CONTENT), **changes}
        self.fetcher.answered(node_id, PackageData(message.request_id, **fields))
        return node_id


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path))
    made = Stage()
    made.fetcher.fetch(NAME, made.ends.append)
    return made


def test_piece_by_piece_for_all_who_wait(stage: Stage) -> None:
    stage.fetcher.fetch(NAME, stage.ends.append)
    assert len({stage.answer() for _ in range(3)}) == 1
    assert stage.ends == ["", ""]
    assert Path(package_path(NAME)).read_bytes() == CONTENT
    assert stage.links.sent == []


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"", "size": 0, "error": "there is none here"},
        {"data": b"x" * 1000},
        {"data": b""},
    ],
)
def test_the_next_node_is_asked(stage: Stage, changes: dict[str, Any]) -> None:
    first = stage.answer(**changes)
    assert stage.ends == []
    second = stage.answer(1000)
    assert {first, second} == {b"a", b"b"}
    assert stage.ends == [""]


def test_nobody_is_left(stage: Stage) -> None:
    for _ in range(2):
        stage.answer(data=b"", size=0, error="there is none here")
    assert stage.ends == [f"no node of the cluster has the package {NAME}"]
    # The next one asks anew.
    stage.fetcher.fetch(NAME, stage.ends.append)
    stage.answer(1000)
    assert stage.ends[1:] == [""]


def test_a_node_dies_in_the_middle(stage: Stage) -> None:
    first = stage.answer()
    _, late = stage.asked()
    stage.fetcher.node_left(first)
    second, again = stage.asked()
    assert second != first
    assert again.offset == 0
    stage.fetcher.answered(first, PackageData(late.request_id, b"late", 1000))
    stage.fetcher.answered(second, PackageData(again.request_id, CONTENT, 1000))
    assert stage.ends == [""]


def test_answers_that_nobody_has_asked_for(stage: Stage) -> None:
    node_id, message = stage.asked()
    other = b"a" if node_id == b"b" else b"b"
    stage.fetcher.answered(other, PackageData(message.request_id, CONTENT, 1000))
    stage.fetcher.answered(node_id, PackageData(999, CONTENT, 1000))
    assert stage.ends == []
    stage.fetcher.answer(b"a", ReadPackage(5, NAME, 0))
    assert "there is no package" in stage.links.sent[-1][1].error
