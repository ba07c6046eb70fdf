"""Logs of all nodes, through any of them: listed, read, followed, and nothing else read."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE, until

import skate
from skate import state
from skate.cluster_utils import Cluster
from skate.runtime.tool.attach import attach
from skate.runtime.wire.logs import LOG, PIECE_SIZE, LogPiece, LogRange

pytestmark = pytest.mark.timeout(180)

THERE = {"resources": {"there": 1}}


def text_of(**what: Any) -> str:
    with contextlib.suppress(state.LogNotFoundError):
        return "".join(state.get_log(**what))
    return ""


@skate.remote
class Speaker:
    def say(self, text: str) -> None:
        print(text)

    def where(self) -> str:
        return skate.get_runtime_context().get_node_id()


@skate.remote
def speak(text: str) -> str:
    print(text)
    return skate.get_runtime_context().get_node_id()


@pytest.fixture
def far(two_nodes: Cluster) -> Any:
    """An actor on the node where the driver is not, that has said some lines."""
    actor = Speaker.options(**THERE).remote()
    skate.get(actor.say.remote("one\ntwo\nthree"))
    return actor


def skate_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    directory = next(row.session_dir for row in state.list_nodes() if row.is_head_node)
    return subprocess.run(
        [sys.executable, "-c", "from skate.cli import main; main(prog_name='skate')", *arguments],
        env={**os.environ, "SKATE_ADDRESS": directory},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_logs_are_found_by_node_actor_task_worker_and_pid(far: Any) -> None:
    there = skate.get(far.where.remote())
    [actor] = state.list_actors()
    until(lambda: text_of(actor_id=actor.actor_id) == "one\ntwo\nthree\n")
    [log] = [log for log in state.list_logs(node_id=there) if log.kind == "worker"]
    assert (log.node_id, log.name, log.size) == (there, f"worker-{actor.worker_id}.log", 14)
    # Nothing was copied to this node, whose own logs are others.
    assert log not in state.list_logs(node_id=skate.get_runtime_context().get_node_id())
    assert log in state.list_logs()
    assert state.list_logs(node_id=there[:8]) == state.list_logs(node_id=there)
    for what in (log.name, str(actor.worker_id), actor.actor_id, str(actor.pid)):
        assert state.find_log(what) == log, what
    assert text_of(worker_id=actor.worker_id, tail=1) == "three\n"
    assert text_of(pid=actor.pid, node_id=there, tail=2) == "two\nthree\n"
    with pytest.raises(state.LogNotFoundError, match="no log file, worker, actor"):
        state.find_log("nothing")
    with pytest.raises(state.LogNotFoundError, match="no living node has an id beginning with"):
        state.list_logs(node_id="x")

    ref = speak.options(**THERE).remote("I am a task")
    skate.get(ref)
    until(lambda: "I am a task\n" in text_of(task_id=ref.hex()))

    # Each node has a daemon with a log of that name.
    for node in state.list_nodes():
        with open(os.path.join(node.log_dir, "node.log"), "a") as file:
            file.write(f"daemon of {node.node_id}\n")
    with pytest.raises(state.LogNotFoundError, match=r"2 nodes have a log 'node\.log'"):
        state.get_log("node.log")
    assert text_of(filename="node.log", node_id=there, tail=1) == f"daemon of {there}\n"

    done = skate_command("logs", actor.actor_id, "--tail", "1")
    assert (done.stdout, done.returncode) == ("three\n", 0)
    listed = skate_command("logs", "--node", there[:8])
    assert log.path in listed.stdout
    assert "worker-" in listed.stdout
    assert skate_command("logs", "--node", "x").returncode == 1


def test_a_log_of_another_node_is_followed_to_the_end_of_its_process(far: Any) -> None:
    [actor] = state.list_actors()
    until(lambda: text_of(actor_id=actor.actor_id))
    assert actor.pid is not None
    heard: list[str] = []

    def follow() -> None:
        heard.extend(state.get_log(actor_id=actor.actor_id, tail=1, follow=True))

    follower = threading.Thread(target=follow)
    follower.start()
    until(lambda: heard)
    skate.get(far.say.remote("four"))
    until(lambda: "".join(heard) == "three\nfour\n")
    # It dies, its log moves, and there is an end.
    skate.get(far.say.remote("five"))
    os.kill(actor.pid, signal.SIGKILL)
    follower.join(PATIENCE)
    assert not follower.is_alive()
    assert "".join(heard) == "three\nfour\nfive\n"
    [kept] = [log for log in state.list_logs() if log.kind == "crashed"]
    assert kept.name == f"worker-{actor.worker_id}.log"


def test_a_long_log_comes_in_pieces(far: Any) -> None:
    text = "x" * 99
    lines = 3 * PIECE_SIZE // 100 + 1
    skate.get(far.say.remote("\n".join([text] * lines)))
    [actor] = state.list_actors()
    until(lambda: len(text_of(actor_id=actor.actor_id)) == 14 + lines * 100)
    pieces = list(state.get_log(actor_id=actor.actor_id))
    assert len(pieces) == 4
    assert max(map(len, pieces)) == PIECE_SIZE
    assert text_of(actor_id=actor.actor_id, tail=3000) == f"{text}\n" * 3000


def test_no_other_file_of_a_node_is_sent(far: Any) -> None:
    import msgspec

    there = skate.get(far.where.remote())
    [node] = [row for row in state.list_nodes() if row.node_id == there]
    [actor] = state.list_actors()
    until(lambda: text_of(actor_id=actor.actor_id))
    token = Path(node.session_dir, "token")
    assert token.exists()
    (Path(node.log_dir) / "link.log").symlink_to(token)
    assert "link.log" not in {log.name for log in state.list_logs()}
    with attach(state.list_nodes()[0].session_dir) as tool:
        for name in ("../token", str(token), "link.log", "logs/../../token", "..", "", "\0"):
            wanted = LogRange(bytes.fromhex(there), name, 0, 1000)
            answer = tool.inspect(LOG, 1, (), 30.0, (), wanted)
            [page] = answer.pages
            [piece] = msgspec.msgpack.decode(page.rows, type=list[LogPiece])
            assert (piece.size, piece.data) == (-1, b""), name
        # Nor is there an answer from a node that does not exist, or to a question that names none.
        nowhere = LogRange(b"x" * 16, "node.log", 0, 10)
        assert tool.inspect(LOG, 1, (), 30.0, (), nowhere).pages == []
        assert tool.inspect(LOG, 1, (), 30.0, (), None).pages == []
        assert tool.state("nodes")


def test_a_node_that_hangs_is_named(far: Any) -> None:
    there = skate.get(far.where.remote())
    [actor] = state.list_actors()
    until(lambda: text_of(actor_id=actor.actor_id))
    log = state.find_log(actor.actor_id)
    [node] = [row for row in state.list_nodes() if row.node_id == there]
    os.kill(node.daemon_pid, signal.SIGSTOP)
    try:
        with pytest.raises(state.StateError, match=f"{there} has not sent its log.*in time"):
            list(state.read_log(log))
    finally:
        os.kill(node.daemon_pid, signal.SIGCONT)
