"""Killing a whole node, as when its machine loses power."""

from __future__ import annotations

import os
import signal

from node_fakes import is_running, processes_of, wait_until

from skate.cluster_utils import ClusterNode


def kill_node(node: ClusterNode) -> None:
    """SIGKILL for everything that the node consists of, the daemon first."""
    pids = processes_of(node.process.session_dir)
    assert len(pids) >= 2
    for pid in [node.pid, *pids]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    node.process.kill()
    wait_until(lambda: not any(map(is_running, pids)), "they are gone")
