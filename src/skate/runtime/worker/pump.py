"""Who runs epoll: the thread that waits, or a background thread when nobody does.

A dedicated I/O thread would cost every reply two thread switches and a fight for the interpreter
lock.  Here the waiting thread itself holds the *pump* and reads the sockets.  Other threads that
wait meanwhile are *followers*: the pump's holder wakes one of them when it leaves.

The background thread looks every ``TICK`` whether the foreground is active (it pumped, ran a task
or submitted since the last look).  If so, it only runs timers and flushes.  If not, it takes the
pump. While a foreground thread sits in the pump for long, the background thread sleeps without a
timeout, so that an idle process costs nothing.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from skate.runtime.worker import finalizing

#: Seconds between two looks of the background thread while the foreground is active.  Replies and
#: requests that a busy main thread cannot handle wait this long at most; each look costs about 10
#: us.
TICK = 0.003
#: What the background thread is called.
PUMP_THREAD = "skate-pump"


class Waiter:
    """What one blocked thread waits for: ``remaining`` completions."""

    __slots__ = ("done", "gate", "remaining")

    #: The user has said to wait, with ``get`` or ``wait``.
    by_user = True

    def __init__(self, remaining: int = 1) -> None:
        self.remaining = remaining
        self.done = remaining <= 0
        #: Taken; a follower sleeps on it.  Made when first needed.
        self.gate: Any = None

    def expect(self) -> None:
        """Wait for one more completion."""
        self.remaining += 1
        self.done = False

    def on_ready(self, _cell: object = None) -> None:
        """Count one completion."""
        self.remaining -= 1
        if self.remaining <= 0:
            self.done = True
            if self.gate is not None:
                self.wake()

    def wake(self) -> None:
        """Make a follower look again."""
        gate = self.gate
        if gate is not None and gate.locked():
            try:
                gate.release()
            except RuntimeError:  # somebody else released it in between
                return


class Answer(Waiter):
    """Waits for the answer to a request to the daemon."""

    __slots__ = ("message",)

    by_user = False

    def __init__(self) -> None:
        super().__init__(1)
        self.message: Any = None


class Source(Protocol):
    """Something with a descriptor that the pump watches."""

    def fileno(self) -> int: ...

    def on_events(self, events: int) -> None:
        """Handle readiness; called with the lock held."""


class Pump:
    """Sockets, timers and the threads that wait for them."""

    def __init__(self, lock: Any, flush: Callable[[], None]) -> None:
        self._lock = lock
        self._flush = flush
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        #: Held by the thread that runs epoll.
        self._held = threading.Lock()
        #: The thread inside ``_take_turn``.
        self._holder = 0
        self._followers: deque[Waiter] = deque()
        #: Threads inside ``block``.
        self._foreground = 0
        #: Changes whenever the foreground did something.
        self.activity = 0
        self._park = threading.Lock()
        self._park.acquire()
        #: The background thread sleeps until ``_park`` is released.
        self._deep = False
        #: The background thread is to pump at once.
        self._expected = False
        #: Some thread is inside epoll.
        self._polling = False
        #: The background thread is, and should leave when somebody else wants to.
        self._background_polls = False
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        #: Completions that run foreign code: called by the pumping thread, which lets go of the
        #: lock and of the pump before, since that code may wait for something itself.
        self.callbacks: deque[Callable[[], None]] = deque()
        #: Completed objects so far; ``wait`` looks again when it changes.
        self.completions = 0
        self._announced = 0
        #: Waiters to wake after every batch of completions.
        self.any_waiters: list[Waiter] = []
        #: The main thread, which takes interrupts.
        self.main = threading.main_thread().ident
        #: What the main thread waits for, if it is in ``block``.
        self.main_waiter: Waiter | None = None
        #: Left by ``interrupt`` for the next safe point: what to call, by the signal's number.
        self.interrupted: dict[int, Callable[[], object]] = {}
        self.housekeeping: Callable[[], None] = lambda: None
        #: Whether the calling thread is inside of something else that no signal must tear.
        self.is_busy_elsewhere: Callable[[], bool] = lambda: False
        self.closed = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ sources and timers

    def add(self, source: Source, once: bool = False) -> None:
        """Watch a source for input; ``once``: after each report not before ``watch_again``."""
        fd = source.fileno()
        self._sources[fd] = source
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT if once else select.EPOLLIN)

    def watch_again(self, source: Source) -> None:
        """Report the next input of a source that is reported once."""
        self._epoll.modify(source.fileno(), select.EPOLLIN | select.EPOLLONESHOT)

    def want_write(self, source: Source, wanted: bool) -> None:
        """Report writability of the source as well, or no longer."""
        mask = select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN
        self._epoll.modify(source.fileno(), mask)

    def remove(self, source: Source) -> None:
        """Forget a source; call before its descriptor is closed."""
        fd = source.fileno()
        if fd >= 0 and self._sources.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call ``function`` with the lock held, ``seconds`` from now or a little later."""
        self._timer_number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_number, function))
        self.nudge()

    def wake(self) -> None:
        """Make the thread inside epoll return."""
        try:
            os.eventfd_write(self._wake_fd, 1)
        except (BlockingIOError, OSError):
            return

    def nudge(self) -> None:
        """Something is queued: the thread inside epoll, if there is one, has to send it."""
        if self._polling:
            self._polling = False
            self.wake()

    # ------------------------------------------------------------------ one turn

    def _turn(self, timeout: float) -> None:
        """Wait for events up to ``timeout`` seconds (negative: for ever) and handle them."""
        # Set before the flush: what is queued after it by another thread has to wake this one.
        self._polling = True
        self._flush()
        if self._timers:
            due: float = self._timers[0][0] - time.monotonic()
            if timeout < 0 or due < timeout:
                timeout = due if due > 0 else 0
        events = self._epoll.poll(timeout)
        self._polling = False
        with self._lock:
            for fd, mask in events:
                if fd == self._wake_fd:
                    self._clear_wake()
                    continue
                source = self._sources.get(fd)
                if source is not None:
                    source.on_events(mask)
            if self._timers:
                self._run_timers()
            self.housekeeping()
        if self.completions != self._announced:
            self._announced = self.completions
            for waiter in list(self.any_waiters):
                waiter.wake()

    def _clear_wake(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return

    def _run_timers(self) -> None:
        now = time.monotonic()
        timers = self._timers
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()

    def interrupt(self, signum: int, frame: FrameType | None, action: Callable[[], object]) -> None:
        """Have the main thread call what may raise where that breaks nothing; for signal handlers.

        A handler runs between any two bytecodes of the main thread, here in ``frame``.  While that
        thread holds the lock or the pump, raising at once would leave them held, or a batch of
        messages half handled.  What is raised in a finalizer Python drops, and with it what the
        finalizer had to do: the signal comes again after that.
        """
        waiter = self.main_waiter
        if waiter is None and not self._lock._is_owned() and not self.is_busy_elsewhere():
            if finalizing.is_inside(frame):
                finalizing.signal_again(self.main, signum)
            else:
                action()
            return
        self.interrupted[signum] = action
        if waiter is not None:
            self.wake()
            waiter.wake()

    def safe_point(self) -> None:
        """Do what ``interrupt`` left, if this is where that breaks nothing."""
        if self.interrupted and self.main_waiter is None and threading.get_ident() == self.main:
            self.handle_interrupts()

    def handle_interrupts(self) -> None:
        """Do what ``interrupt`` left."""
        while self.interrupted:
            self.interrupted.popitem()[1]()

    # ------------------------------------------------------------------ waiting

    def block(
        self,
        waiter: Waiter,
        deadline: float | None = None,
        step: Callable[[], bool] | None = None,
    ) -> bool:
        """Pump or follow until ``waiter.done``; False if the deadline (monotonic) came first.

        ``step`` runs after every turn, without the lock; if it returns True, this returns at once
        with ``waiter.done`` as it is.
        """
        ident = threading.get_ident()
        if self._lock._is_owned() or self._holder == ident:
            raise RuntimeError(
                "Skate cannot wait here: this code (a finalizer or signal handler) has interrupted"
                " Skate itself in this thread"
            )
        is_main = ident == self.main
        outer = self.main_waiter
        if is_main:
            self.main_waiter = waiter
        self._foreground += 1
        try:
            while not waiter.done:
                if not self._held.acquire(blocking=False):
                    if not self._follow(waiter, deadline):
                        break
                elif not self._take_turn(ident, deadline):
                    break
                if is_main and self.interrupted:
                    self.handle_interrupts()
                if self.callbacks:
                    # They may take long.
                    self._pass_on()
                    self.run_callbacks()
                if step is not None and step():
                    break
        finally:
            self._foreground -= 1
            self.activity += 1
            if self._deep:
                self._rouse()
            # This thread has pumped, or was woken to pump, and does not: another follower has to.
            self._pass_on()
            if is_main:
                self.main_waiter = outer
        if is_main and outer is None and self.interrupted:
            self.handle_interrupts()
        return waiter.done

    def _take_turn(self, ident: int, deadline: float | None) -> bool:
        """Pump once, holding the pump; return False if the deadline has passed.

        Deadline 0: without waiting.  Callers that do not take the next turn as well pass the pump
        on.  Were it offered to a follower after each turn, that would find it taken again and wake
        this thread, and so on: the two would keep a CPU busy with nothing.
        """
        self._holder = ident
        try:
            timeout = -1.0
            if deadline == 0.0:
                timeout = 0.0
            elif deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    return False
            self._turn(timeout)
            return True
        finally:
            self._holder = 0
            self._held.release()

    def poll(self) -> bool:
        """Handle what has arrived, without waiting; False if another thread is at it."""
        found = self._held.acquire(blocking=False)
        if found:
            # Not by a deadline that is very near: epoll rounds up to milliseconds.
            try:
                self._take_turn(threading.get_ident(), 0.0)
            finally:
                self._pass_on()
            if self.callbacks:
                self.run_callbacks()
        return found

    def run_callbacks(self) -> None:
        """Run what completed futures have to run; callers hold neither the lock nor the pump."""
        while True:
            try:
                callback = self.callbacks.popleft()
            except IndexError:
                return
            callback()

    def _follow(self, waiter: Waiter, deadline: float | None) -> bool:
        """Sleep until woken, as somebody else pumps; return False when the deadline has passed."""
        if waiter.gate is None:
            gate = threading.Lock()
            gate.acquire()
            waiter.gate = gate
        # First in the list, then another look at the pump: its holder releases before it looks
        # here.
        self._followers.append(waiter)
        try:
            if waiter.done or not self._held.locked():
                return True
            # Whoever pumps has to send what this thread has queued; the background thread, to
            # leave.
            if self._polling or self._background_polls:
                self.wake()
            timeout = -1.0
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    return False
            woken = waiter.gate.acquire(timeout=timeout)
            return bool(woken)
        finally:
            # If it is not there it was promoted; ``block`` passes that on if this thread is done.
            with contextlib.suppress(ValueError):
                self._followers.remove(waiter)

    def _pass_on(self) -> None:
        """The caller does not pump for now: have a follower do it, unless somebody does."""
        if not self._followers or self._held.locked():
            return
        try:
            self._followers.popleft().wake()
        except IndexError:
            return

    # ------------------------------------------------------------------ the background thread

    def start(self) -> None:
        """Start the background thread."""
        self._thread = threading.Thread(target=self._background, name=PUMP_THREAD, daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """Somebody waits for a completion without pumping (an event loop, a future): what has been
        submitted goes out, and the background thread pumps without looking for a tick first."""
        self._expected = True
        if self._polling:
            self.nudge()
        elif not self._foreground:
            self._rouse()

    def busy(self) -> None:
        """The foreground begins something that may take long: the background thread has to look."""
        self.activity += 1
        if self._deep:
            self._rouse()

    def _rouse(self) -> None:
        self._deep = False
        try:
            self._park.release()
        except RuntimeError:
            return

    def _foreground_waits(self, seen: int) -> bool:
        """Whether a thread has been in ``block`` ever since ``activity`` was ``seen``."""
        return self._foreground > 0 and seen == self.activity

    def _nobody_else(self, seen: int) -> bool:
        """Whether the background thread is the one to pump."""
        return not self._foreground and seen == self.activity and not self.closed

    def _background(self) -> None:
        seen = -1
        while not self.closed:
            if self._foreground_waits(seen):
                self._deep = True
                # The foreground may have left between the test and the assignment: it did not see
                # the flag then, so look once more before sleeping.
                if self._foreground_waits(seen) and not self.closed:
                    self._park.acquire()
                self._deep = False
                continue
            if self._expected:
                self._expected = False
                seen = self.activity
            if self._foreground or seen != self.activity:
                seen = self.activity
                self._park.acquire(timeout=TICK)
                self._flush()
                with self._lock:
                    if self._timers:
                        self._run_timers()
                    self.housekeeping()
                continue
            if self._held.acquire(blocking=False):
                self._holder = threading.get_ident()
                try:
                    while not self.callbacks and self._nobody_else(seen):
                        self._background_polls = True
                        self._turn(-1.0)
                finally:
                    self._background_polls = False
                    self._holder = 0
                    self._held.release()
                    self._pass_on()
                if self.callbacks:
                    self.run_callbacks()
                    # What they have submitted is no sign of a busy foreground: programs that submit
                    # the next task when a future completes would be held up for a tick each time.
                    seen = self.activity
            else:
                self._park.acquire(timeout=TICK)

    def stop(self) -> None:
        """Stop the background thread."""
        self.closed = True
        self.wake()
        self._rouse()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def close(self) -> None:
        """Close the descriptors, after ``stop``; the sources have been removed."""
        self._epoll.close()
        os.close(self._wake_fd)

    def abandon(self) -> None:
        """After a fork, in the child: close what the parent uses, touch nothing else."""
        self.closed = True
        self._epoll.close()
        os.close(self._wake_fd)
