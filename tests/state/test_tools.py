"""Tools on the node socket: what they may say, and that they end nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from node_fakes import PATIENCE, NodeClient, wait_until

import skate
from skate import state
from skate.exceptions import SessionError
from skate.ids import new_process_id
from skate.runtime.node.config import Paths
from skate.runtime.tool import sessions
from skate.runtime.tool.attach import Attached, attach
from skate.runtime.wire import messages as wire

pytestmark = [pytest.mark.usefixtures("session"), pytest.mark.timeout(180)]


def tool() -> NodeClient:
    client = NodeClient(Paths(directory()).node_socket, new_process_id())
    client.send(wire.Register("tool", ""))
    client.wait_for(wire.Registered)
    return client


def directory() -> str:
    return state.list_nodes()[0].session_dir


@skate.remote
def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize(
    "message",
    [
        wire.Shutdown(),
        wire.ReturnLease(1),
        wire.KillActor(bytes(16), True, False),
        wire.RequestLease(1, {"CPU": 1.0}, 0, "stolen"),
        wire.EventsFlushed(b"", 0),
        wire.MetricsFlushed(b"\x90"),
        wire.Register("tool", ""),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_tool_that_wants_more_than_to_look_is_cut_off(message: Any) -> None:
    client = tool()
    client.send(message)
    wait_until(lambda: client.closed or client.receive(0.1), "it is still connected")
    assert skate.get(double.remote(2)) == 4


def test_tools_hear_of_nothing_that_they_have_not_asked_for() -> None:
    client = tool()
    # Everybody else hears of this death.
    os.kill(skate.get(process_id.remote()), 9)
    wait_until(lambda: skate.get(double.remote(3)) == 6, "it does not go on")
    client.send(wire.StateRequest(5, "nodes"))
    assert client.wait_for(wire.StateAnswer).request_id == 5
    assert client.inbox == [] or all(isinstance(m, wire.Hello) for m in client.inbox)


@skate.remote
def process_id() -> int:
    return os.getpid()


@pytest.mark.parametrize("timeout", [float("nan"), float("-inf"), -1.0, 0.0, 1e300])
def test_no_time_at_all_is_no_trouble(timeout: float) -> None:
    client = tool()
    client.send(wire.Inspect(3, "tasks", -5, [("state", "?", None)], timeout, []))
    assert client.wait_for(wire.Inspection, PATIENCE).request_id == 3
    assert skate.get(double.remote(2)) == 4


def test_a_tool_that_leaves_in_the_middle() -> None:
    for _ in range(5):
        client = tool()
        client.send(wire.Inspect(1, "stacks", 100, [], 5.0, []))
        client.connection.close()
    assert skate.get(double.remote(2)) == 4
    assert len(state.list_workers(filters=[("worker_type", "=", "DRIVER")])) == 1


def test_a_tool_has_no_part_in_the_store() -> None:
    client = tool()
    node = wire.Hello(client.process_id, os.getpid(), "")
    assert node.process_id not in {
        bytes.fromhex(worker.worker_id) for worker in state.list_workers()
    }


def test_finding_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = directory()
    assert own in {session.directory for session in sessions.running_sessions()}
    parent = os.path.dirname(own)
    started = [s.started for s in sessions.running_sessions() if s.directory.startswith(parent)]
    assert started == sorted(started, reverse=True)
    for address in (own, own + "/", os.path.basename(own), os.path.join(own, "node.sock")):
        assert sessions.find(address).directory == own
        with attach(address) as attached:
            assert attached.state("nodes")[0]["session_dir"] == own
    monkeypatch.setenv(sessions.ADDRESS_VARIABLE, own)
    assert sessions.find(None).directory == own
    monkeypatch.delenv(sessions.ADDRESS_VARIABLE)
    # Directories without a daemon are no sessions.
    monkeypatch.setattr(sessions.session_dir, "parents", lambda: [str(tmp_path)])
    (tmp_path / "s-00000000").mkdir()
    (tmp_path / "s-00000000" / "lock").touch()
    assert sessions.running_sessions() == []
    with pytest.raises(SessionError, match="no session of this user is running"):
        sessions.find(None)


def test_a_session_that_ends_while_it_is_looked_at() -> None:
    attached = Attached(directory())
    skate.shutdown()
    with pytest.raises(SessionError, match="has ended"):
        attached.state("nodes")
    attached.close()
    with pytest.raises(SessionError, match="cannot attach"):
        Attached(attached.directory)
