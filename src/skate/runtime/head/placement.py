"""Which bundle of a placement group goes to which node: PACK, SPREAD, STRICT_PACK, STRICT_SPREAD.

Plain decisions over views of the nodes.  The soft strategies are greedy, as in Ray: large bundles
first, each where it fits best.  STRICT_SPREAD is a matching (augmenting paths) and finds a solution
whenever there is one.  What fits by these sums may still not fit a node, which tells its GPUs
apart: the node has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from skate.runtime.amounts import CPU, GPU, Units, add_units, covers, describe

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")

#: For each bundle the node that is to hold it.
Plan = list[bytes]


class NodeView(msgspec.Struct, frozen=True):
    """What the head knows of a node."""

    node_id: bytes
    total: Units
    #: Free now.
    available: Units


class _Room:
    """A node while a plan is made."""

    __slots__ = ("free", "node_id", "total", "used")

    def __init__(self, node_id: bytes, total: Units, free: Units) -> None:
        self.node_id = node_id
        self.total = total
        self.free = dict(free)
        #: Bundles of this plan on it.
        self.used = 0

    def take(self, units: Units) -> None:
        for name, count in units.items():
            self.free[name] = self.free.get(name, 0) - count
        self.used += 1

    def load(self, units: Units) -> float:
        """The fullest of the resources asked for once the bundle is here, 1.0 being full."""
        return max(
            (
                1.0 - (self.free.get(name, 0) - count) / self.total[name]
                for name, count in units.items()
                if self.total.get(name)
            ),
            default=0.0,
        )


def plan(
    bundles: Sequence[Units], strategy: str, nodes: Sequence[NodeView], *, whole: bool = False
) -> Plan | None:
    """Return a node for each bundle, or None if the strategy finds none.

    Args:
        bundles: What each bundle asks for.
        strategy: One of ``STRATEGIES``.
        nodes: In the order of preference where nothing else decides.
        whole: Plan as if nothing were in use: for telling "not now" from "never".
    """
    rooms = [
        _Room(node.node_id, node.total, node.total if whole else node.available) for node in nodes
    ]
    chosen: list[_Room | None] = [None] * len(bundles)
    order = sorted(range(len(bundles)), key=lambda index: _weight(bundles[index]), reverse=True)
    found = {
        "PACK": _pack,
        "SPREAD": _spread,
        "STRICT_PACK": _pack_strictly,
        "STRICT_SPREAD": _spread_strictly,
    }[strategy](bundles, order, rooms, chosen)
    return [room.node_id for room in chosen if room is not None] if found else None


def why_not(bundles: Sequence[Units], strategy: str, nodes: Sequence[NodeView]) -> str:
    """Say why the bundles cannot be placed even if nothing were in use; "" if they can."""
    if plan(bundles, strategy, nodes, whole=True) is not None:
        return ""
    have = "; ".join(describe(node.total) for node in nodes) or "nothing"
    there = f"this session has one node, with {have}" if len(nodes) == 1 else f"nodes have {have}"
    for index, units in enumerate(bundles):
        if not any(covers(node.total, units) for node in nodes):
            return f"bundle {index} asks for {describe(units)}, which no node has in all: {there}"
    if strategy == "STRICT_SPREAD" and len(bundles) > len(nodes):
        return f"STRICT_SPREAD puts {len(bundles)} bundles on as many nodes, and " + (
            "there is one node" if len(nodes) == 1 else f"there are {len(nodes)} nodes"
        )
    whole = describe(add_units(bundles))
    if strategy == "STRICT_PACK":
        return f"STRICT_PACK puts all bundles on one node: {whole} in all, but {there}"
    return f"the bundles ask for {whole} together, but {there}"


def _weight(units: Units) -> tuple[int, ...]:
    """Scarce resources first: GPUs, then custom ones, then CPUs, then memory."""
    custom = sum(n for name, n in units.items() if name not in (CPU, GPU, "memory"))
    return units.get(GPU, 0), custom, units.get(CPU, 0), units.get("memory", 0)


def _pack_strictly(
    bundles: Sequence[Units], _order: list[int], rooms: list[_Room], chosen: list[_Room | None]
) -> bool:
    whole = add_units(bundles)
    fitting = [room for room in rooms if covers(room.free, whole)]
    if not fitting:
        return False
    best = max(fitting, key=lambda room: room.load(whole))
    chosen[:] = [best] * len(bundles)
    return True


def _pack(
    bundles: Sequence[Units], order: list[int], rooms: list[_Room], chosen: list[_Room | None]
) -> bool:
    if _pack_strictly(bundles, order, rooms, chosen):
        return True
    # Where bundles of the group are already, and there the tightest fit.
    return _one_by_one(
        bundles, order, rooms, chosen, lambda room, units: (room.used == 0, -room.load(units))
    )


def _spread(
    bundles: Sequence[Units], order: list[int], rooms: list[_Room], chosen: list[_Room | None]
) -> bool:
    if _spread_strictly(bundles, order, rooms, chosen):
        return True
    return _one_by_one(
        bundles, order, rooms, chosen, lambda room, units: (room.used, room.load(units))
    )


def _one_by_one(
    bundles: Sequence[Units],
    order: list[int],
    rooms: list[_Room],
    chosen: list[_Room | None],
    rank: Callable[[_Room, Units], tuple[float, float]],
) -> bool:
    """Give each bundle the room of lowest rank that it fits into."""
    for index in order:
        units = bundles[index]
        fitting = [room for room in rooms if covers(room.free, units)]
        if not fitting:
            return False
        best = min(fitting, key=lambda room: rank(room, units))
        best.take(units)
        chosen[index] = best
    return True


def _spread_strictly(
    bundles: Sequence[Units], order: list[int], rooms: list[_Room], chosen: list[_Room | None]
) -> bool:
    if len(bundles) > len(rooms):
        return False
    holder: dict[int, int] = {}  # room to bundle

    def settle(bundle: int, tried: set[int]) -> bool:
        fitting = [n for n, room in enumerate(rooms) if covers(room.free, bundles[bundle])]
        for number in sorted(fitting, key=lambda n: rooms[n].load(bundles[bundle])):
            if number in tried:
                continue
            tried.add(number)
            if number not in holder or settle(holder[number], tried):
                holder[number] = bundle
                return True
        return False

    if not all(settle(index, set()) for index in order):
        return False
    for number, index in holder.items():
        chosen[index] = rooms[number]
    return True
