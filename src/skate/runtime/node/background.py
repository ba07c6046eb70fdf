"""Work that blocks, done by threads, its results handed back to the daemon's loop."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from skate.runtime.node.loop import Loop

T = TypeVar("T")


class Background:
    """A few threads; nothing starts before the first work."""

    def __init__(self, loop: Loop, threads: int, name: str) -> None:
        self._loop = loop
        self._threads = threads
        self._name = name
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._finished: deque[Callable[[], None]] = deque()
        self._wake = -1
        self._lock = threading.Lock()
        self._closed = False
        self._running: set[concurrent.futures.Future[Any]] = set()

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, Exception | None], None]
    ) -> None:
        """Call ``work`` in a thread, then ``done`` with its result or error in the loop's."""
        if self._closed:
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, self._name)
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._loop.add(self._wake, self._on_wake)

        def run() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = work()
            except Exception as error:
                failure = error
            self._finished.append(lambda: done(result, failure))
            with self._lock:
                if not self._closed:
                    os.eventfd_write(self._wake, 1)

        future = self._pool.submit(run)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    def _on_wake(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        while self._finished:
            self._finished.popleft()()

    def close(self, seconds: float) -> None:
        """Start nothing more, and wait a little for what is running; ``done`` is not called."""
        with self._lock:
            self._closed = True
        if self._pool is None:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        concurrent.futures.wait(list(self._running), seconds)
        self._loop.remove(self._wake)
        os.close(self._wake)
