"""Losing objects on purpose: what a dead node or a deleted spill file does to them."""

from __future__ import annotations

from typing import Any

from skate.api.session import current
from skate.runtime.wire.messages import Location, ObjectFreed


def lose(ref: Any) -> None:
    """Destroy the only copy of a stored object that this process owns; its ref stays valid."""
    core = current().core  # type: ignore[attr-defined]  # of the native engine
    handle = ref._cell.handle
    assert handle is not None, "only objects in shared memory can be lost"
    location = handle.location
    with core.lock:
        if core.objects.store.is_writer(location):
            core.objects.store.free(location)
        else:
            core.links.send_node(ObjectFreed(handle.object_id, location))
            core.links.flush()
        # Where nothing ever was.
        handle.location = Location(location.node_id, 1 << 40, location.offset, location.size)
