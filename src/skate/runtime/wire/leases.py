"""Messages about leases: who may push tasks to which worker."""

from __future__ import annotations

from skate.engine.base import Strategy
from skate.runtime.wire.membership import Job
from skate.runtime.wire.parts import Message


class BeginLease(Message, tag=10):
    """The caller will push tasks under this lease; sent once before the first of them."""

    lease_id: int
    resources: dict[str, float]
    gpu_ids: list[int]
    strategy: Strategy | None = None


class RequestLease(Message, tag=42):
    """I have work for one (more) worker with these resources."""

    request_id: int
    resources: dict[str, float]
    #: Requests of deeper tasks are served first, so that nesting goes depth first.
    depth: int
    #: What the work is called, for warnings about resources that do not exist.
    name: str
    #: The runtime environment of the worker, see ``wire.environments``; empty for nothing special.
    environment: bytes = b""
    strategy: Strategy | None = None
    #: Whether the tasks may run again if their worker is killed to save memory.
    retriable: bool = True
    #: Bytes of the large arguments of the work, by the node that has them.
    argument_bytes: dict[bytes, int] | None = None
    #: Set by the daemon where several drivers share it: whose work it is.
    job: Job | None = None


class LeaseGranted(Message, tag=43):
    request_id: int
    lease_id: int
    worker_id: bytes
    worker_address: str
    pid: int
    gpu_ids: list[int]


class LeaseRefused(Message, tag=44):
    """The request can never be served."""

    request_id: int
    #: For the user.
    reason: str
    #: As in ``WorkerDied``.
    kind: str = ""


class CancelLeaseRequest(Message, tag=45):
    request_id: int


class ReturnLease(Message, tag=46):
    lease_id: int


class RecallLease(Message, tag=47):
    """Others wait for what this lease holds: give it back as soon as it is decent."""

    lease_id: int
