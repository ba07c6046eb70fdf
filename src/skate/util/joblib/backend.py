"""A backend of joblib that runs batches of calls as tasks."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

import skate
from skate.exceptions import SkateError
from skate.util._workers import original
from skate.util.concurrent import session_cpus
from skate.util.joblib.batches import SharedArrays, pack, run_packed

#: How often the thread that stands for a waiting task looks for other results, in seconds.
LOOK_SECONDS = 0.2


class SkateBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs each batch as a task of one CPU.

    Calls of ``Parallel`` inside of batches run as tasks as well, to any depth: who waits for them
    gives its CPU back.  A batch whose worker dies is run again, as any task.
    """

    supports_retrieve_callback = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
        **backend_kwargs: Any,
    ) -> None:
        """``ray_remote_args``: options of the tasks, such as ``{"num_cpus": 2}``."""
        super().__init__(
            nesting_level=nesting_level,
            inner_max_num_threads=inner_max_num_threads,
            **backend_kwargs,
        )
        self._options = dict(ray_remote_args or {})
        self._run = skate.remote(run_packed).options(**{"name": "joblib", **self._options})
        self._lock = threading.Lock()
        self._n_jobs = 1
        self._arrays = SharedArrays(None)
        self._waiting: deque[_Job] = deque()
        #: How many were taken from there whose tasks are not submitted yet.
        self._starting = 0
        self._running: dict[skate.ObjectRef[Any], _Job] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels to tasks as the backend of nested calls.
        return _rebuild, (self.nesting_level, self._options)

    # ------------------------------------------------------------------ what joblib asks for

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at the same time; negative numbers count from all CPUs down.

        Raises:
            ValueError: ``n_jobs`` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, session_cpus() + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        max_nbytes: int | None = None,
        **_others: Any,
    ) -> int:
        """Prepare for a call of ``Parallel``; ``max_nbytes``: larger arrays are shared."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._n_jobs = n_jobs
        self._arrays = SharedArrays(max_nbytes)
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> concurrent.futures.Future[Any]:
        """Run a batch as soon as fewer than ``n_jobs`` others run."""
        job = _Job(func)
        if callback is not None:
            job.future.add_done_callback(callback)
        with self._lock:
            self._waiting.append(job)
        self._start_waiting()
        return job.future

    #: The name until joblib 1.5.
    apply_async = submit

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        """Return the results of a batch, or raise what it raised."""
        return out.result()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, None]:
        """Return the backend of calls of ``Parallel`` inside of batches."""
        return _rebuild((self.nesting_level or 0) + 1, self._options), None

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """While joblib waits for results in a task: give its CPU back.

        joblib waits by sleeping, so a thread waits for the results the way Skate does, which is
        what gives back the CPU.
        """
        if skate.get_runtime_context().get_task_id() is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._wait, args=(ended,), name="skate-joblib")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call has raised, or nobody wants the results: stop what runs, forget the rest."""
        self.terminate()

    def terminate(self) -> None:
        """Stop what runs, and let go of shared arrays."""
        with self._lock:
            self._waiting.clear()
            running = list(self._running)
        for ref in running:
            with contextlib.suppress(SkateError):
                skate.cancel(ref)
        self._arrays = SharedArrays(None)

    # ------------------------------------------------------------------ tasks

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or len(self._running) + self._starting >= self._n_jobs:
                    return
                job = self._waiting.popleft()
                self._starting += 1
            self._start(job)

    def _start(self, job: _Job) -> None:
        try:
            ref = self._run.remote(*pack(job.batch, self._arrays))
        except Exception as error:  # it cannot be pickled
            with self._lock:
                self._starting -= 1
            job.future.set_exception(error)
            return
        with self._lock:
            self._starting -= 1
            self._running[ref] = job
        ref.future().add_done_callback(lambda done: self._ended(ref, job, done))

    def _ended(
        self, ref: skate.ObjectRef[Any], job: _Job, done: concurrent.futures.Future[Any]
    ) -> None:
        with self._lock:
            del self._running[ref]
        self._start_waiting()
        error = done.exception()
        if error is None:
            job.future.set_result(done.result())
        else:
            job.future.set_exception(original(error))

    def _wait(self, ended: threading.Event) -> None:
        while not ended.is_set():
            with self._lock:
                refs = list(self._running)
            if not refs or skate.wait(refs, timeout=LOOK_SECONDS)[0]:
                # Another thread handles that result, and perhaps starts the next task.
                ended.wait(0.002)


class _Job:
    """A batch, and the future of its results."""

    __slots__ = ("batch", "future")

    def __init__(self, batch: Callable[[], Any]) -> None:
        self.batch = batch
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()


def _rebuild(nesting_level: int | None, options: dict[str, Any]) -> SkateBackend:
    return SkateBackend(nesting_level=nesting_level, ray_remote_args=options)
