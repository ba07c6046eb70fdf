"""Where nodes are reached."""

from __future__ import annotations

import skate


def get_node_ip_address() -> str:
    """Return the address under which other nodes reach the one of this process.

    A session on one machine has the loopback address.
    """
    return node_address(skate.get_runtime_context().get_node_id())


def node_address(node_id: str) -> str:
    """Return the address of a node of this session."""
    return next(str(row["NodeManagerAddress"]) for row in skate.nodes() if row["NodeID"] == node_id)
