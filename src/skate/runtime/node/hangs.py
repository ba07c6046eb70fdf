"""Finds calls that wait for each other in a circle, and tells of those that wait unusually long.

Nobody reports what it waits for.  When a worker has been blocked for a while (the daemon knows that
from ``Blocked``, by which it gives its CPU back) all processes are asked, then again after twice
that time, and so on; and every now and then in any case, because drivers do not say that they wait.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from skate.runtime.node.looking import Looking
from skate.runtime.node.loop import Loop
from skate.runtime.node.wait_graph import Key, WaitGraph
from skate.runtime.wire.state import Inspection
from skate.runtime.wire.waits import AWAIT, WAITS, WaitPage

#: How long a worker is blocked before anybody looks, in seconds.
FIRST_LOOK_SECONDS = 1.0
#: How often to see whether it is time to look, while workers are blocked, in seconds.
TICK_SECONDS = 1.0
#: A circle is looked at once more after so many seconds, because processes do not answer at the
#: same moment.
CONFIRM_SECONDS = 0.3
#: Longest time between two looks at workers that stay blocked, in seconds.
LONGEST_SECONDS = 120.0
#: Seconds that processes have for an answer.
ANSWER_SECONDS = 5.0

_decoder = msgspec.msgpack.Decoder(list[WaitPage])


class Patience:
    """When to look: at growing intervals for each worker that stays blocked."""

    def __init__(self) -> None:
        #: When to look next, and at what interval, for each blocked worker.
        self._due: dict[bytes, tuple[float, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def blocked(self, worker_id: bytes, now: float) -> None:
        """A worker waits."""
        self._due[worker_id] = (now + FIRST_LOOK_SECONDS, FIRST_LOOK_SECONDS)

    def gone(self, worker_id: bytes) -> None:
        """It does not, or is dead."""
        self._due.pop(worker_id, None)

    def is_due(self, now: float) -> bool:
        """Return whether to look now."""
        due = False
        for worker_id, (when, interval) in self._due.items():
            if now >= when:
                due = True
                longer = min(2 * interval, LONGEST_SECONDS)
                self._due[worker_id] = (now + longer, longer)
        return due


class LongWaits:
    """Which waits to tell of: after ``seconds``, then after twice that, and so on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: Since when each wait is known, and after how many seconds to tell of it.
        self._known: dict[Key, tuple[float, float]] = {}

    def seen(self, waits: list[Key], now: float) -> bool:
        """These are all waits that there are now; return whether there is one to tell of."""
        known = self._known
        self._known = {wait: known.get(wait, (now, self._seconds)) for wait in waits}
        return any(now - since >= seconds for since, seconds in self._known.values())

    def due(self, now: float) -> list[tuple[Key, float]]:
        """Return those to tell of, once, with the seconds that they have lasted."""
        told: list[tuple[Key, float]] = []
        for wait, (since, seconds) in self._known.items():
            lasted = now - since
            if lasted >= seconds:
                told.append((wait, lasted))
                while seconds <= lasted:
                    seconds *= 2
                self._known[wait] = (since, seconds)
        return told


