"""Puts a worker process together: core, engine, public API, output."""

from __future__ import annotations

import contextlib
import io
import signal
import sys

from skate.api import breakpoints, session
from skate.engine.native import NativeEngine
from skate.runtime.wire.addresses import Access
from skate.runtime.worker.config import WorkerConfig
from skate.runtime.worker.core import Core
from skate.runtime.worker.output import NamedOutput


def run(config: WorkerConfig) -> None:
    """Serve the session that ``config`` describes until told to exit."""
    if config.sys_path:
        # First what the driver has, in its order: it is the driver's code that runs here.
        sys.path[:] = [*config.sys_path, *(p for p in sys.path if p not in config.sys_path)]
    core = Core(
        config.worker_id,
        config.node_id,
        config.session_dir,
        config.node_address,
        config.store_address,
        is_driver=False,
        environment=config.environment.environment if config.environment is not None else b"",
        access=_access(config),
    )
    executor = core.executor
    assert executor is not None
    executor.invoker.outputs = (_open_output(1), _open_output(2))
    sys.stdout, sys.stderr = executor.invoker.outputs
    signal.signal(signal.SIGINT, executor.cancellation.handle_signal)
    session.adopt(NativeEngine(core))
    breakpoints.install(core, config.post_mortem)
    with contextlib.suppress(KeyboardInterrupt):
        core.register("worker")
        executor.run()


def _access(config: WorkerConfig) -> Access | None:
    if not config.host:
        return None
    from skate.runtime.wire.authentication import read_token  # clusters only

    return Access(config.host, read_token(config.token_file))


def _open_output(fd: int) -> NamedOutput:
    # Line buffered: what a task has printed is on its way before its result is.
    stream = io.TextIOWrapper(
        open(fd, "wb", buffering=8192, closefd=False),  # noqa: SIM115  # open as long as the process lives
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    return NamedOutput(stream)
