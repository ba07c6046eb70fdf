"""Which actors can be found by name."""

from __future__ import annotations

import skate
from skate.state import list_actors

#: More than that many named actors are not listed.
MOST = 10_000


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Return the names of the actors that ``get_actor`` finds.

    Args:
        all_namespaces: Not only those of the namespace of the session.

    Returns:
        Names; with ``all_namespaces`` dicts with "name" and "namespace".
    """
    if not skate.is_initialized():
        skate.init()
    own = skate.get_runtime_context().namespace
    named = sorted(
        (actor.ray_namespace or own, actor.name)
        for actor in list_actors(limit=MOST)
        if actor.name and actor.state != "DEAD"
    )
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for namespace, name in named if namespace == own]
