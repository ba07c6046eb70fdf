"""Breakpoints in tasks: the call waits for ``skate debug``, then a pdb talks over its socket.

The socket lies in the directory of the session, which nobody else may enter, and the user of the
other side is checked.  Whenever this waits, for a debugger to come or for its next line, the task
is blocked as in ``get``: it gives its CPU back, and cancelling it works.

A debugger that goes away, for whatever reason, leaves the task running.
"""

from __future__ import annotations

import bdb
import contextlib
import os
import pdb
import rlcompleter
import select
import socket
import sys
import time
import traceback
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from skate.exceptions import TaskError
from skate.runtime.wire.connection import Connection, ProtocolError
from skate.runtime.wire.debug import (
    AtBreakpoint,
    DebugComplete,
    DebugCompletions,
    DebugEnd,
    DebugLine,
    DebugOutput,
    DebugPrompt,
    LeftBreakpoint,
    debug_decoder,
)
from skate.runtime.worker.links import same_user
from skate.runtime.worker.pump import Waiter

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.invoke import Running

#: Frames of files below this are ours: users do not want to see them.
_OWN_CODE = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Completions sent at most.
MOST_COMPLETIONS = 200


class Debugger:
    """Breakpoints of this worker."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pid = os.getpid()
        #: The debugger of each call that has one.
        self._channels: dict[Running, Channel] = {}

    @property
    def is_here(self) -> bool:
        """Whether this process can be debugged: forks of it cannot."""
        return os.getpid() == self._pid and not self._core.closed

    def stop_at(self, frame: FrameType) -> None:
        """Wait for a debugger and stop where ``frame`` is."""
        RemotePdb(self._channel(frame, frame.f_lineno, None)).stop(frame)

    def post_mortem(self, error: BaseException) -> None:
        """Wait for a debugger to look at what was raised.

        What came out of a ``get`` was looked at where it was raised.
        """
        trace = error.__traceback__
        if isinstance(error, TaskError | bdb.BdbQuit) or trace is None:
            return
        while trace.tb_next is not None and is_own(trace.tb_frame):
            trace = trace.tb_next
        last = trace
        while last.tb_next is not None:
            last = last.tb_next
        if is_own(last.tb_frame):
            return  # a result or argument that cannot be pickled: there is no code to look at
        channel = self._channel(last.tb_frame, last.tb_lineno, error)
        channel.write("".join(traceback.format_exception_only(error)))
        RemotePdb(channel).look_at(trace)

    def _channel(self, frame: FrameType, line: int, error: BaseException | None) -> Channel:
        """Return the debugger's channel; it may take long until there is one."""
        running = self._core.executing
        known = self._channels.get(running) if running is not None else None
        if known is not None and not known.closed:
            return known
        channel = Channel(self._core)
        _Stop(self._core, frame, line, error).wait(channel)
        if running is not None:
            self._channels[running] = channel
            assert self._core.executor is not None
            self._core.executor.debugged[running] = lambda: self._ended(running)
        return channel

    def _ended(self, running: Running) -> None:
        self._channels.pop(running).end("the call has ended")


def is_own(frame: FrameType) -> bool:
    """Whether a frame is of Skate's runtime."""
    return frame.f_code.co_filename.startswith(_OWN_CODE)


class _Stop:
    """A call that waits for a debugger: a listening socket, and an entry in the daemon's table."""

    def __init__(
        self, core: Core, frame: FrameType, line: int, error: BaseException | None
    ) -> None:
        self._core = core
        self._id = os.urandom(4).hex()
        self._path = os.path.join(core.session_dir, f"debug-{self._id}.sock")
        self._waiter = Waiter(1)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._accepted: socket.socket | None = None
        running = core.executing
        self._message = AtBreakpoint(
            self._id,
            running.task_id if running is not None else b"",
            running.name if running is not None else "",
            running.task.actor_id if running is not None else b"",
            self._path,
            os.path.abspath(frame.f_code.co_filename),
            line,
            frame.f_code.co_name,
            traceback.format_exception_only(error)[-1].strip() if error is not None else "",
            time.time(),
        )

    def fileno(self) -> int:
        return self._sock.fileno()

    def on_events(self, _mask: int) -> None:
        """Locked.  Somebody connects."""
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if self._accepted is not None or not same_user(sock):
            sock.close()
            return
        self._accepted = sock
        self._waiter.on_ready()

    def wait(self, channel: Channel) -> None:
        """Wait until a debugger has connected; the channel then talks to it."""
        core = self._core
        try:
            self._sock.bind(self._path)
            self._sock.listen(1)
            self._sock.setblocking(False)
            with core.lock:
                core.pump.add(self)
                core.links.send_node(self._message)
            try:
                core.block(self._waiter)
            finally:
                with core.lock:
                    core.pump.remove(self)
                    core.links.send_node(LeftBreakpoint(self._id))
        finally:
            self._sock.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        assert self._accepted is not None
        channel.open(self._accepted)


