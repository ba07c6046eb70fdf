"""What daemons say to each other, and to their processes about the cluster.

A node daemon serves its own drivers and workers; what it cannot serve itself it hands on to the
daemon of another node, and the answer comes back the same way.
"""

from __future__ import annotations

from skate.runtime.wire.messages import CreateActor
from skate.runtime.wire.parts import Message


class PlaceActor(Message, tag=150):
    """Head to node: give this actor a worker."""

    actor: CreateActor
    #: The process whose end is the actor's end.
    owner: bytes
    #: How often it has been restarted.
    restarts: int
