"""``skate.state``: what lists and summaries say of a session with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

import skate
from skate import state
from skate.refs import ObjectRef
from skate.runtime.worker.cells import Cell

pytestmark = [pytest.mark.usefixtures("session"), pytest.mark.timeout(180)]

Until = Callable[[Callable[[], Any]], Any]


@skate.remote
def double(x: int) -> int:
    return 2 * x


@skate.remote
def refuse() -> None:
    raise ValueError("no good")


@skate.remote
def wait_for(path: str) -> None:
    with open(path):  # a pipe: until somebody writes to it
        pass


@skate.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, refs: list[Any]) -> int:
        self.kept += refs
        return os.getpid()


@pytest.fixture
def gate(tmp_path: Any) -> Any:
    """A path that ``wait_for`` waits for, and the function that lets it go on."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)

    def open_it() -> None:
        for _ in range(10):
            os.close(os.open(path, os.O_RDWR))
        threading.Thread(target=lambda: os.open(path, os.O_WRONLY), daemon=True).start()

    return path, open_it


@skate.remote
def wait_a_little() -> None:
    time.sleep(0.003)


def states(name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task in state.list_tasks(filters=[("name", "=", name)], limit=10_000):
        counts[task.state] = counts.get(task.state, 0) + 1
    return counts


def test_tasks_that_run_wait_and_have_ended(gate: Any, until: Until) -> None:
    path, _ = gate
    assert skate.get([double.remote(i) for i in range(20)]) == list(range(0, 40, 2))
    failed = refuse.remote()
    with pytest.raises(ValueError, match="no good"):
        skate.get(failed)
    running = [wait_for.remote(path) for _ in range(5)]
    dependent = double.remote(running[0])
    until(lambda: states("wait_for") == {"RUNNING": 2, "PENDING_NODE_ASSIGNMENT": 3})

    rows = {task.task_id: task for task in state.list_tasks(limit=1000)}
    first = rows[running[0].hex()]
    assert first.type == "NORMAL_TASK"
    assert first.worker_pid != os.getpid()
    assert first.required_resources == {"CPU": 1.0}
    assert first.start_time_ms is not None
    assert first.end_time_ms is None
    waiting = rows[dependent.hex()]
    assert (waiting.state, waiting.waits_for) == ("PENDING_ARGS_AVAIL", [running[0].hex()])
    error = rows[failed.hex()]
    assert (error.state, error.error_type, error.error_message) == (
        "FAILED",
        "ValueError",
        "no good",
    )
    done = [task for task in rows.values() if task.state == "FINISHED"]
    assert len(done) == 20
    assert all(task.end_time_ms >= task.start_time_ms for task in done)  # type: ignore[operator]
    # Running ones come first.
    assert [task.state for task in state.list_tasks(limit=3)][:2] == ["RUNNING", "RUNNING"]


def test_rows_are_like_dictionaries() -> None:
    [node] = state.list_nodes()
    assert node["node_id"] == node.node_id == node.get("node_id")
    assert node.get("nothing", 3) == 3
    assert "state" in node
    assert dict(node.items()) == node.asdict()
    with pytest.raises(KeyError):
        node["nothing"]


def test_filters(gate: Any, until: Until) -> None:
    path, _ = gate
    skate.get([double.remote(i) for i in range(5)])
    running = wait_for.remote(path)
    until(lambda: states("wait_for") == {"RUNNING": 1})
    [row] = state.list_tasks(filters=[("state", "=", "running")])
    assert row.task_id == running.hex()
    assert len(state.list_tasks(filters=[("state", "!=", "RUNNING")])) == 5
    now = row.start_time_ms
    assert len(state.list_tasks(filters=[("end_time_ms", ">", now - 1e6)])) == 5
    assert state.list_tasks(filters=[("end_time_ms", "<", now - 1e6)]) == []
    assert len(state.list_tasks(filters=[("name", "=", "double")], limit=2)) == 2
    with pytest.raises(ValueError, match=r"no column 'stat'.*did you mean 'state'"):
        state.list_tasks(filters=[("stat", "=", "RUNNING")])
    with pytest.raises(ValueError, match="no operator '=='"):
        state.list_tasks(filters=[("state", "==", "RUNNING")])
    with pytest.raises(TypeError, match="list of"):
        state.list_tasks(filters="state=RUNNING")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        state.list_tasks(limit=0)


def test_as_many_tasks_as_asked_for_whatever_else_has_happened() -> None:
    for _ in range(12):
        skate.get([double.remote(i) for i in range(20)])
        # The driver has waited, which is the newest that there is.
        skate.wait([wait_a_little.remote()])
        for limit in (1, 3, 20):
            assert len(state.list_tasks(limit=limit)) == limit


def test_objects_and_who_holds_them(until: Until) -> None:
    big = skate.put(np.zeros(1 << 20))
    keeper = Keeper.remote()
    pid = skate.get(keeper.keep.remote([big]))
    view = skate.get(big)
    rows = state.list_objects(filters=[("object_id", "=", big.hex())])
    owner, borrower = sorted(rows, key=lambda row: not row.owned)
    assert (owner.location, owner.pid, owner.holder) == ("MEMORY", os.getpid(), "driver")
    assert owner.object_size is not None
    assert owner.object_size > 8 << 20
    assert owner.local_references == 1
    assert owner.reference_type == "PINNED_IN_MEMORY"
    assert [name.split(" (")[0] for name in owner.borrowers] == ["actor Keeper"]
    assert (borrower.pid, borrower.holder, borrower.owned) == (pid, "actor Keeper", False)
    del view
    object_id = big.hex()
    until(
        lambda: (
            [o.reference_type for o in state.get_objects(object_id) if o.owned]
            == ["LOCAL_REFERENCE"]
        )
    )
    outer = skate.put([big])
    del big
    skate.kill(keeper)
    held = state.get_object(object_id)
    assert held is not None
    assert (held.reference_type, held.captured_in) == ("CAPTURED_IN_OBJECT", 1)
    del outer
    until(lambda: state.get_objects(object_id) == [])


def test_actors_workers_nodes_and_jobs(until: Until) -> None:
    keeper = Keeper.options(name="archive", num_cpus=1).remote()
    pid = skate.get(keeper.keep.remote([]))
    [actor] = state.list_actors()
    assert (actor.class_name, actor.name, actor.state, actor.pid) == (
        "Keeper",
        "archive",
        "ALIVE",
        pid,
    )
    assert actor.ray_namespace == "state-tests"
    assert actor.required_resources == {"CPU": 1.0}
    assert state.get_actor(actor.actor_id) == actor
    [worker] = state.list_workers(filters=[("pid", "=", pid)])
    assert (worker.state, worker.actor_id) == ("actor", actor.actor_id)
    [driver] = state.list_workers(filters=[("worker_type", "=", "driver")])
    assert driver.pid == os.getpid()
    [node] = state.list_nodes()
    assert (node.state, node.resources_total["CPU"]) == ("ALIVE", 2.0)
    assert node.resources_available["CPU"] == 1.0
    [job] = state.list_jobs()
    assert job.driver_pid == os.getpid()
    skate.kill(keeper)
    until(lambda: state.get_actor(actor.actor_id).state == "DEAD")  # type: ignore[union-attr]
    assert "skate.kill" in (state.get_actor(actor.actor_id).death_cause or "")  # type: ignore[union-attr]
    assert state.get_actor("00") is None


def test_summaries() -> None:
    skate.get([double.remote(i) for i in range(7)])
    keeper = Keeper.remote()
    skate.get(keeper.keep.remote([]))
    cluster = state.summarize_tasks()["cluster"]
    assert cluster["summary"]["double"]["state_counts"] == {"FINISHED": 7}
    assert (cluster["total_tasks"], cluster["total_actor_tasks"]) == (7, 1)
    assert state.summarize_actors()["cluster"]["summary"]["Keeper"]["state_counts"] == {"ALIVE": 1}
    ref = skate.put(b"x" * 1_000_000)
    objects = state.summarize_objects()["cluster"]
    assert objects["total_size_mb"] == pytest.approx(1.0, rel=0.1)
    del ref


def stop(pid: int, until: Until) -> None:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_a_worker_that_is_stopped_costs_its_rows_only(gate: Any, until: Until) -> None:
    path, _ = gate
    stopped, other = wait_for.remote(path), wait_for.remote(path)
    until(lambda: states("wait_for") == {"RUNNING": 2})
    [victim] = state.list_tasks(filters=[("task_id", "=", stopped.hex())])
    assert victim.worker_pid is not None
    stop(victim.worker_pid, until)
    try:
        with pytest.warns(state.MissingStateWarning) as caught:
            rows = state.list_tasks(timeout=2)
        assert f"pid {victim.worker_pid}" in str(caught[0].message)
        assert "stopped" in str(caught[0].message)
        found = {row.task_id: row.state for row in rows}
        # Its owner still knows that it has been sent there.
        assert found == {stopped.hex(): "SUBMITTED_TO_WORKER", other.hex(): "RUNNING"}
        with pytest.raises(state.StateError, match="stopped"):
            state.list_tasks(timeout=2, raise_on_missing_output=True)
    finally:
        os.kill(victim.worker_pid, signal.SIGCONT)
    until(lambda: states("wait_for") == {"RUNNING": 2})


def test_a_worker_that_dies_while_it_is_asked(gate: Any, until: Until) -> None:
    path, _ = gate
    refs = [wait_for.options(max_retries=0).remote(path) for _ in range(2)]
    until(lambda: states("wait_for") == {"RUNNING": 2})
    victim = state.list_tasks(filters=[("state", "=", "RUNNING")])[0]
    assert victim.worker_pid is not None
    stop(victim.worker_pid, until)
    killer = threading.Timer(0.3, os.kill, (victim.worker_pid, signal.SIGKILL))
    killer.start()
    with pytest.warns(state.MissingStateWarning, match="ended before it answered"):
        state.list_tasks()
    killer.join()
    lost = next(ref for ref in refs if ref.hex() == victim.task_id)
    with pytest.raises(skate.exceptions.WorkerCrashedError):
        skate.get(lost)
    # Whoever ran it cannot say how it ended, its owner can.
    row = state.get_task(lost.hex())
    assert isinstance(row, state.TaskState)
    assert (row.state, row.error_type) == ("FAILED", "WorkerCrashedError")


def test_what_ended_workers_have_done_is_known() -> None:
    keeper = Keeper.remote()
    skate.get([keeper.keep.remote([]) for _ in range(3)])
    actor_id = state.list_actors()[0].actor_id
    del keeper
    assert states("Keeper.keep") == {"FINISHED": 3}
    calls = state.list_tasks(filters=[("actor_id", "=", actor_id)])
    assert {call.type for call in calls} == {"ACTOR_TASK", "ACTOR_CREATION_TASK"}


def test_tasks_look_too() -> None:
    @skate.remote
    def look() -> list[str]:
        return [task.name.rpartition(".")[2] for task in state.list_tasks() if not task.blocked]

    @skate.remote
    def outer() -> int:
        skate.get(look.remote())
        return len(state.list_tasks(filters=[("blocked", "=", True)]))

    assert "look" in skate.get(look.remote())
    assert skate.get(outer.remote()) == 0


ATTACH = """
import sys
from skate import state
print(len(state.list_tasks(filters=[("name", "=", "double")])), state.list_jobs()[0].driver_pid)
"""


def test_attaching_from_another_process() -> None:
    skate.get([double.remote(i) for i in range(3)])
    directory = state.list_nodes()[0].session_dir
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", ATTACH],
            env={**os.environ, "SKATE_ADDRESS": directory},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == ["3", str(os.getpid())]
    # Nothing has ended with them.
    assert skate.get(double.remote(4)) == 8
    assert len(state.list_workers(filters=[("worker_type", "=", "driver")])) == 1


def test_an_address_that_is_none(tmp_path: Any) -> None:
    with pytest.raises(skate.exceptions.SessionError, match="no session runs at"):
        state.list_nodes(address=str(tmp_path))


def test_placement_groups_and_runtime_environments(until: Until) -> None:
    from skate.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": 1}], strategy="PACK", name="corner")
    assert group.wait(30)
    [row] = state.list_placement_groups()
    assert (row.name, row.strategy, row.state) == ("corner", "PACK", "CREATED")
    assert row.bundles == [{"CPU": 1.0}]
    assert state.get_placement_group(row.placement_group_id) == row
    remove_placement_group(group)
    until(lambda: state.list_placement_groups(filters=[("state", "=", "CREATED")]) == [])

    assert state.list_runtime_envs() == []
    environment = {"env_vars": {"SECRET": "hidden"}}
    assert skate.get(double.options(runtime_env=environment).remote(2)) == 4
    [env] = state.list_runtime_envs()
    assert env.state == "READY"
    assert "SECRET" in env.runtime_env
    assert "hidden" not in env.runtime_env


def test_the_name_of_ray() -> None:
    from skate.util.state import list_nodes, summarize_tasks

    assert list_nodes is state.list_nodes
    assert summarize_tasks is state.summarize_tasks
    assert skate.util.state.list_tasks is state.list_tasks


def test_objects_that_are_just_being_made_are_left_out() -> None:
    """Whoever looks may come between the making of a cell and the end of its constructor."""
    ref = skate.put(1)
    unfinished = [kind.__new__(kind) for kind in (Cell, ObjectRef)]
    assert ref.hex() in {row.object_id for row in state.list_objects()}
    del unfinished
