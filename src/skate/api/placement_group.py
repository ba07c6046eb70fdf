"""Placement groups: resources reserved together, for tasks and actors that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skate.api import options as option_checks
from skate.api.objects import check_timeout
from skate.api.session import current
from skate.engine.base import PlacementGroupInfo
from skate.exceptions import GetTimeoutError, PlacementGroupRemovedError
from skate.refs import ObjectRef

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle of a placement group, which may be passed to tasks and actors.

    The group does not end with its handles but with ``remove_placement_group``, or with the process
    that made it.
    """

    __slots__ = ("_bundles", "_group_id")

    def __init__(self, group_id: bytes, bundles: Sequence[dict[str, float]]) -> None:
        self._group_id = group_id
        self._bundles = tuple(bundles)

    @property
    def id(self) -> bytes:
        """The id; ``.hex()`` gives it as in ``placement_group_table()``."""
        return self._group_id

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle reserves: amounts by name."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self._bundles)

    def ready(self) -> ObjectRef[PlacementGroup]:
        """Return a ref that is ready when all bundles are reserved; its value is the group.

        ``get`` raises ``PlacementGroupRemovedError`` if the group ends before.
        """
        return current().placement_groups.ready(self._group_id, self)

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Wait until all bundles are reserved; return False after ``timeout_seconds``.

        Also False, at once, if the group was removed.

        Raises:
            TypeError, ValueError: ``timeout_seconds`` is no number of seconds.
        """
        timeout = (
            None
            if timeout_seconds is None
            else check_timeout("PlacementGroup.wait", timeout_seconds)
        )
        ready = self.ready()
        try:
            current().get_one(ready, timeout)
        except (GetTimeoutError, PlacementGroupRemovedError):
            return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlacementGroup):
            return NotImplemented
        return self._group_id == other._group_id

    def __hash__(self) -> int:
        return hash(self._group_id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self._group_id.hex()}, {list(self._bundles)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self._group_id, self._bundles)


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
) -> PlacementGroup:
    """Reserve several bundles of resources, all of them or none, and return at once.

    Args:
        bundles: For each bundle amounts by name, ``{"CPU": 1, "GPU": 0.5, "widget": 2}``; memory in
            bytes.
        strategy: "PACK": on as few nodes as possible.  "SPREAD": on as many as possible.
            "STRICT_PACK": on one node.  "STRICT_SPREAD": each on a node of its own.
        name: For ``get_placement_group``; unique in the namespace.
        lifetime: "detached": the group outlives the process that makes it.

    Raises:
        TypeError, ValueError: An argument is wrong, or a group of that name exists.
    """
    if isinstance(bundles, str | Mapping) or not isinstance(bundles, Sequence):
        raise ValueError(f"bundles must be a list of dicts of amounts by name, not {bundles!r}")
    if not bundles:
        raise ValueError("bundles must not be empty: a placement group has at least one")
    checked = [_bundle(index, bundle) for index, bundle in enumerate(bundles)]
    if strategy not in STRATEGIES:
        hint = option_checks.nearest(str(strategy), STRATEGIES)
        raise ValueError(
            f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}.{hint}"
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    if lifetime not in (None, "detached"):
        raise ValueError(f"lifetime must be None or 'detached', not {lifetime!r}")
    group_id = current().placement_groups.create(checked, strategy, name, lifetime == "detached")
    return PlacementGroup(group_id, checked)


def _bundle(index: int, bundle: object) -> dict[str, float]:
    if not isinstance(bundle, Mapping):
        raise ValueError(f"bundles[{index}] must be a dict of amounts by name, not {bundle!r}")
    checked: dict[str, float] = {}
    for name, number in bundle.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"bundles[{index}] must have names as keys, not {name!r}")
        check = option_checks.gpu_amount if name == "GPU" else option_checks.amount
        value = check(f"bundles[{index}][{name!r}]", number)
        if value:
            checked[name] = value
    if not checked:
        raise ValueError(f"bundles[{index}] reserves nothing: it needs an amount above 0")
    return checked


def remove_placement_group(group: PlacementGroup) -> None:
    """End a group: its resources are free again.

    Tasks and actors in it are killed; ``get`` raises ``TaskPlacementGroupRemovedError`` or
    ``ActorPlacementGroupRemovedError``.  Nothing happens if the group has ended already.

    Raises:
        TypeError: ``group`` is no placement group.
    """
    current().placement_groups.remove(_check(group)._group_id)


def get_placement_group(name: str) -> PlacementGroup:
    """Return the placement group called ``name`` in the namespace of the session.

    Raises:
        ValueError: There is no such group (any more).
    """
    option_checks.non_empty("name", name)
    found = current().placement_groups.find(name=name)
    if not found:
        raise ValueError(
            f"there is no placement group named {name!r}: it was not created yet, was removed, or"
            " its creator has ended"
        )
    return PlacementGroup(found[0].group_id, found[0].bundles)


def get_current_placement_group() -> PlacementGroup | None:
    """Return the placement group that the calling task or actor runs in; None outside of one."""
    strategy = current().context().strategy
    if strategy is None or not strategy.group_id:
        return None
    return PlacementGroup(strategy.group_id, strategy.bundles)


def placement_group_table(group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return what is known of a group, or of all groups by their id in hexadecimal digits.

    "state" is "PENDING", "CREATED" or "REMOVED"; "reason" says why it is pending or removed;
    "bundles" and "bundles_to_node_id" are dicts by index.

    Raises:
        ValueError: There never was such a group.
    """
    groups = current().placement_groups
    if group is None:
        return {info.group_id.hex(): _row(info) for info in groups.find()}
    found = groups.find(_check(group)._group_id)
    if not found:
        raise ValueError(
            f"{group!r} is not known: it was removed long ago, or is of another session"
        )
    return _row(found[0])


def _row(info: PlacementGroupInfo) -> dict[str, Any]:
    return {
        "placement_group_id": info.group_id.hex(),
        "name": info.name,
        "namespace": info.namespace,
        "strategy": info.strategy,
        "state": info.state.upper(),
        "reason": info.reason,
        "lifetime": "detached" if info.detached else "",
        "bundles": dict(enumerate(info.bundles)),
        "bundles_to_node_id": {
            index: node_id.hex() for index, node_id in enumerate(info.nodes) if node_id
        },
    }


def _check(group: object) -> PlacementGroup:
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"a PlacementGroup is needed, not {group!r}")
    return group