class Hangs:
    """Looks, and warns."""

    def __init__(
        self,
        loop: Loop,
        looking: Looking,
        node_id: bytes,
        seconds: float | None,
        warn: Callable[[str], None],
    ) -> None:
        """``seconds``: waits that are longer are told of; None: none are."""
        self._loop = loop
        self._looking = looking
        self._node_id = node_id
        self._warn = warn
        self._patience = Patience()
        self._ticking = False
        self._asking = False
        #: Circles of the last look, and those that the user was told of.
        self._suspected: set[frozenset[Key]] = set()
        self._told: set[frozenset[Key]] = set()
        self._long = LongWaits(seconds) if seconds is not None else None
        if seconds is not None:
            self._interval = max(seconds / 4, TICK_SECONDS)
            loop.call_later(self._interval, self._look_regularly)

    def blocked(self, worker_id: bytes) -> None:
        """A worker waits."""
        self._patience.blocked(worker_id, self._loop.now())
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_SECONDS, self._tick)

    def gone(self, worker_id: bytes) -> None:
        """A worker waits no more, or is dead."""
        self._patience.gone(worker_id)

    def _tick(self) -> None:
        if not self._patience:
            self._ticking = False
            return
        if self._patience.is_due(self._loop.now()):
            self._look(everywhere=True)
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _look_regularly(self) -> None:
        self._look(everywhere=False)
        self._loop.call_later(self._interval, self._look_regularly)

    def _look(self, everywhere: bool) -> None:
        """Ask the processes of this node, or of all nodes of the cluster."""
        if not self._asking:
            self._asking = True
            self._looking.ask_for_us(
                WAITS,
                1,
                ANSWER_SECONDS,
                lambda inspection: self._answered(inspection, everywhere),
                everywhere=everywhere,
            )

    def _answered(self, inspection: Inspection, everywhere: bool) -> None:
        self._asking = False
        graph = WaitGraph()
        for page in inspection.pages:
            if page.kind in ("driver", "worker"):
                for waits in _decoder.decode(page.rows):
                    graph.add(page.node_id, page.process_id, waits)
        in_circles = self._tell_circles(graph)
        if self._long is not None:
            self._tell_long_waits(graph, self._long, in_circles, everywhere)

    def _tell_circles(self, graph: WaitGraph) -> set[Key]:
        circles = {frozenset(circle): circle for circle in graph.circles()}
        for members, circle in circles.items():
            if members in self._suspected and members not in self._told:
                if not self._is_ours(graph, circle):
                    continue
                self._told.add(members)
                running = sum(1 for key in circle if key in graph.calls)
                who = "1 call waits for itself"
                if running != 1:
                    who = f"{running} calls wait for each other"
                remedy = "if one of the actors is async or has a higher max_concurrency"
                if graph.has_limit(circle):
                    remedy = "if more calls of the actor may run at the same time"
                self._warn(
                    f"{who} in a circle and will never end (deadlock):\n"
                    f"{graph.explain_circle(circle)}\n"
                    f"Cancel one of them to break the circle; it does not arise {remedy}"
                )
        fresh = set(circles) - self._suspected
        self._suspected = set(circles)
        if fresh:
            self._loop.call_later(CONFIRM_SECONDS, lambda: self._look(everywhere=True))
        return {key for circle in circles for key in circle}

    def _is_ours(self, graph: WaitGraph, circle: list[Key]) -> bool:
        """Whether it is for this node to tell of a circle: all nodes of a cluster find it."""
        nodes = [graph.node_of[key] for key in circle if key in graph.node_of]
        return min(nodes, default=self._node_id) == self._node_id

    def _tell_long_waits(
        self, graph: WaitGraph, long: LongWaits, in_circles: set[Key], everywhere: bool
    ) -> None:
        waiting = {
            key: needs
            for key, row in graph.calls.items()
            # A call that is suspended keeps nobody: it may be meant to wait for long.
            if row.kind not in ("", AWAIT)
            and key not in in_circles
            and graph.node_of[key] == self._node_id
            and (needs := graph.needs(key))
        }
        by_wait: dict[Key, Key] = {
            (key, graph.calls[key].place, *graph.calls[key].objects[:3]): key for key in waiting
        }
        now = self._loop.now()
        if not long.seen(list(by_wait), now):
            return
        if not everywhere:
            # What they wait for may be on another node.
            self._look(everywhere=True)
            return
        # Of a chain of waits the outermost is told of; its explanation names the others.
        inner = {target for needs in waiting.values() for need in needs for target in need.targets}
        for wait, seconds in long.due(now):
            key = by_wait[wait]
            if key not in inner:
                self._warn(
                    f"{graph.name(key)} {graph.describe(key)} for {seconds:.0f} s now\n"
                    f"{graph.explain(key)}\n"
                    "(init(hang_warning_s=...) sets after how long this is told)"
                )
