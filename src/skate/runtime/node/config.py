"""What a driver tells the node daemon that it starts, and the directory they share."""

from __future__ import annotations

import os

import msgspec


class ClusterConfig(msgspec.Struct):
    """A node's part in a cluster of several nodes."""

    #: Where to listen for the others: a name or address of this host.
    host: str
    #: 0: any free one.
    port: int = 0
    #: ``host:port`` of the head's daemon; "" makes this node the head.
    head: str = ""


class NodeConfig(msgspec.Struct):
    """A session as the driver wants it.  Amounts of resources are logical, memory is in bytes."""

    #: ``CPU``, ``GPU``, ``memory`` (bytes) and custom names.
    resources: dict[str, float]
    #: Most bytes of shared memory for objects.
    object_store_memory: int
    job_id: str
    #: The process whose end is that of the node; 0 for none.
    driver_pid: int
    namespace: str = ""
    #: Modules that workers find imported.
    preload: list[str] = []
    #: Workers are ended when a larger share of the machine's memory is in use; 1.0: never.
    memory_usage_threshold: float = 0.95
    #: Calls that raise wait for a debugger.
    post_mortem: bool = False
    #: Calls that wait so many seconds are reported to the driver's user; None: never.
    hang_warning_s: float | None = None
    #: Forward the output of workers to the driver.
    log_to_driver: bool = True
    #: Serve metrics to Prometheus on this port; 0: any that is free, -1: not at all.
    metrics_port: int = -1
    metrics_host: str = "127.0.0.1"
    #: ``sys.path`` of the driver, for all processes of the session.
    sys_path: list[str] = []
    #: Where objects go when memory is full: a directory or a URL of fsspec; "": on some disk.
    spill_uri: str = ""
    #: The module whose ``main(config: WorkerConfig)`` is a worker.
    worker_module: str = "skate.runtime.worker.main"
    #: None: a session of one driver on one node, which nobody else can join.
    cluster: ClusterConfig | None = None


#: Ends the line of the daemon's log that says why it ends.
LAST_WORDS = "; this node ends"


class Paths:
    """The files of one session, all below its directory."""

    __slots__ = (
        "description",
        "directory",
        "kept_logs",
        "lock",
        "log_dir",
        "node_log",
        "node_socket",
        "spill",
        "store_socket",
        "token",
    )

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.node_socket = os.path.join(directory, "node.sock")
        self.store_socket = os.path.join(directory, "store.sock")
        #: In clusters: the token, and for those who want to join what node this is.
        self.token = os.path.join(directory, "token")
        self.description = os.path.join(directory, "node.json")
        self.lock = os.path.join(directory, "lock")
        #: Spilled objects, or a link to where they are.
        self.spill = os.path.join(directory, "spill")
        self.log_dir = os.path.join(directory, "logs")
        self.node_log = os.path.join(self.log_dir, "node.log")
        #: Where the logs of crashed processes outlive the session.
        sessions, name = os.path.split(directory)
        base, user = os.path.split(sessions)
        self.kept_logs = os.path.join(base, user.replace("skate-", "skate-logs-", 1), name)

    def worker_log(self, worker_id: bytes) -> str:
        """Where the output of a worker goes, if there is any."""
        return os.path.join(self.log_dir, f"worker-{worker_id.hex()}.log")

    def worker_socket(self, worker_id: bytes) -> str:
        """Where a worker listens for its peers."""
        return os.path.join(self.directory, f"{worker_id.hex()}.sock")
