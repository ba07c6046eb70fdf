"""What a daemon knows of the other nodes, and where it would send work."""

from __future__ import annotations

from skate.runtime.head.view import MOST_LEFT, ClusterView
from skate.runtime.wire.cluster import NodeInfo

UNIT = 10_000


def info(name: bytes, number: int = 0, **total: int) -> NodeInfo:
    units = {key: count * UNIT for key, count in total.items()}
    return NodeInfo(name, "host:1", "host", 1, units, 0, "", "", number)


def view(**cpus: int) -> ClusterView:
    """Nodes by name, with that many CPUs, all free."""
    made = ClusterView()
    for number, (name, count) in enumerate(cpus.items(), 1):
        node = info(name.encode(), number, CPU=count)
        made.add(node, node.total)
    return made


def test_the_emptiest_node_with_room() -> None:
    nodes = view(small=1, large=4)
    assert nodes.with_room({"CPU": 2 * UNIT}) == b"large"
    nodes.update(b"large", {"CPU": UNIT})
    assert nodes.with_room({"CPU": 2 * UNIT}) is None
    assert nodes.with_room({"CPU": UNIT}) == b"small"
    assert nodes.large_enough({"CPU": 2 * UNIT}) == b"large"
    assert nodes.large_enough({"CPU": 5 * UNIT}) is None
    assert nodes.large_enough({"GPU": 1}) is None


def test_what_was_sent_counts_until_the_node_speaks() -> None:
    nodes = view(one=2)
    nodes.send_to(b"one", {"CPU": 2 * UNIT})
    assert nodes.with_room({"CPU": UNIT}) is None
    nodes.update(b"one", {"CPU": 2 * UNIT})
    assert nodes.with_room({"CPU": UNIT}) == b"one"
    nodes.send_to(b"unknown", {"CPU": UNIT})
    nodes.update(b"unknown", {"CPU": UNIT})


def test_nodes_go_and_are_remembered() -> None:
    nodes = view(one=1, two=1)
    found = nodes.numbered(2)
    assert found is not None
    assert found.node_id == b"two"
    assert nodes.remove(b"two", "it died") is found
    assert nodes.remove(b"two", "again") is None
    assert nodes.numbered(2) is None
    assert [node.node_id for node in nodes] == [b"one"]
    assert [(node.node_id, cause) for node, cause in nodes.left] == [(b"two", "it died")]
    for number in range(2 * MOST_LEFT):
        nodes.add(info(b"%d" % number), {})
        nodes.remove(b"%d" % number, "")
    assert len(nodes.left) == MOST_LEFT
