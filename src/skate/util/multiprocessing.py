"""``multiprocessing.Pool`` on the processes of the session."""

from __future__ import annotations

import builtins
import functools
import logging
import multiprocessing
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import skate
from skate.util._deadline import Deadline
from skate.util._workers import Workers
from skate.util.concurrent import chunks_of, run_chunk, session_cpus

__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]

logger = logging.getLogger("skate")

#: Chunks per worker when the caller does not say how large they shall be.
CHUNKS_PER_WORKER = 4
#: Chunks per worker that ``imap`` reads ahead of what its caller has taken.
AHEAD_PER_WORKER = 8

_Callback = Callable[[Any], object] | None


class TimeoutError(multiprocessing.TimeoutError, builtins.TimeoutError):  # noqa: A001  # its name in multiprocessing
    """The result was not there in time."""


class Pool:
    """A drop-in for ``multiprocessing.Pool`` whose workers are actors.

    Functions may also be lambdas and functions of ``__main__``; ``ObjectRef`` arguments of
    ``apply`` are replaced by their values, so that a large argument can be stored once.

    Differences: when a worker dies, the call that it ran fails with ``ActorDiedError`` (in the
    standard library it never ends), and when ``initializer`` raises, all calls fail with what it
    raised.  ``terminate`` fails what is not done.  Callbacks run in a thread of Skate's that reads
    messages: they should be short.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            processes: By default one for each CPU of the session.
            initializer: Each worker calls it first.
            initargs: Its arguments.
            maxtasksperchild: Replace a worker after so many calls (or chunks of calls).
            context: Accepted and ignored.
            ray_address: For ``init``, if there is no session.
            ray_remote_args: Options of the actors, such as ``{"num_cpus": 1}``.  By default they
                reserve no resources, so that calls may wait for others.

        Raises:
            ValueError, TypeError: As ``multiprocessing.Pool``.
        """
        if not skate.is_initialized():
            skate.init(ray_address)
        if processes is None:
            processes = session_cpus()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if not _is_limit(maxtasksperchild):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._size = processes
        self._state = "running"
        self._workers = Workers(
            processes, initializer, tuple(initargs), maxtasksperchild, ray_remote_args
        )
        self._workers.start_all()

    # ------------------------------------------------------------------ single calls

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` in a worker and return the result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: _Callback = None,
        error_callback: _Callback = None,
    ) -> AsyncResult:
        """Call ``func`` in a worker; ``callback`` gets the result, or ``error_callback`` the error.

        Raises:
            ValueError: The pool was closed.
        """
        self._check_running()
        result = AsyncResult(self._workers, 1, lambda values: values[0], callback, error_callback)
        self._submit(result, 0, func, tuple(args), kwds or {})
        return result

    # ------------------------------------------------------------------ many calls

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Call ``func`` with each element and return the results in order."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]  # a list

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: _Callback = None,
        error_callback: _Callback = None,
    ) -> AsyncResult:
        """Like ``map``, without waiting."""
        arguments = ((element,) for element in iterable)
        return self._map(func, arguments, chunksize, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Call ``func(*element)`` for each element and return the results in order."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]  # a list

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: _Callback = None,
        error_callback: _Callback = None,
    ) -> AsyncResult:
        """Like ``starmap``, without waiting."""
        arguments = (tuple(element) for element in iterable)
        return self._map(func, arguments, chunksize, callback, error_callback)

    def _map(
        self,
        func: Callable[..., Any],
        arguments: Iterable[tuple[Any, ...]],
        chunksize: int | None,
        callback: _Callback,
        error_callback: _Callback,
    ) -> AsyncResult:
        self._check_running()
        calls = list(arguments)
        if chunksize is None:
            chunksize = -(-len(calls) // (self._size * CHUNKS_PER_WORKER))
        chunks = list(chunks_of(calls, max(1, chunksize)))
        result = AsyncResult(self._workers, len(chunks), _joined, callback, error_callback)
        run = functools.partial(run_chunk, func)
        for number, chunk in enumerate(chunks):
            self._submit(result, number, run, (chunk,), {})
        return result

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Call ``func`` with each element and yield the results in order, as they come.

        The iterable is read by another thread, not much further than results are taken.

        Raises:
            ValueError: ``chunksize`` is below one, or the pool was closed.
        """
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Like ``imap``, with the results in any order."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def _imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        run = functools.partial(run_chunk, func)
        feed = _Feed(self._workers, self._size * AHEAD_PER_WORKER, ordered)
        results = IMapIterator(feed, unpack=chunksize == 1)
        chunks = chunks_of(((element,) for element in iterable), chunksize)
        threading.Thread(
            target=feed.run, args=(run, chunks), name="skate-imap", daemon=True
        ).start()
        return results if chunksize == 1 else (value for chunk in results for value in chunk)

    def _submit(
        self,
        result: AsyncResult,
        number: int,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwds: Mapping[str, Any],
    ) -> None:
        future = self._workers.submit(func, args, kwds)
        future.add_done_callback(functools.partial(result.completed, number))

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Accept no further calls; workers end when all are done."""
        if self._state == "running":
            self._state = "closed"
            self._workers.close()

    def terminate(self) -> None:
        """End all workers at once.  Calls that are not done fail with ``TaskCancelledError``."""
        if self._state != "terminated":
            self._state = "terminated"
            self._workers.close()
            self._workers.kill()

    def join(self) -> None:
        """Wait until all calls are done.

        Raises:
            ValueError: Neither ``close`` nor ``terminate`` was called.
        """
        if self._state == "running":
            raise ValueError("Pool is still running")
        self._workers.wait()

    def _check_running(self) -> None:
        if self._state != "running":
            raise ValueError("Pool not running")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} state={self._state} pool_size={self._size}>"


class AsyncResult:
    """The result of one or more calls, as ``multiprocessing.pool.AsyncResult``."""

    def __init__(
        self,
        workers: Workers,
        count: int,
        combine: Callable[[Sequence[Any]], Any],
        callback: _Callback,
        error_callback: _Callback,
    ) -> None:
        """``combine`` makes the result out of those of ``count`` calls."""
        self._workers = workers
        self._values: list[Any] = [None] * count
        self._left = count
        self._lock = threading.Lock()
        self._combine = combine
        self._callback = callback
        self._error_callback = error_callback
        self._error: BaseException | None = None
        self._value: Any = combine([]) if count == 0 else None
        self._ready = count == 0

    def completed(self, number: int, future: Any) -> None:
        """One of the calls has ended."""
        error = future.exception()
        with self._lock:
            if error is None:
                self._values[number] = future.result()
            elif self._error is None:
                self._error = error
            self._left -= 1
            if self._left:
                return
        if self._error is None:
            self._value = self._combine(self._values)
        self._values.clear()
        callback = self._callback if self._error is None else self._error_callback
        if callback is not None:
            try:
                callback(self._value if self._error is None else self._error)
            except Exception:
                logger.exception("a callback of a Pool raised")
        self._ready = True

    def ready(self) -> bool:
        """Return whether all calls have ended."""
        return self._ready

    def successful(self) -> bool:
        """Return whether they ended without an exception.

        Raises:
            ValueError: They have not ended.
        """
        if not self._ready:
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all calls have ended, or ``timeout`` seconds."""
        self._workers.wait_for(self.ready, Deadline(timeout))

    def get(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what a call raised.

        Raises:
            TimeoutError: After ``timeout`` seconds there was none.
        """
        self.wait(timeout)
        if not self._ready:
            raise TimeoutError(f"no result after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value


class IMapIterator:
    """The results of ``imap``, as they come."""

    def __init__(self, feed: _Feed, unpack: bool) -> None:
        """``unpack``: yield the elements of chunks of one, not the chunks."""
        self._feed = feed
        self._unpack = unpack
        # The thread that feeds must not wait for room that nobody is left to make.
        weakref.finalize(self, feed.abandon)

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
            StopIteration: There are no more.
            TimeoutError: It was not there within ``timeout`` seconds.
        """
        value = self._feed.take(timeout)
        return value[0] if self._unpack else value


class _Feed:
    """Submits the chunks of an ``imap``, in a thread of its own, as results are taken."""

    def __init__(self, workers: Workers, ahead: int, ordered: bool) -> None:
        self._workers = workers
        self._ordered = ordered
        self._lock = threading.Lock()
        #: Futures whose results were not taken: in the order of the iterable, or of completion.
        self._futures: deque[Any] = deque()
        #: How many chunks were read and not taken.
        self._open = 0
        self._exhausted = False
        self._abandoned = False
        self._room = threading.Semaphore(ahead)

    def abandon(self) -> None:
        """Nobody will take a result any more."""
        self._abandoned = True
        self._room.release()

    def run(self, function: Callable[..., Any], chunks: Iterator[Any]) -> None:
        """Submit all chunks."""
        try:
            for chunk in chunks:
                self._room.acquire()
                if self._abandoned:
                    return
                self._add(self._workers.submit(function, (chunk,), {}))
        except BaseException as error:
            # The user's iterable has raised: that is the last result.
            self._add(_Failed(error))
        self._exhausted = True
        self._workers.notify()

    def _add(self, future: Any) -> None:
        with self._lock:
            self._open += 1
            if self._ordered:
                self._futures.append(future)
        if not self._ordered:
            future.add_done_callback(self._futures.append)

    def take(self, timeout: float | None) -> Any:
        """Return the next result; see ``IMapIterator.next``."""
        self._workers.wait_for(self._can_tell, Deadline(timeout))
        if not self._can_tell():
            raise TimeoutError(f"no result after {timeout} s")
        if not self._futures:
            raise StopIteration
        future = self._futures.popleft()
        with self._lock:
            self._open -= 1
        self._room.release()
        return future.result()

    def _can_tell(self) -> bool:
        """Whether the next result is there, or it is known that there is none."""
        with self._lock:
            if self._futures:
                return bool(self._futures[0].done())
            return self._exhausted and not self._open


class _Failed:
    """What stands for a future when an iterable raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def result(self) -> NoReturn:
        raise self._error

    def add_done_callback(self, function: Callable[[Any], object]) -> None:
        function(self)


def _joined(chunks: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for chunk in chunks for value in chunk]


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, int) and value > 0)
