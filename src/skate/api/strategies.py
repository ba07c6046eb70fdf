"""Scheduling strategies: what the user writes, and what the engine is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.api.placement_group import PlacementGroup
from skate.engine.base import ANYWHERE, Strategy
from skate.ids import PROCESS_ID_SIZE

Given = Mapping[str, Any]

SPREAD = Strategy(spread=True)


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group.

    Args:
        placement_group: None: not in the group of the caller either.
        placement_group_bundle_index: -1: in any bundle with room.
        placement_group_capture_child_tasks: Whether what the task or actor submits runs in the
            group, too, unless that says otherwise; None: no.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: Hexadecimal digits, as ``nodes()`` and ``get_node_id()`` say it.
        soft: If that node does not exist, run elsewhere instead of failing.
    """

    def __init__(self, node_id: str, soft: bool) -> None:
        self.node_id = node_id
        self.soft = soft


def check(option: str, value: object) -> Strategy:
    """Turn the value of ``scheduling_strategy`` into what engines understand."""
    if isinstance(value, str):
        if value == "DEFAULT":
            return ANYWHERE
        if value == "SPREAD":
            return SPREAD
        raise ValueError(
            f"{option} must be 'DEFAULT', 'SPREAD' or one of skate.util.scheduling_strategies,"
            f" not {value!r}"
        )
    if isinstance(value, PlacementGroupSchedulingStrategy):
        return in_group(
            value.placement_group,
            value.placement_group_bundle_index,
            value.placement_group_capture_child_tasks,
        )
    if isinstance(value, NodeAffinitySchedulingStrategy):
        return _on_node(value)
    raise TypeError(
        f"{option} must be a string or one of skate.util.scheduling_strategies, not {value!r}"
    )


def in_group(group: object, index: object, capture: object) -> Strategy:
    """Check group, index and whether to capture."""
    if isinstance(index, bool) or not hasattr(index, "__index__"):
        raise TypeError(f"placement_group_bundle_index must be a whole number, not {index!r}")
    if capture is not None and not isinstance(capture, bool):
        raise TypeError(
            f"placement_group_capture_child_tasks must be True, False or None, not {capture!r}"
        )
    number = int(index.__index__())
    if group is None:
        if number != -1:
            raise ValueError(
                f"placement_group_bundle_index={number} needs a placement group: there is none"
            )
        return ANYWHERE
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"placement_group must be a PlacementGroup or None, not {group!r}")
    if not -1 <= number < group.bundle_count:
        raise ValueError(
            f"placement_group_bundle_index={number} is invalid: the bundles of {group!r} have the"
            f" indices 0 to {group.bundle_count - 1}, and -1 means any"
        )
    return Strategy(group.id, number, bool(capture), group._bundles)


def _on_node(value: NodeAffinitySchedulingStrategy) -> Strategy:
    try:
        node_id = bytes.fromhex(value.node_id)
    except (TypeError, ValueError):
        node_id = b""
    if len(node_id) != PROCESS_ID_SIZE:
        raise ValueError(
            f"{value.node_id!r} is no id of a node: they are {2 * PROCESS_ID_SIZE} hexadecimal"
            " digits, see skate.nodes()"
        )
    if not isinstance(value.soft, bool):
        raise TypeError(f"soft must be True or False, not {value.soft!r}")
    return Strategy(node_id=node_id, soft=value.soft)


def of_options(checked: Given, resources: dict[str, float]) -> Strategy | None:
    """Return the strategy that checked options ask for; None if they leave it open.

    Raises:
        ValueError: The bundle is too small for the resources, or options contradict each other.
    """
    strategy: Strategy | None = checked.get("scheduling_strategy")
    details = (
        checked.get("placement_group_bundle_index", -1),
        checked.get("placement_group_capture_child_tasks"),
    )
    if "placement_group" in checked:
        if strategy is not None:
            raise ValueError(
                "give either scheduling_strategy or placement_group, not both: they may contradict"
                " each other"
            )
        group = checked["placement_group"]
        # "default", as in Ray: whichever group the caller is in.
        strategy = in_group(None if group == "default" else group, *details)
        if group == "default":
            strategy = None
    else:
        in_group(None, *details)
    if strategy is not None:
        strategy.check_fits(resources)
    return strategy
