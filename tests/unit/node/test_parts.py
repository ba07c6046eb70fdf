"""The small parts: how a process ended, the frames of the zygote link, the event loop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.node import zygote_link
from skate.runtime.node.causes import describe_status, signal_name
from skate.runtime.node.config import Paths
from skate.runtime.node.loop import WRITE, Loop
from skate.runtime.node.zygote_link import (
    End,
    Ended,
    Fork,
    Forked,
    Ready,
    Signal,
    to_daemon_decoder,
)
from skate.runtime.worker.config import WorkerConfig

CONFIG = WorkerConfig(b"worker", b"node", "dir", "node.sock", "store.sock", "job", "ns", "log")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with code 0"),
        (3 << 8, "exited with code 3"),
        (255 << 8, "exited with code 255"),
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGSEGV | 0x80, "killed by SIGSEGV"),  # with a core dump
    ],
)
def test_causes(status: int, text: str) -> None:
    assert describe_status(status) == text


def test_signals_without_a_name() -> None:
    assert signal_name(200) == "signal 200"


def test_paths_of_kept_logs_lie_beside_the_sessions() -> None:
    paths = Paths("/x/skate-7/s-1")
    assert paths.kept_logs == "/x/skate-logs-7/s-1"


# --------------------------------------------------------------------------- zygote link


def test_descriptors_travel_with_their_message() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        zygote_link.send(ours, End(1.0))
        zygote_link.send(ours, Fork(CONFIG), (read, write))
        zygote_link.send(ours, Signal(7, 9))
        assert zygote_link.receive(theirs) == (End(1.0), [])
        received = zygote_link.receive(theirs)
        assert received is not None
        message, fds = received
        assert message == Fork(CONFIG)
        os.write(fds[1], b"x")
        assert os.read(read, 1) == b"x"
        assert zygote_link.receive(theirs) == (Signal(7, 9), [])
        ours.close()
        assert zygote_link.receive(theirs) is None
    for fd in (read, write, *fds):
        os.close(fd)


def test_the_end_in_the_middle_of_a_message() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(zygote_link.encode(Signal(7, 9))[:-1])
        ours.close()
        assert zygote_link.receive(theirs) is None


@given(st.lists(st.integers(1, 7), max_size=30))
def test_frames_however_they_arrive(sizes: list[int]) -> None:
    messages = [Ready(["text"]), Forked(b"w", 7), Forked(b"w", 0, "error"), Ended(7, 9)]
    stream = b"".join(map(zygote_link.encode, messages))
    buffer = bytearray()
    found = []
    for size in [*sizes, len(stream)]:
        buffer += stream[:size]
        stream = stream[size:]
        found += [to_daemon_decoder.decode(payload) for payload in zygote_link.split(buffer)]
    assert found == messages
    assert not buffer


# --------------------------------------------------------------------------- processes


def test_children_are_ended_with_the_orphans_that_come_with_them() -> None:
    # In a process of its own: it ends all children that it has.
    code = (
        "import os, subprocess, sys, time\n"
        "from skate.runtime.node import processes\n"
        "processes.adopt_orphans()\n"
        "stray = 'setsid sleep 600 >/dev/null & '\n"
        "script = stray + stray + 'echo; exec sleep 600'\n"
        "shell = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE)\n"
        "shell.stdout.readline()\n"
        "start = time.monotonic()\n"
        "processes.end_children(30)\n"
        "assert time.monotonic() - start < 20\n"
        "assert processes.children() == []\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=50, check=True)


# --------------------------------------------------------------------------- loop


def run(loop: Loop) -> None:
    """Run until stopped, five seconds at most."""
    limit = loop.call_later(5, lambda: pytest.fail("the loop was not stopped"))
    loop.run()
    limit.cancel()
    loop.close()


def test_timers_come_in_order_and_cancelled_ones_do_not() -> None:
    loop = Loop()
    calls: list[str] = []
    loop.call_later(0.02, lambda: calls.append("second"))
    loop.call_later(0.01, lambda: calls.append("first"))
    loop.call_later(0.015, lambda: calls.append("never")).cancel()
    loop.call_later(0.03, lambda: setattr(loop, "stopped", True))
    start = time.monotonic()
    run(loop)
    assert calls == ["first", "second"]
    assert time.monotonic() - start >= 0.03


def test_readiness_and_rounds() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    rounds: list[int] = []
    seen: list[int] = []
    loop.after_round = lambda: rounds.append(1)

    def on_ready(events: int) -> None:
        seen.append(events)
        if events & WRITE:
            loop.want_write(ours, False)
            theirs.send(b"x")
        else:
            loop.stopped = True

    loop.add(ours, on_ready)
    loop.want_write(ours, True)
    run(loop)
    assert len(seen) == 2
    assert seen[0] & WRITE
    assert not seen[1] & WRITE
    assert len(rounds) >= 2
    ours.close()
    theirs.close()


def test_a_source_removed_by_an_earlier_handler_is_not_called() -> None:
    loop = Loop()
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def handler(number: int) -> None:
        called.append(number)
        loop.remove(pairs[1 - number][0])
        loop.stopped = True

    loop.add(pairs[0][0], lambda _events: handler(0))
    loop.add(pairs[1][0], lambda _events: handler(1))
    for _, far in pairs:
        far.send(b"x")
    run(loop)
    assert len(called) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()
