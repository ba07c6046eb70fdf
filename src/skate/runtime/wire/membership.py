"""What a process and the daemon of its node say about the cluster and about jobs."""

from __future__ import annotations

import msgspec

from skate.runtime.wire.parts import Message


class Job(msgspec.Struct, array_like=True, frozen=True):
    """What a driver brings along for the tasks and actors that come from it."""

    job_id: str
    #: The driver.
    driver_id: bytes
    #: Where its named actors live.
    namespace: str
    #: Where its workers look for modules, after their own places.
    sys_path: list[str] = []
    #: Whether what its workers print goes to the driver.
    log_to_driver: bool = True


class ClusterResources(Message, tag=160):
    """Daemon to its processes: nodes have come or gone, and this is the total now."""

    resources: dict[str, float]
