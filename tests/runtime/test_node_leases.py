"""The node daemon hands out workers: leases, their order, and how processes end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from node_fakes import FakeDriver, driver, is_running, tell, wait_until

from skate.runtime.wire import messages as wire


@pytest.fixture
def session() -> Iterator[FakeDriver]:
    with driver() as link:
        yield link


def test_registration(session: FakeDriver) -> None:
    hello = session.wait_for(wire.Hello)
    assert (hello.process_id, hello.pid) == (session.node.node_id, session.node.pid)
    answer = session.registered
    assert answer.node_id == session.node.node_id
    assert answer.resources["CPU"] == 2.0
    assert answer.resources["object_store_memory"] == 1 << 26
    assert (answer.namespace, answer.job_id) == ("session", "job")
    assert answer.log_dir.startswith(session.node.session_dir)


def test_a_lease_names_a_worker_that_answers(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    assert tell(lease.worker_address, "result = os.getpid()") == lease.pid
    assert tell(lease.worker_address, "result = worker.config.worker_id") == lease.worker_id


def test_workers_lead_groups_of_their_own_and_read_nothing(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    assert os.getpgid(lease.pid) == lease.pid
    assert tell(lease.worker_address, "result = sys.stdin.read()") == ""
    here = os.getcwd()
    assert tell(lease.worker_address, "result = os.getcwd()") == here


def test_workers_have_little_open_and_default_signals(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    # Standard streams, listener, node link, the test's connection, the directory being listed.
    assert len(tell(lease.worker_address, "result = os.listdir('/proc/self/fd')")) == 7
    code = (
        "result = [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGCHLD)]"
    )
    assert tell(lease.worker_address, code) == [True, True]


def test_workers_differ_in_their_random_numbers(session: FakeDriver) -> None:
    code = "import random; result = random.random()"
    drawn = {tell(session.lease(n, CPU=1).worker_address, code) for n in (1, 2)}
    assert len(drawn) == 2


def test_a_returned_worker_is_used_again(session: FakeDriver) -> None:
    first = session.lease(1, CPU=2)
    session.send(wire.ReturnLease(first.lease_id))
    second = session.lease(2, CPU=2)
    assert second.lease_id != first.lease_id
    assert second.worker_id == first.worker_id


def test_no_more_than_there_is(session: FakeDriver) -> None:
    first = session.lease(1, CPU=1)
    session.lease(2, CPU=1)
    session.request_lease(3, CPU=1)
    session.settle()
    assert session.find(wire.LeaseGranted, {}) is None
    session.send(wire.ReturnLease(first.lease_id))
    session.wait_for(wire.LeaseGranted, request_id=3)


def test_deeper_requests_first(session: FakeDriver) -> None:
    first = session.lease(1, CPU=2)
    session.request_lease(2, depth=0, CPU=2)
    session.request_lease(3, depth=1, CPU=2)
    session.send(wire.ReturnLease(first.lease_id))
    assert session.wait_for(wire.LeaseGranted).request_id == 3


def test_a_cancelled_request_is_not_served(session: FakeDriver) -> None:
    first = session.lease(1, CPU=2)
    session.request_lease(2, CPU=2)
    session.request_lease(3, CPU=2)
    session.send(wire.CancelLeaseRequest(2), wire.ReturnLease(first.lease_id))
    assert session.wait_for(wire.LeaseGranted).request_id == 3


def test_a_worker_that_waits_makes_room(session: FakeDriver) -> None:
    outer = session.lease(1, CPU=2)
    tell(outer.worker_address, "node.send(wire.Blocked())")
    inner = session.lease(2, depth=1, CPU=2)
    assert inner.worker_id != outer.worker_id
    tell(outer.worker_address, "node.send(wire.Resumed())")
    # Both run now; nobody else does until one of them is back.
    session.request_lease(3, CPU=1)
    session.settle()
    assert session.find(wire.LeaseGranted, {}) is None
    session.send(wire.ReturnLease(inner.lease_id))
    session.settle()
    assert session.find(wire.LeaseGranted, {}) is None
    session.send(wire.ReturnLease(outer.lease_id))
    session.wait_for(wire.LeaseGranted, request_id=3)


def test_nested_requests_to_any_depth_on_one_cpu() -> None:
    with driver(resources={"CPU": 1.0}) as session:
        address = session.lease(1, CPU=1).worker_address
        for depth in range(1, 9):
            address = tell(
                address,
                "node.send(wire.Blocked()); "
                f"result = node.lease({depth}, depth={depth}, CPU=1).worker_address",
            )


def test_what_others_wait_for_is_recalled(session: FakeDriver) -> None:
    leases = {session.lease(n, CPU=1).lease_id for n in (1, 2)}
    session.create_actor(resources={"CPU": 1.0})
    recalled = session.wait_for(wire.RecallLease).lease_id
    assert recalled in leases
    session.send(wire.ReturnLease(recalled))
    session.wait_for(wire.ActorState, state="alive")


def test_gpus_are_told_apart() -> None:
    with driver(resources={"CPU": 2.0, "GPU": 2.0}) as session:
        first, second = session.lease(1, GPU=1), session.lease(2, GPU=0.5)
        third = session.lease(3, GPU=0.5)
        assert sorted(first.gpu_ids + second.gpu_ids) == [0, 1]
        assert third.gpu_ids == second.gpu_ids


def test_senseless_resources_are_refused(session: FakeDriver) -> None:
    for number, amount in enumerate([-1.0, float("nan"), float("inf"), 1e300]):
        session.request_lease(number, CPU=amount)
        assert "CPU" in session.wait_for(wire.LeaseRefused, request_id=number).reason


def test_what_does_not_exist_waits_and_the_user_is_warned(session: FakeDriver) -> None:
    session.request_lease(1, name="train", CPU=3, spider=1)
    text = session.wait_for(wire.Warn).text
    assert "task train" in text
    assert "3 CPU, 1 spider" in text
    assert "2 CPU" in text
    assert session.find(wire.LeaseRefused, {}) is None
    # It is in nobody's way.
    session.lease(2, CPU=2)


# --------------------------------------------------------------------------- deaths


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("os._exit(3)", "exited with code 3"),
        ("raise SystemExit(4)", "exited with code 4"),
        ("node.connection.close(); time.sleep(60)", "lost its connection"),
    ],
)
def test_everybody_hears_how_a_worker_died(session: FakeDriver, code: str, cause: str) -> None:
    witness = session.lease(1, CPU=1)
    victim = session.lease(2, CPU=1)
    tell(victim.worker_address, "print('last words', end='')\nsys.stdout.flush()\n" + code)
    died = session.wait_for(wire.WorkerDied)
    assert (died.process_id, died.pid, died.cause) == (victim.worker_id, victim.pid, cause)
    with open(died.log_path) as file:
        assert file.read() == "last words\n"
    heard = tell(witness.worker_address, "result = node.wait_for(wire.WorkerDied).pid")
    assert heard == victim.pid
    assert not os.path.exists(victim.worker_address)
    # What it held is free again.
    session.lease(3, CPU=1)


def test_killed_from_outside(session: FakeDriver) -> None:
    victim = session.lease(CPU=1)
    os.kill(victim.pid, signal.SIGKILL)
    died = session.wait_for(wire.WorkerDied, process_id=victim.worker_id)
    assert (died.cause, died.log_path) == ("killed by SIGKILL", "")


def test_what_a_worker_has_started_ends_with_it(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    child = tell(
        lease.worker_address,
        "import subprocess; result = subprocess.Popen(['sleep', '600']).pid",
    )
    assert is_running(child)
    os.kill(lease.pid, signal.SIGKILL)
    session.wait_for(wire.WorkerDied)
    wait_until(lambda: not is_running(child), "the worker's child is left")


def test_the_tasks_of_the_dead_are_ended(session: FakeDriver) -> None:
    caller = session.lease(1, CPU=1)
    inner = tell(caller.worker_address, "r = node.lease(1, depth=1, CPU=1); result = r.pid")
    session.request_lease(2, CPU=2)
    os.kill(caller.pid, signal.SIGKILL)
    died = session.wait_for(wire.WorkerDied, pid=inner)
    assert died.cause == "killed because its caller died"
    session.wait_for(wire.LeaseGranted, request_id=2)


def test_requests_of_the_dead_are_dropped(session: FakeDriver) -> None:
    caller = session.lease(1, CPU=2)
    tell(caller.worker_address, "node.request_lease(1, depth=5, CPU=2)")
    session.request_lease(2, CPU=2)
    os.kill(caller.pid, signal.SIGKILL)
    session.wait_for(wire.LeaseGranted, request_id=2)


def test_an_idle_worker_may_die(session: FakeDriver) -> None:
    lease = session.lease(1, CPU=1)
    session.send(wire.ReturnLease(lease.lease_id))
    os.kill(lease.pid, signal.SIGKILL)
    session.wait_for(wire.WorkerDied, process_id=lease.worker_id)
    pids = {session.lease(n, CPU=1).pid for n in (2, 3)}
    assert lease.pid not in pids


def test_surplus_workers_retire() -> None:
    with driver(resources={"CPU": 1.0}) as session:
        leases = [session.lease(n) for n in range(3)]
        for lease in leases:
            session.send(wire.ReturnLease(lease.lease_id))
        for _ in range(2):
            died = session.wait_for(wire.WorkerDied)
            assert died.cause == "exited with code 0"
        assert len(session.rows("workers")) == 1


def test_a_surplus_worker_that_is_needed_stays_and_is_used_again() -> None:
    with driver(resources={"CPU": 1.0}) as session:
        leases = [session.lease(n) for n in range(2)]
        for lease in leases:
            tell(lease.worker_address, "worker.needed = True")
            session.send(wire.ReturnLease(lease.lease_id))
        # The first of them is told to exit when it has been idle for a while, and refuses.
        code = "result = worker.exits"
        wait_until(lambda: any(tell(x.worker_address, code) for x in leases), "nobody is told")
        session.settle()
        again = {session.lease(10 + n).worker_id for n in range(2)}
        assert again == {lease.worker_id for lease in leases}
        assert session.find(wire.WorkerDied, {}) is None


def test_a_worker_that_lost_another_process_is_ended(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    session.send(wire.PeerLost(b"nobody"), wire.PeerLost(lease.worker_id))
    died = session.wait_for(wire.WorkerDied, process_id=lease.worker_id)
    assert died.cause == "lost its connection to another process of the session"


def test_nobody_is_given_a_worker_that_is_being_killed(session: FakeDriver) -> None:
    lease = session.lease(1)
    # In one frame: the daemon decides about the request before the worker can have ended.
    for message in (
        wire.ReturnLease(lease.lease_id),
        wire.PeerLost(lease.worker_id),
        wire.RequestLease(2, {}, 0, "f"),
    ):
        session.connection.send(message)
    session.send()
    assert session.wait_for(wire.LeaseGranted, request_id=2).worker_id != lease.worker_id


def test_workers_that_cannot_start() -> None:
    with driver(worker_module="node_broken_worker") as session:
        session.request_lease(1, name="f", CPU=1)
        reason = session.wait_for(wire.LeaseRefused, request_id=1).reason
        assert "worker processes cannot be started: exited with code 1" in reason
        assert "ZeroDivisionError" in reason
        actor_id = session.create_actor()
        state = session.wait_for(wire.ActorState, actor_id=actor_id, state="dead")
        assert "ZeroDivisionError" in state.cause


def test_state_rows(session: FakeDriver) -> None:
    lease = session.lease(CPU=0.5)
    [node] = session.rows("nodes")
    assert node["NodeID"] == session.node.node_id.hex()
    assert node["Alive"] is True
    assert node["Resources"]["CPU"] == 2.0
    [total] = session.rows("cluster_resources")
    [free] = session.rows("available_resources")
    assert (total["CPU"], free["CPU"]) == (2.0, 1.5)
    leased = [row for row in session.rows("workers") if row["state"] == "leased"]
    assert [row["pid"] for row in leased] == [lease.pid]
    assert session.rows("actors") == []
    assert session.rows("unicorns") == []


@pytest.mark.timeout(120)
def test_two_hundred_workers_at_once(session: FakeDriver) -> None:
    for number in range(200):
        session.request_lease(number)
    leases = [session.wait_for(wire.LeaseGranted, request_id=n, timeout=60) for n in range(200)]
    assert len({lease.pid for lease in leases}) == 200
    assert {tell(lease.worker_address, "result = 1") for lease in leases} == {1}
    session.shutdown()
