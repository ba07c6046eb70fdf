"""Losing objects on purpose: what a dead node or a deleted spill file does to them."""

from __future__ import annotations

from typing import Any

import skate
from skate.api.session import current
from skate.runtime.wire.messages import ObjectFreed


def lose(ref: Any) -> None:
    """Destroy the only copy of a stored object that this process owns; its ref stays valid."""
    core = current().core  # type: ignore[attr-defined]  # of the native engine
    handle = ref._cell.handle
    assert handle is not None, "only objects in shared memory can be lost"
    with core.lock:
        core.links.send_node(ObjectFreed(handle.object_id, handle.location))
        core.links.flush()
    # Once the daemon answers, it has handled that.
    skate.available_resources()
