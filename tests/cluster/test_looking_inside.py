"""The state API on a cluster: every node's processes are asked, through one daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from patience import until

import skate
from skate import state
from skate.cluster_utils import Cluster

pytestmark = pytest.mark.timeout(180)


@skate.remote
def wait_for(path: str) -> None:
    with open(path):
        pass


@skate.remote
def node() -> str:
    return skate.get_runtime_context().get_node_id()


@skate.remote
class Keeper:
    def keep(self, refs: list[Any]) -> str:
        self.refs = refs
        print("kept")
        return skate.get_runtime_context().get_node_id()


HERE = {"resources": {"here": 1}}
THERE = {"resources": {"there": 1}}


def test_rows_of_all_nodes(two_nodes: Cluster, tmp_path: Any) -> None:
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    here, there = skate.get([node.options(**HERE).remote(), node.options(**THERE).remote()])
    assert here != there
    nodes = {row.node_id: row for row in state.list_nodes()}
    assert set(nodes) == {here, there}
    assert nodes[here].is_head_node
    assert not nodes[there].is_head_node
    assert nodes[here].session_dir != nodes[there].session_dir
    assert nodes[there].resources_total["there"] == 9

    # Finished on both, running on both.
    running = [wait_for.options(**HERE).remote(path), wait_for.options(**THERE).remote(path)]
    until(lambda: len(state.list_tasks(filters=[("state", "=", "RUNNING")])) == 2)
    tasks = state.list_tasks()
    assert {t.node_id for t in tasks if t.state == "RUNNING"} == {here, there}
    assert {t.node_id for t in tasks if t.state == "FINISHED"} == {here, there}
    [job] = state.list_jobs()
    assert {task.job_id for task in tasks} == {job.job_id}
    workers = state.list_workers()
    assert {worker.node_id for worker in workers} == {here, there}
    assert [w.pid for w in workers if w.worker_type == "DRIVER"] == [os.getpid()]

    # An actor there holds an object of here.
    keeper = Keeper.options(**THERE).remote()
    big = skate.put(np.zeros(1 << 18))
    assert skate.get(keeper.keep.remote([big])) == there
    [actor] = state.list_actors()
    assert (actor.node_id, actor.state) == (there, "ALIVE")
    held = state.get_objects(big.hex())
    assert {(row.node_id, row.holder) for row in held} == {
        (here, "driver"),
        (there, "actor Keeper"),
    }
    stacks = {stack.pid: stack for stack in state.get_stacks()}
    [far] = [t for t in tasks if t.state == "RUNNING" and t.node_id == there]
    assert far.worker_pid is not None
    assert "open(path)" in stacks[far.worker_pid].threads[0].stack
    [only] = state.get_stacks([far.worker_pid])
    assert only.node_id == there

    status = state.session_status()
    assert len(status.nodes) == 2
    assert status.resources_total["CPU"] == 4
    assert status.drivers == [os.getpid()]
    events = skate.timeline()
    assert events is not None
    pids = {event["pid"] for event in events if event["name"] == "node"}
    assert len(pids) == 2

    # Attached through either node a tool sees the same.
    ids = {task.task_id for task in state.list_tasks()}
    for address in (two_nodes.address, nodes[here].session_dir, nodes[there].session_dir):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from skate.cli import main; main(prog_name='skate')",
                *("list", "tasks", "--format", "json", "--address", address),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert {row["task_id"] for row in json.loads(done.stdout)} == ids
        until(lambda: list(state.get_log(actor_id=actor.actor_id)) == ["kept\n"])
    del running


def test_a_node_that_hangs_costs_its_own_rows(two_nodes: Cluster) -> None:
    here, there = skate.get([node.options(**HERE).remote(), node.options(**THERE).remote()])
    [far] = [row for row in state.list_nodes() if row.node_id == there]
    os.kill(far.daemon_pid, signal.SIGSTOP)
    try:
        until(lambda: psutil.Process(far.daemon_pid).status() == psutil.STATUS_STOPPED)
        with pytest.warns(state.MissingStateWarning, match=there):
            tasks = state.list_tasks(timeout=2)
    finally:
        os.kill(far.daemon_pid, signal.SIGCONT)
    assert {task.node_id for task in tasks if task.state == "FINISHED"} == {here}


def test_a_node_that_is_gone_is_listed_as_dead(two_nodes: Cluster) -> None:
    here, there = skate.get([node.options(**HERE).remote(), node.options(**THERE).remote()])
    [gone] = [one for one in two_nodes.list_all_nodes if one.node_id == there]
    two_nodes.remove_node(gone, allow_graceful=False)
    until(
        lambda: (
            {row.node_id: row.state for row in state.list_nodes()} == {here: "ALIVE", there: "DEAD"}
        )
    )
    # What was done there went with its daemon.
    assert {t.node_id for t in state.list_tasks() if t.name == "node"} == {here}


def test_a_cluster_is_one_session_to_choose(two_nodes: Cluster) -> None:
    directories = {node.session_dir for node in state.list_nodes()}
    assert len(directories) == 2
    assert len([one for one in state.list_sessions() if one.directory in directories]) == 1


def test_nodes_without_a_driver() -> None:
    """``skate start``: what tools see of nodes that nobody uses, and their metrics."""
    # Unix socket paths are short: pytest's directories are not.
    directory = Path("/tmp") / f"skt-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    environment = {**os.environ, "TMPDIR": str(directory)}
    environment.pop("SKATE_ENGINE", None)

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from skate.cli import main; main()", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = command("start", "--head", "--num-cpus", "2", "--metrics-port", str(port))
    [address] = re.findall(r"SKATE_ADDRESS=(\S+)", text)
    try:
        for chosen in ([], ["--address", address], ["--address", f"skate://{address}"]):
            status = command("status", *chosen)
            assert "driver pid none\n" in status
            assert "up 0.0s" not in status
            assert "0 of 2 CPU" in status
        assert command("list", "jobs") == "no jobs\n"
        [row] = json.loads(command("list", "nodes", "--format", "json"))
        assert (row["state"], row["is_head_node"]) == ("ALIVE", True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert 'skate_resources_total{resource="CPU"} 2' in answer.read().decode()
    finally:
        command("stop", "--address", address)
        shutil.rmtree(directory)


def test_transfers_are_in_the_timeline_of_the_node_that_received(two_nodes: Cluster) -> None:
    @skate.remote
    def total(array: Any) -> tuple[float, str]:
        return float(array.sum()), skate.get_runtime_context().get_node_id()

    big = skate.put(np.ones(1 << 19))
    result, there = skate.get(total.options(**THERE).remote(big))
    assert result == 1 << 19
    [far] = [row for row in state.list_nodes() if row.node_id == there]
    events = skate.timeline()
    assert events is not None
    [moved] = [event for event in events if event.get("cat") == "transfer"]
    here = skate.get_runtime_context().get_node_id()
    # Its size is that of what it was pickled to.
    assert re.fullmatch(
        f"transfer object {big.hex()} \\(419[0-9]{{4}} bytes\\) from {here}", moved["name"]
    )
    assert moved["pid"] == far.daemon_pid
    # It was needed before the task could begin.
    [task] = [event for event in events if event["name"] == "total" and event["cat"] == "task"]
    assert moved["ts"] + moved["dur"] < task["ts"] + task["dur"]


def test_rows_name_the_line_that_made_what(two_nodes: Cluster) -> None:
    @skate.remote
    def make() -> Any:
        return np.zeros(1 << 18)

    ref = make.options(**THERE).remote()
    skate.wait([ref], fetch_local=False)
    big = skate.put(np.zeros(1 << 18))
    line = sys._getframe().f_lineno - 1
    keeper = Keeper.options(**THERE).remote()
    skate.get(keeper.keep.remote([ref]))
    [put] = [row for row in state.list_objects() if row.object_id == big.hex()]
    assert put.call_site == f"{__file__}:{line}"
    # What a task has returned has the name of the task, for all who hold it.
    sites = {row.holder: row.call_site for row in state.get_objects(ref.hex())}
    assert sites == {"driver": "make", "actor Keeper": "make"}


def test_tables_name_the_node_where_there_are_several(two_nodes: Cluster) -> None:
    here, there = skate.get([node.options(**HERE).remote(), node.options(**THERE).remote()])
    directory = next(row.session_dir for row in state.list_nodes() if row.is_head_node)
    for arguments in (["list", "tasks"], ["list", "workers"], ["top", "--once"]):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from skate.cli import main; main(prog_name='skate')",
                *arguments,
                "--address",
                directory,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        header, *rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
        column = header.index("NODE" if arguments[0] == "top" else "NODE_ID")
        assert {row[column] for row in rows} == {here, there}, done.stdout
