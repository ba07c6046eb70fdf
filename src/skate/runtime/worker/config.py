"""What a worker process is told when it is forked."""

from __future__ import annotations

import msgspec


class PreparedEnvironment(msgspec.Struct, frozen=True):
    """A runtime environment whose parts are on this node, as a worker enters it."""

    #: The encoded ``wire.environments.Environment``, which names it.
    environment: bytes
    env_vars: dict[str, str]
    #: Where the worker runs; "" for where it was started.
    working_dir: str = ""
    #: Directories that come first when modules are searched.
    sys_path: list[str] = []
    #: A virtual environment, whose packages come next; "" for none.
    virtual_environment: str = ""


class WorkerConfig(msgspec.Struct, frozen=True):
    """Everything a new worker needs to introduce itself; sent by the daemon through the zygote."""

    worker_id: bytes
    node_id: bytes
    #: Directory of the session, mode 0700; the worker listens on ``<process id in hex>.sock`` in
    #: it.
    session_dir: str
    #: Path of the daemon's Unix socket for node messages.
    node_address: str
    #: Path of the daemon's Unix socket for store requests.
    store_address: str
    job_id: str
    namespace: str
    #: Where the daemon writes what this worker prints.
    log_path: str
    #: None: nothing special.
    environment: PreparedEnvironment | None = None
    #: In a cluster of several nodes: where to listen for them, and the file with its token.
    host: str = ""
    token_file: str = ""
    #: Where to look for modules besides what ``sys.path`` has: what the driver's has.
    sys_path: list[str] = []
    #: Calls that raise wait for a debugger.
    post_mortem: bool = False
