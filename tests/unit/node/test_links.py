"""What is left in a daemon of processes that have come and gone: nothing."""

from __future__ import annotations

import gc
import os
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from skate.runtime.node.links import Links
from skate.runtime.node.logs import WorkerOutput
from skate.runtime.node.loop import Loop
from skate.runtime.wire.messages import Hello, Warn


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("fails", ["no", "receiving", "sending"])
def test_a_closed_link_is_forgotten_at_once(no_collector: None, fails: str) -> None:
    loop = Loop()
    closed: list[bytes] = []
    hello = Hello(b"node-id.", os.getpid(), "")
    links = Links(loop, hello, lambda _link, _message: None, lambda link: closed.append(b"it"))
    ours, theirs = socket.socketpair()
    links.adopt(theirs, 0)
    [link] = links._links
    links.registered(link, "worker")
    if fails != "receiving":
        # What was sent and not read would make the end an error.
        links._dirty.clear()
        link.connection.out.clear()
    links.flush()
    ours.close()
    if fails == "sending":
        links.send(link.process_id, Warn("you are late"))
        links.flush()
    assert links.read(link) is False
    assert closed == [b"it"]
    assert (link.connection.failure is not None) == (fails != "no")
    is_there = weakref.ref(theirs)
    del link, theirs
    assert is_there() is None
    loop.close()


def test_the_output_of_a_worker_that_has_ended_is_forgotten_at_once(
    no_collector: None, tmp_path: Path
) -> None:
    (out_read, out), (err_read, err) = os.pipe(), os.pipe()
    lines: list[str] = []
    output = WorkerOutput(
        str(tmp_path / "log"), out_read, err_read, lambda message: lines.extend(message.lines)
    )
    os.write(out, b"the last words")
    os.close(out)
    os.close(err)
    output.close()
    is_there = weakref.ref(output)
    del output
    assert is_there() is None
