"""Who waits for whom: the graph against a simulation, and what is told when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.node.hangs import LongWaits, Patience
from skate.runtime.node.wait_graph import WaitGraph
from skate.runtime.wire.state import TaskRow
from skate.runtime.wire.waits import DEBUGGER, GET, CallRow, MadeRow, QueueRow, WaitPage

NODE = b"node"


def task(name: str, **more: object) -> TaskRow:
    return TaskRow(name.encode(), 0, name, "RUNNING", "NORMAL_TASK", b"", pid=1, **more)


def waits(name: str, *objects: str, needed: int | None = None, **more: object) -> CallRow:
    ids = [one.encode() for one in objects]
    count = len(ids) if needed is None else needed
    return CallRow(task(name), 0, GET if ids else "", ids, count, place="f.py:1", **more)


def made(name: str, worker: bytes = b"", arguments: list[bytes] | None = None) -> MadeRow:
    """The result of a call is an object of the same name."""
    return MadeRow(task(name, worker_id=worker), [name.encode()], arguments or [])


def graph(*pages: tuple[bytes, WaitPage]) -> WaitGraph:
    built = WaitGraph()
    for process, page in pages:
        built.add(NODE, process, page)
    return built


def test_two_actors_that_call_each_other():
    # a1 runs on A and waits for b1 on B, which waits for a2, queued behind a1.
    built = graph(
        (b"A", WaitPage([waits("a1", "b1")], [made("b1", b"B")], False)),
        (b"B", WaitPage([waits("b1", "a2")], [made("a2", b"A")], False)),
    )
    assert built.stuck() == {b"a1", b"b1", b"a2"}
    [circle] = built.circles()
    assert set(circle) == {b"a1", b"b1", b"a2"}
    text = built.explain_circle(circle)
    assert "a1 (pid 1) waits in get() at f.py:1" in text
    assert "for a2 (pid 1), which is queued behind a1 (pid 1)" in text


def test_a_concurrent_actor_may_yet_answer():
    built = graph(
        (
            b"A",
            WaitPage([waits("a1", "b1"), waits("a0")], [made("b1", b"B")], True),
        ),
        (b"B", WaitPage([waits("b1", "a2")], [made("a2", b"A")], False)),
    )
    assert built.stuck() == set()


def test_calls_behind_a_limit_need_one_of_those_that_run():
    def built(*running):
        made_here = [made("d1", b"A"), made("d0", b"A")]
        queue = QueueRow("", 2, [b"d2", b"d1"], [b"d0"])
        return graph((b"A", WaitPage(list(running), made_here, True, [queue])))

    stuck = built(waits("d2", "d1"), waits("d1", "d0"))
    assert stuck.stuck() == {b"d2", b"d1", b"d0"}
    [circle] = stuck.circles()
    assert set(circle) == {b"d2", b"d1", b"d0"}
    assert stuck.has_limit(circle)
    assert "queued behind d2 (pid 1), d1 (pid 1) (the actor (pid 1) has max_concurrency=2)" in (
        stuck.explain_circle(circle)
    )
    assert built(waits("d2"), waits("d1", "d0")).stuck() == set()
    assert built(waits("d2", "d1"), waits("d1", "d0", bounded=True)).stuck() == set()


def test_calls_that_are_in_no_queue_of_a_concurrent_actor_begin():
    row, makes = waits("d1", "d0"), made("d0", b"A")
    assert graph((b"A", WaitPage([row], [makes], True))).stuck() == set()


def test_a_circle_of_many_is_told_in_few_lines():
    names = [f"t{number:02}" for number in range(30)]
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    rows = [waits(name, other) for name, other in following.items()]
    built = graph((b"A", WaitPage(rows, [made(name) for name in names], False)))
    [circle] = built.circles()
    lines = built.explain_circle(circle).splitlines()
    assert len(lines) == 9
    assert lines[-2] == "  ... (22 more)"


def test_what_is_not_known_may_go_on():
    built = graph((b"A", WaitPage([waits("a1", "nobody")], [], False)))
    assert built.stuck() == set()


def test_timeouts_and_debuggers_end_by_themselves():
    for changed in ({"bounded": True}, {"kind": DEBUGGER}):
        row = waits("a1", "b1")
        for name, value in changed.items():
            setattr(row, name, value)
        built = graph(
            (b"A", WaitPage([row], [made("b1", b"B")], False)),
            (b"B", WaitPage([waits("b1", "a2")], [made("a2", b"A")], False)),
        )
        assert built.circles() == []


def test_a_call_waits_for_the_one_on_top_of_it():
    row = waits("a1", "x")
    row.below = b"a2"
    built = graph(
        (b"A", WaitPage([waits("a2", "b1"), row], [made("b1", b"B"), made("x")], False)),
        (b"B", WaitPage([waits("b1", "a3")], [made("a3", b"A")], False)),
    )
    assert {b"a1", b"a2", b"b1", b"a3"} <= built.stuck()


def test_explanation_of_a_chain():
    built = graph(
        (b"D", WaitPage([waits("top", "mid")], [made("mid", b"M")], False)),
        (b"M", WaitPage([waits("mid", "low")], [made("low")], False)),
    )
    text = built.explain(b"top")
    assert "for mid (pid 1), which waits in get() at f.py:1" in text
    assert "for low (pid 1), which waits for a worker" in text


NAMES = [f"t{number}" for number in range(8)]


@st.composite
def situations(draw):
    """For each call: whom it waits for (None: it runs), and how many of them it needs."""
    found = {}
    for name in NAMES:
        targets = draw(st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=4, unique=True))
        found[name] = (targets, draw(st.integers(0, len(targets))))
    return found


@given(situations())
def test_stuck_is_what_a_simulation_leaves(situation):
    pages = []
    for name, (targets, needed) in situation.items():
        rows = [waits(name, *targets, needed=needed)]
        makers = [made(target, target.encode()) for target in targets if target != "unknown"]
        pages.append((name.encode(), WaitPage(rows, makers, False)))
    built = graph(*pages)
    ended = {"unknown"}
    changed = True
    while changed:
        changed = False
        for name, (targets, needed) in situation.items():
            if name not in ended and sum(target in ended for target in targets) >= needed:
                ended.add(name)
                changed = True
    stuck = built.stuck()
    assert stuck == {name.encode() for name in NAMES if name not in ended}
    circles = built.circles()
    assert bool(circles) == bool(stuck)
    for circle in circles:
        assert set(circle) <= stuck
        for key, following in zip(circle, [*circle[1:], circle[0]], strict=True):
            assert any(following in need.targets for need in built.needs(key))
        built.explain_circle(circle)
    for name in NAMES:
        built.explain(name.encode())


# ------------------------------------------------------------------- when


def test_patience_grows():
    patience = Patience()
    patience.blocked(b"w", 0.0)
    looks = [now / 10 for now in range(1, 1000) if patience.is_due(now / 10)]
    assert looks == [1.0, 3.0, 7.0, 15.0, 31.0, 63.0]
    patience.gone(b"w")
    assert not patience
    assert not patience.is_due(1e9)


def test_long_waits_are_told_at_growing_intervals():
    long = LongWaits(60)
    told = [now for now in range(0, 1000, 10) if long.seen(["w"], now) and long.due(now)]
    assert told == [60, 120, 240, 480, 960]
    assert not long.seen([], 1000)
    # A wait that comes back is a new one.
    assert not long.seen(["w"], 1010)
    assert long.seen(["w"], 1070)
    assert long.due(1070) == [("w", 60)]
    assert long.due(1070) == []
