"""Starting a session: the node daemon first, then the engine that talks to it.

The engine is imported only when the daemon has been started: the two take equally long, and so they
do it at the same time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from skate.engine.base import SessionConfig
from skate.exceptions import RuntimeEnvSetupError, SessionError
from skate.ids import new_process_id
from skate.runtime.node.config import ClusterConfig, NodeConfig
from skate.runtime.node.launch import launch

if TYPE_CHECKING:
    from skate.engine.native import DriverEngine, GuestEngine


def node_config(
    config: SessionConfig, job_id: str, owner_pid: int, cluster: ClusterConfig | None = None
) -> NodeConfig:
    """Return what a node daemon is told of a session."""
    return NodeConfig(
        resources=config.resources,
        object_store_memory=config.object_store_memory,
        spill_uri=config.spill_uri,
        job_id=job_id,
        driver_pid=owner_pid,
        namespace=config.namespace,
        preload=list(config.preload),
        post_mortem=config.post_mortem,
        hang_warning_s=config.hang_warning_s,
        log_to_driver=config.log_to_driver,
        metrics_port=config.metrics_port,
        metrics_host=config.metrics_host,
        memory_usage_threshold=config.memory_usage_threshold,
        sys_path=list(sys.path),
        cluster=cluster,
    )


def start(config: SessionConfig) -> DriverEngine | GuestEngine:
    """Start a session on this machine, or join a cluster, and connect to it.

    Raises:
        SessionError: the node daemon could not be started (the message has the end of its log), or
            there is no such cluster.
    """
    if config.address != "local":
        return _join(config)
    process_id = new_process_id()
    node = launch(node_config(config, process_id.hex(), os.getpid()))
    try:
        from skate.engine.native import DriverEngine, show_output
        from skate.runtime.worker.core import Core

        core = Core(
            process_id,
            node.node_id,
            node.session_dir,
            node.node_address,
            node.store_address,
            is_driver=True,
        )
        output = show_output(core)
        core.register("driver")
        core.environments.adopt(config.runtime_env)
    except RuntimeEnvSetupError:
        node.kill()
        raise
    except SessionError as error:
        reason = node.explain()
        node.kill()
        raise SessionError(f"the session could not be started: {reason}") from error
    except BaseException:
        node.kill()
        raise
    core.node_ended = node.describe_end
    return DriverEngine(core, node, output)


def _join(config: SessionConfig) -> GuestEngine:
    # Most drivers have a session of their own.
    from skate.engine.native import GuestEngine, show_output
    from skate.runtime.node import session_dir, standing
    from skate.runtime.wire.addresses import Access
    from skate.runtime.wire.authentication import read_token
    from skate.runtime.wire.messages import Job
    from skate.runtime.worker.core import Core

    node = standing.find(config.address)
    process_id = new_process_id()
    core = Core(
        process_id,
        node.node_id,
        node.paths.directory,
        node.paths.node_socket,
        node.paths.store_socket,
        is_driver=True,
        access=Access(node.host, read_token(node.paths.token)),
    )
    output = show_output(core)
    job = Job(
        process_id.hex(),
        process_id,
        config.namespace,
        [str(entry) for entry in sys.path],
        config.log_to_driver,
    )
    try:
        core.register("driver", job)
        core.environments.adopt(config.runtime_env)
    except BaseException:
        core.close()
        raise
    core.node_ended = lambda: f"(pid {node.pid}) has ended{session_dir.describe_log(node.paths)}"
    return GuestEngine(core, output)
