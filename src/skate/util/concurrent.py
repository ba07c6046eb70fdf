"""An executor of ``concurrent.futures`` whose workers are actors."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import skate
from skate.exceptions import ActorError
from skate.util._workers import Workers, WorkersBrokenError

T = TypeVar("T")

__all__ = ["BrokenWorkersError", "SkateExecutor", "WorkerLostError"]


class BrokenWorkersError(WorkersBrokenError, BrokenProcessPool):
    """The initializer raised; the executor is of no use any more."""


class WorkerLostError(ActorError, BrokenProcessPool):
    """The worker that ran the call died."""


class SkateExecutor(concurrent.futures.Executor):
    """A drop-in for ``concurrent.futures.ProcessPoolExecutor`` on the processes of the session.

    Functions, arguments and results may be anything that tasks take, lambdas and functions of
    ``__main__`` included; ``ObjectRef`` arguments are replaced by their values.  When a worker dies
    only the call that it ran fails, with ``WorkerLostError`` (a ``BrokenProcessPool``), and another
    worker takes its place: the standard library gives up the whole executor.

    Done callbacks run in a thread of Skate's that reads messages: they should be short.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        actor_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Workers are started when there is work for them.

        Args:
            max_workers: By default one for each CPU of the session.
            mp_context: Accepted and ignored.
            initializer: Each worker calls it before its first call.
            initargs: Its arguments.
            max_tasks_per_child: Replace a worker after so many calls.
            actor_options: Options of the actors that are the workers, such as ``num_cpus``.  By
                default they reserve no resources, so that calls may wait for others.

        Raises:
            ValueError, TypeError: As ``ProcessPoolExecutor``.
        """
        if max_workers is None:
            max_workers = session_cpus()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._workers = Workers(
            max_workers,
            initializer,
            initargs,
            max_tasks_per_child,
            actor_options,
            lost_error=_lost,
            broken_class=BrokenWorkersError,
            finish_at_exit=True,
        )
        self._closed = False

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Call ``fn`` in a worker.

        Until a worker begins with it the future can be cancelled.

        Raises:
            RuntimeError: ``shutdown`` was called.
            BrokenWorkersError: The initializer has raised.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return self._workers.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: None = None,
    ) -> Iterator[T]:
        """Like the built-in ``map``, with the calls made in workers, all submitted at once.

        Args:
            fn: Takes as many arguments as there are iterables.
            iterables: They are read before this returns.
            timeout: Seconds from now until the last result has to be there.
            chunksize: How many calls travel to a worker together.
            buffersize: Not supported.

        Raises:
            TimeoutError: From the iterator, when a result is not there in time.
            ValueError: ``chunksize`` is below one.
            NotImplementedError: ``buffersize`` was given.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            raise NotImplementedError("map(buffersize=...) is not supported by SkateExecutor")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = super().map(
            functools.partial(run_chunk, fn),
            chunks_of(zip(*iterables, strict=False), chunksize),
            timeout=timeout,
        )
        return _elements(chunks)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; workers end when the work is done.

        Args:
            wait: Return when all futures are done.
            cancel_futures: Cancel those that no worker has begun.
        """
        self._closed = True
        if cancel_futures:
            self._workers.cancel_waiting()
        self._workers.close()
        if wait:
            self._workers.wait()


def session_cpus() -> int:
    """Return the number of CPUs of the session, at least one; start a session if there is none."""
    return max(1, int(skate.cluster_resources().get("CPU", 1)))


def chunks_of(values: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield ``values`` in tuples of ``size``, the last one perhaps shorter."""
    iterator = iter(values)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def run_chunk(function: Callable[..., T], chunk: Iterable[tuple[Any, ...]]) -> list[T]:
    """Call ``function`` with each tuple of arguments."""
    return [function(*arguments) for arguments in chunk]


def _elements(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        yield from chunk


def _lost(error: ActorError) -> WorkerLostError:
    return WorkerLostError(str(error), actor_id=error.actor_id)
