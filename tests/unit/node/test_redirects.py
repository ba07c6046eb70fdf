"""Which waiting requests go to which other node."""

from __future__ import annotations

from skate.runtime.head.view import ClusterView
from skate.runtime.node.redirects import Redirect, Redirects
from skate.runtime.node.requests import Request
from skate.runtime.wire.cluster import NodeInfo

UNIT = 10_000
ALICE, BOB = b"alice---", b"bob-----"


def cluster(**cpus: int) -> tuple[ClusterView, Redirects]:
    """Other nodes by name, with that many CPUs, all free."""
    view = ClusterView()
    for name, count in cpus.items():
        total = {"CPU": count * UNIT}
        view.add(NodeInfo(name.encode(), "host:1", "host", 1, total, 0, "", ""), total)
    return view, Redirects(view)


def request(number: int, cpus: float = 1.0, holder: bytes = ALICE) -> Request:
    return Request(holder, {"CPU": cpus}, 0, "f", number)


def go(redirects: Redirects, stuck: list[Request], feasible: bool = True) -> list[Redirect]:
    return list(redirects.elsewhere(stuck, lambda _request: feasible))


def test_as_many_go_as_there_is_room() -> None:
    _, redirects = cluster(one=2, two=1)
    waiting = [request(number) for number in range(5)]
    sent = go(redirects, waiting)
    assert [r.request for r in sent] == waiting[:3]
    assert sorted(r.node_id for r in sent) == [b"one", b"one", b"two"]
    assert not any(r.stay for r in sent)
    assert go(redirects, waiting[3:]) == []


def test_what_only_others_can_serve_waits_there() -> None:
    view, redirects = cluster(one=2)
    view.update(b"one", {"CPU": 0})
    assert go(redirects, [request(1)]) == []
    [sent] = go(redirects, [request(2)], feasible=False)
    assert (sent.node_id, sent.stay) == (b"one", True)
    assert go(redirects, [request(3, 5.0)], feasible=False) == []


def test_what_comes_from_elsewhere_goes_home_only() -> None:
    view, redirects = cluster(one=1)
    guest = request(1)
    guest.origin, guest.stays = b"two", True
    assert go(redirects, [guest]) == []
    assert redirects.comes_back(guest)
    view.update(b"one", {"CPU": 0})
    assert not redirects.comes_back(guest)
    guest.stays = False
    assert redirects.comes_back(guest)


def test_attraction_is_tried_once() -> None:
    view, redirects = cluster(one=1)
    drawn, plain = request(1), request(2)
    drawn.attracted_to = b"one"
    [sent] = list(redirects.attracted([drawn, plain]))
    assert (sent.request, sent.node_id, sent.stay) == (drawn, b"one", False)
    assert list(redirects.attracted([drawn, plain])) == []
    late = request(3)
    late.attracted_to = b"one"
    assert list(redirects.attracted([late])) == []
    view.update(b"one", {"CPU": UNIT})
    assert list(redirects.attracted([late])) == []


def test_who_is_away_comes_back_once() -> None:
    _, redirects = cluster(one=4, two=4)
    mine, other = request(1), request(2, holder=BOB)
    where = {r.request: r.node_id for r in go(redirects, [mine, other])}
    assert redirects.take_back(mine.key) == (mine, where[mine])
    assert redirects.take_back(mine.key) is None
    third = request(3)
    [sent] = go(redirects, [third])
    redirects.forget_all_of(BOB)
    assert redirects.take_back(other.key) is None
    assert redirects.node_left(sent.node_id) == [third]
    assert redirects.node_left(sent.node_id) == []
