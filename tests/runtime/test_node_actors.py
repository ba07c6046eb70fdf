"""The node daemon and actors: from creation to death, with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from node_fakes import FakeDriver, driver, is_running, tell, wait_until

from skate.runtime.wire import messages as wire

#: A constructor that says that it runs, and then never returns.
HANG = "time.sleep(600)"


@pytest.fixture
def session() -> Iterator[FakeDriver]:
    with driver() as link:
        yield link


def kill(
    session: FakeDriver, actor_id: bytes, no_restart: bool = True, graceful: bool = False
) -> None:
    session.send(wire.KillActor(actor_id, no_restart, graceful))


def test_life_and_death(session: FakeDriver) -> None:
    actor_id = session.create_actor()
    assert session.wait_for(wire.ActorState).state == "pending"
    state = session.wait_for(wire.ActorState)
    assert (state.state, state.actor_id, state.restarts) == ("alive", actor_id, 0)
    assert tell(state.worker_address, "result = os.getpid()") == state.pid
    os.kill(state.pid, signal.SIGKILL)
    died = session.wait_for(wire.WorkerDied)
    assert died.process_id == state.worker_id
    state = session.wait_for(wire.ActorState)
    assert (state.state, state.error) == ("dead", None)
    assert "killed by SIGKILL (pid " in state.cause


def test_a_constructor_that_raises(session: FakeDriver) -> None:
    actor_id = session.create_actor("raise ValueError('no')", max_restarts=3)
    state = session.wait_for(wire.ActorState, actor_id=actor_id, state="dead")
    assert state.error == b"ValueError('no')"
    assert state.cause == "its constructor raised"


def test_restarts_are_new_processes_of_the_same_actor(session: FakeDriver) -> None:
    first = session.actor(max_restarts=1)
    os.kill(first.pid, signal.SIGKILL)
    state = session.wait_for(wire.ActorState, state="restarting")
    assert "killed by SIGKILL (pid " in state.cause
    second = session.wait_for(wire.ActorState, state="alive")
    assert (second.actor_id, second.restarts) == (first.actor_id, 1)
    assert second.worker_id != first.worker_id
    os.kill(second.pid, signal.SIGKILL)
    state = session.wait_for(wire.ActorState, state="dead")
    assert state.restarts == 1


def test_a_constructor_that_crashes_is_not_tried_for_ever(session: FakeDriver) -> None:
    actor_id = session.create_actor("os._exit(9)", max_restarts=2)
    state = session.wait_for(wire.ActorState, actor_id=actor_id, state="dead")
    assert state.restarts == 2
    assert "exited with code 9 (pid " in state.cause


def test_killed_on_request(session: FakeDriver) -> None:
    alive = session.actor(max_restarts=5)
    kill(session, alive.actor_id)
    state = session.wait_for(wire.ActorState, state="dead")
    assert "killed by skate.kill" in state.cause
    assert session.wait_for(wire.WorkerDied).cause == "killed by skate.kill"
    # Whoever asks later, or again, is told the same.
    session.send(wire.WatchActor(alive.actor_id))
    assert "killed by skate.kill" in session.wait_for(wire.ActorState, state="dead").cause
    kill(session, alive.actor_id)
    session.settle()


def test_killed_and_restarted_on_request(session: FakeDriver) -> None:
    first = session.actor(max_restarts=1)
    kill(session, first.actor_id, no_restart=False)
    second = session.wait_for(wire.ActorState, state="alive")
    assert second.restarts == 1
    kill(session, first.actor_id, no_restart=False)
    session.wait_for(wire.ActorState, state="dead")


def test_a_kill_reaches_a_constructor_that_hangs(session: FakeDriver) -> None:
    actor_id = session.create_actor(HANG)
    session.settle()
    wait_until(lambda: any(r["state"] == "actor" for r in session.rows("workers")), "no worker")
    [pid] = [r["pid"] for r in session.rows("workers") if r["state"] == "actor"]
    kill(session, actor_id)
    session.wait_for(wire.ActorState, state="dead")
    wait_until(lambda: not is_running(pid), "it is still there")


def test_the_last_handle_is_gone(session: FakeDriver) -> None:
    alive = session.actor(max_restarts=5)
    kill(session, alive.actor_id, graceful=True)
    state = session.wait_for(wire.ActorState, state="dead")
    assert "every handle to it is gone" in state.cause
    assert session.wait_for(wire.WorkerDied).cause == "exited with code 0"


def test_resources_are_held_for_life(session: FakeDriver) -> None:
    alive = session.actor(resources={"CPU": 2.0})
    waiting = session.create_actor(resources={"CPU": 1.0})
    session.wait_for(wire.ActorState, actor_id=waiting, state="pending")
    session.settle()
    assert session.find(wire.ActorState, {"actor_id": waiting}) is None
    kill(session, alive.actor_id)
    session.wait_for(wire.ActorState, actor_id=waiting, state="alive")


def test_an_actor_that_can_never_start_is_warned_of_and_can_be_killed(session: FakeDriver) -> None:
    actor_id = session.create_actor(resources={"spider": 1.0}, name="n")
    assert "actor Keeper ('n') cannot start" in session.wait_for(wire.Warn).text
    kill(session, actor_id)
    session.wait_for(wire.ActorState, actor_id=actor_id, state="dead")


def test_senseless_resources(session: FakeDriver) -> None:
    actor_id = session.create_actor(resources={"CPU": -1.0})
    state = session.wait_for(wire.ActorState, actor_id=actor_id, state="dead")
    assert "CPU must be a number" in state.cause


def test_names(session: FakeDriver) -> None:
    actor_id = session.create_actor(name="n", handle=b"handle")
    session.send(wire.GetNamedActor(1, "n", ""), wire.GetNamedActor(2, "n", "elsewhere"))
    found = session.wait_for(wire.NamedActor, request_id=1)
    assert (found.actor_id, found.handle) == (actor_id, b"handle")
    assert session.wait_for(wire.NamedActor, request_id=2).actor_id == b""
    second = session.create_actor(name="n")
    state = session.wait_for(wire.ActorState, actor_id=second)
    assert state.state == "dead"
    assert state.cause == "an actor named 'n' exists in namespace 'session'"
    kill(session, actor_id)
    session.send(wire.GetNamedActor(3, "n", "session"))
    assert session.wait_for(wire.NamedActor, request_id=3).actor_id == b""


def test_actors_of_a_dead_worker_end_unless_detached(session: FakeDriver) -> None:
    owner = session.lease(CPU=1)
    make = (
        "ids = [worker.config.worker_id + bytes([0] * 7 + [n]) for n in (1, 2)]\n"
        "for actor, detached in zip(ids, (False, True)):\n"
        "    node.send(wire.CreateActor(actor, 'A', '', '', {}, 0, 1, b'', b'', detached, 0))\n"
        "    node.wait_for(wire.ActorState, actor_id=actor, state='alive')\n"
        "result = ids"
    )
    attached, detached = tell(owner.worker_address, make)
    session.send(wire.WatchActor(attached), wire.WatchActor(detached))
    for actor in (attached, detached):
        session.wait_for(wire.ActorState, actor_id=actor, state="alive")
    os.kill(owner.pid, signal.SIGKILL)
    state = session.wait_for(wire.ActorState, actor_id=attached, state="dead")
    assert state.cause == "its owner died"
    session.settle()
    assert session.find(wire.ActorState, {"actor_id": detached}) is None


def test_every_watcher_is_told(session: FakeDriver) -> None:
    watcher = session.lease(CPU=1)
    alive = session.actor()
    code = (
        f"node.send(wire.WatchActor({alive.actor_id!r}))\n"
        "result = node.wait_for(wire.ActorState, state='alive').pid"
    )
    assert tell(watcher.worker_address, code) == alive.pid
    os.kill(alive.pid, signal.SIGKILL)
    code = "result = node.wait_for(wire.ActorState, state='dead').cause"
    assert "killed by SIGKILL (pid " in tell(watcher.worker_address, code)


def test_rows(session: FakeDriver) -> None:
    alive = session.actor(name="n")
    [row] = session.rows("actors")
    assert row["actor_id"] == alive.actor_id.hex()
    assert (row["state"], row["class_name"], row["name"]) == ("alive", "Keeper", "n")
    assert (row["namespace"], row["pid"], row["restarts"]) == ("session", alive.pid, 0)
    [worker] = [row for row in session.rows("workers") if row["state"] == "actor"]
    assert worker["actor"] == alive.actor_id.hex()


def test_many_actors_at_once(session: FakeDriver) -> None:
    made = [session.create_actor() for _ in range(50)]
    pids = {session.wait_for(wire.ActorState, actor_id=a, state="alive").pid for a in made}
    assert len(pids) == 50
