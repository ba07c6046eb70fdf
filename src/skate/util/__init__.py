"""What stands on tasks and actors and belongs to neither: pools, queues and the like.

Each name lives in a module of its own and is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skate.util.actor_pool import ActorPool
    from skate.util.concurrent import SkateExecutor
    from skate.util.named_actors import list_named_actors
    from skate.util.node_address import get_node_ip_address
    from skate.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from skate.util.serializability import inspect_serializability

#: Where each name lives.
_HOME_OF = {
    "ActorPool": "actor_pool",
    "SkateExecutor": "concurrent",
    "inspect_serializability": "serializability",
    "get_node_ip_address": "node_address",
    "list_named_actors": "named_actors",
    "get_current_placement_group": "placement_group",
    "get_placement_group": "placement_group",
    "placement_group": "placement_group",
    "placement_group_table": "placement_group",
    "remove_placement_group": "placement_group",
}
#: Modules that are reached as attributes: ``skate.util.queue.Queue``.
_MODULES = (
    "concurrent",
    "joblib",
    "metrics",
    "multiprocessing",
    "queue",
    "rpdb",
    "scheduling_strategies",
    "state",
)

__all__ = [
    "ActorPool",
    "SkateExecutor",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{home}")
    # All of its names at once: one may be that of the module, which has just become our attribute.
    for other, its_home in _HOME_OF.items():
        if its_home == home:
            globals()[other] = getattr(module, other)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