class Channel:
    """The socket of a debugger, as the two files that a pdb reads and writes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._connection: Connection[Any] | None = None
        self._inbox: list[Any] = []
        self._waiter: Waiter | None = None
        #: Output since the last end of a line; when pdb reads, that is the prompt.
        self._tail = ""
        self._namespace: dict[str, Any] = {}

    def open(self, sock: socket.socket) -> None:
        """Talk over this socket."""
        self._connection = Connection(sock, debug_decoder)
        with self._core.lock:
            self._core.pump.add(self)

    @property
    def closed(self) -> bool:
        """Whether the debugger is gone."""
        return self._connection is None

    def fileno(self) -> int:
        connection = self._connection
        return connection.fileno() if connection is not None else -1

    def on_events(self, _mask: int) -> None:
        """Locked.  The debugger has sent something, or has gone."""
        assert self._connection is not None
        try:
            messages = self._connection.receive()
        except ProtocolError:
            messages = None
        if messages is None:
            self._close()
        else:
            self._inbox += messages
        if self._waiter is not None and (self._inbox or self.closed):
            self._waiter.on_ready()

    def _close(self) -> None:
        """Locked."""
        connection = self._connection
        if connection is not None:
            self._core.pump.remove(self)
            self._connection = None
            connection.close()

    def end(self, reason: str) -> None:
        """Say good-bye."""
        self._send(DebugEnd(reason))
        with self._core.lock:
            self._close()

    def _send(self, message: object) -> None:
        connection = self._connection
        if connection is None:
            return
        connection.send(message)
        while not connection.flush() and not connection.closed:
            select.select([], [connection], [], 1.0)

    # ------------------------------------------------------------------ the files

    def write(self, text: str) -> int:
        """Show text; the line that is not finished is kept back, it may be a prompt."""
        shown, end, self._tail = (self._tail + text).rpartition("\n")
        if end:
            self._send(DebugOutput(shown + end))
        return len(text)

    def flush(self) -> None:
        """Nothing to do: lines are sent as they end."""

    def complete_from(self, frame: FrameType | None) -> None:
        """Complete names that this frame sees."""
        self._namespace = {**frame.f_globals, **frame.f_locals} if frame is not None else {}

    def readline(self) -> str:
        """Return the next line that the user enters, "" when there is no debugger any more."""
        prompt, self._tail = self._tail, ""
        self._send(DebugPrompt(prompt))
        while True:
            message = self._next()
            if isinstance(message, DebugLine):
                return message.text.replace("\n", " ") + "\n"
            if message is None:
                return ""
            if isinstance(message, DebugComplete):
                self._send(DebugCompletions(self._completions(message.text)))

    def _next(self) -> Any:
        core = self._core
        with core.lock:
            if not self._inbox and not self.closed:
                self._waiter = Waiter(1)
        try:
            if self._waiter is not None:
                core.block(self._waiter)
        finally:
            self._waiter = None
        return self._inbox.pop(0) if self._inbox else None

    def _completions(self, text: str) -> list[str]:
        names = [name[3:] for name in dir(RemotePdb) if name.startswith("do_" + text)]
        completer = rlcompleter.Completer(self._namespace)
        with contextlib.suppress(Exception):  # properties of user objects may raise
            for number in range(MOST_COMPLETIONS):
                found = completer.complete(text, number)
                if found is None:
                    break
                names.append(found)
        return names


class RemotePdb(pdb.Pdb):
    """A pdb that ends at the call's own end, and lets the task go on when the user leaves."""

    def __init__(self, channel: Channel) -> None:
        # The channel is as much of a file as pdb needs.
        files: Any = channel
        super().__init__(
            # `step` goes over our own functions, not into them.
            skip=["skate", "skate.*"],
            stdin=files,
            stdout=files,
            nosigint=True,
            readrc=False,
        )
        self._channel = channel

    def stop(self, frame: FrameType) -> None:
        """Stop at the next line of ``frame``."""
        bottom = frame
        while bottom.f_back is not None and not is_own(bottom.f_back):
            bottom = bottom.f_back
        outer = bottom.f_back
        super().set_trace(frame)
        # Tracing is on: what is called from here on is traced as well, so nothing is.
        self.botframe = bottom
        while outer is not None:
            # Not our own frames, some of which live as long as the process.
            outer.f_trace = None
            outer = outer.f_back

    def look_at(self, trace: TracebackType) -> None:
        """Look at the frames of a traceback until the user goes on."""
        self.reset()
        self.interaction(None, trace)

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """A frame returns; nothing of the caller of the call's function is traced."""
        traced = super().dispatch_return(frame, arg)
        if frame is self.botframe:
            sys.settrace(None)
            return None
        return traced

    def set_continue(self) -> None:
        """Go on, traced only if there are breakpoints that were set here."""
        bottom = self.botframe
        super().set_continue()
        if bottom is not None and not self.breaks:
            bottom.f_trace = None

    def _cmdloop(self) -> None:
        # pdb's own would take the KeyboardInterrupt by which a task is cancelled for the user's.
        self._channel.complete_from(self.curframe)
        self.cmdloop()

    def do_detach(self, arg: str) -> bool | None:
        """detach

        Leave the debugger; the task goes on, without the breakpoints that were set here.
        """
        self.clear_all_breaks()
        self.set_continue()
        self._channel.end("detached; the task goes on")
        return True

    def do_EOF(self, arg: str) -> bool | None:  # noqa: N802  # pdb's name
        """EOF

        The debugger is gone: the same as detach.
        """
        return self.do_detach(arg)

    def do_quit(self, arg: str) -> bool | None:
        """q(uit)

        End the task: it fails with BdbQuit.
        """
        self.set_quit()
        self._channel.end("the task was ended")
        return True

    do_q = do_exit = do_quit

    def _impossible(self, arg: str) -> bool | None:
        self.error("this is not possible in a task")
        return None

    # The first reads the worker's own input, the others are about scripts.
    do_interact = do_debug = do_run = do_restart = _impossible
