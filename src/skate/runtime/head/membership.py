"""Which nodes belong to the cluster, and which of them have fallen silent.  No I/O, no clock."""

from __future__ import annotations

#: A node shows a sign of life this often, in seconds, ...
HEARTBEAT_SECONDS = 1.0
#: ... and is given up when it has shown none for so many.  Most deaths end a connection and are
#: noticed at once; this is for hosts that vanish and for processes that hang.
SILENCE_SECONDS = 20.0


class Membership:
    """The nodes of a cluster, apart from the head, as the head counts them."""

    def __init__(self) -> None:
        self._heard: dict[bytes, float] = {}
        self._last_number = 0
        self._looked: float | None = None

    def join(self, node_id: bytes, now: float) -> int:
        """Take a node in; return its number, which no other node ever gets."""
        self._heard[node_id] = now
        self._last_number += 1
        return self._last_number

    def __contains__(self, node_id: bytes) -> bool:
        return node_id in self._heard

    def heard(self, node_id: bytes, now: float) -> None:
        """The node has shown a sign of life."""
        if node_id in self._heard:
            self._heard[node_id] = now

    def leave(self, node_id: bytes) -> bool:
        """Forget a node; return whether it was one."""
        return self._heard.pop(node_id, None) is not None

    def silent(self, now: float) -> list[bytes]:
        """Return the nodes to give up; to be called every ``HEARTBEAT_SECONDS``.

        Whoever has not looked for long, because its host slept, cannot blame the others.
        """
        looked, self._looked = self._looked, now
        if looked is not None and now - looked > SILENCE_SECONDS / 2:
            self._heard = dict.fromkeys(self._heard, now)
        return [node for node, heard in self._heard.items() if now - heard > SILENCE_SECONDS]
