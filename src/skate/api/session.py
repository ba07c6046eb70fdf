"""The session of this process: ``init``, ``shutdown``, and the engine that everything else uses."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from skate.exceptions import NotSupportedError, SessionError
from skate.refs import hooks

if TYPE_CHECKING:
    from skate.engine.base import Engine, SessionConfig

#: Which engine ``init()`` starts when it is not told: "native" or "inline".
ENGINE_VARIABLE = "SKATE_ENGINE"
#: The cluster that ``init()`` joins when it is given no address, as ``RAY_ADDRESS`` is for Ray.
ADDRESS_VARIABLE = "SKATE_ADDRESS"
#: The native engine stands on epoll, eventfd and pidfd; elsewhere everything runs in one process.
DEFAULT_ENGINE = "native" if sys.platform == "linux" else "inline"

_engine: Engine | None = None
_lock = threading.RLock()
_exit_registered = False
_exiting = False


def current() -> Engine:
    """Return the engine of this process; start the default one if there is none."""
    engine = _engine
    return engine if engine is not None else _start_implicitly()


def running() -> Engine | None:
    """Return the engine of this process, or None."""
    return _engine


def portable(given: dict[str, Any]) -> dict[str, Any]:
    """Return options that mean the same in another process.

    Local files in a runtime environment are brought into the session; without one they stay paths.
    """
    environment = given.get("runtime_env")
    if not environment or _engine is None:
        return given
    from skate.api import runtime_env

    checked = runtime_env.check("runtime_env", environment)
    return {**given, "runtime_env": runtime_env.RuntimeEnv(**_engine.portable(checked))}


def _start_implicitly() -> Engine:
    with _lock:
        if _exiting:
            raise SessionError("the session has ended: the interpreter is exiting")
        if _engine is None:
            init()
        assert _engine is not None
        return _engine


def adopt(engine: Engine) -> None:
    """Make ``engine`` the one that API calls of this process use (workers call it)."""
    global _engine
    _engine = engine


def is_initialized() -> bool:
    """Return whether this process has a session."""
    return _engine is not None


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    object_store_memory: int | None = None,
    spill_uri: str | None = None,
    preload: list[str] | None = None,
    namespace: str | None = None,
    logging_level: int | str | None = None,
    log_to_driver: bool = True,
    metrics_port: int | None = None,
    metrics_host: str = "127.0.0.1",
    memory_usage_threshold: float | None = None,
    post_mortem: bool | None = None,
    hang_warning_s: float | None = 60.0,
    ignore_reinit_error: bool = False,
    runtime_env: Mapping[str, Any] | None = None,
    engine: str | None = None,
    **others: Any,
) -> Context:
    """Start a session on this machine, or join a cluster.

    Without it the first use of the API starts a session.

    Args:
        address: "local": a session of its own; ``host:port``, ``skate://host:port`` or "auto":
            join the cluster of this address (or the one started last) through its node on this
            machine.  None: what ``SKATE_ADDRESS`` says, else "local".
        num_cpus: How many tasks of one CPU run at the same time; by default one for each CPU that
            this process may use.
        num_gpus: By default all that ``CUDA_VISIBLE_DEVICES`` allows.  Not checked to exist.
        resources: Amounts of further resources by name, for tasks that ask for them.
        object_store_memory: Bytes of shared memory at most; by default 30 % of the machine's.
        spill_uri: Where objects go that do not fit into it: a directory, or any URL of fsspec
            (``s3://bucket/folder``; needs ``skate[spill]``).  By default a directory on a local
            disk.  Everything there is deleted as it is freed, at the latest at the end.
        preload: Modules that workers have imported before they start.
        namespace: Where named actors of this session live.
        logging_level: Of the logger "skate".
        log_to_driver: Whether what workers print appears here.
        metrics_port: Serve metrics to Prometheus at ``http://<metrics_host>:<port>/metrics``; 0:
            on any free port, which ``nodes()`` names as "MetricsExportPort"; None: not at all.
        metrics_host: Where to listen for that.  Whoever can reach it may read the metrics.
        memory_usage_threshold: If a larger share of the memory of the machine (or of the control
            group) is in use, workers are ended and their tasks tried again later, see
            ``OutOfMemoryError``; by default ``SKATE_MEMORY_USAGE_THRESHOLD``, otherwise 0.95.  1:
            never.
        post_mortem: Let calls that raise wait for ``skate debug`` before their caller is told; by
            default whether ``SKATE_POST_MORTEM=1`` is set.
        hang_warning_s: Calls that wait longer are reported in the log; None: never.  (Calls that
            wait for each other in a circle are always reported.)
        ignore_reinit_error: Return the running session's context instead of raising.
        runtime_env: What tasks and actors find around them unless their own options say
            otherwise: a dict or a ``skate.runtime_env.RuntimeEnv``.
        engine: "native" (the default on Linux) or "inline": everything in this process, in order.
        others: Options of ``ray.init`` that have no meaning here are accepted.

    Returns:
        The session's context; leaving it as a context manager calls ``shutdown``.

    Raises:
        SessionError: There is a session already (a RuntimeError), it could not be started, or
            there is no such cluster.
        TypeError, ValueError: An option that is unknown or wrong.
        NotSupportedError: An address or option that this version does not support.
    """
    from skate.api import options, session_config

    local_mode = session_config.check_others(others)
    options.flag("ignore_reinit_error", ignore_reinit_error)
    global _engine
    with _lock:
        if _engine is not None:
            if ignore_reinit_error:
                return Context(_engine)
            raise SessionError(
                "there is a session already (init() was called before, or the first use of the"
                " API has started one): call skate.shutdown() first,"
                " or pass ignore_reinit_error=True to go on with it"
            )
        name = session_config.engine_name(
            engine
            or ("inline" if local_mode else os.environ.get(ENGINE_VARIABLE) or DEFAULT_ENGINE)
        )
        if address is None and name != "inline":
            address = os.environ.get(ADDRESS_VARIABLE)
        config = session_config.check(
            address=address,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources,
            object_store_memory=object_store_memory,
            spill_uri=spill_uri,
            preload=preload,
            namespace=namespace,
            logging_level=logging_level,
            log_to_driver=log_to_driver,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            memory_usage_threshold=memory_usage_threshold,
            post_mortem=post_mortem,
            hang_warning_s=hang_warning_s,
            runtime_env=runtime_env,
        )
        if name == "inline" and config.address != "local":
            raise NotSupportedError(
                f"address={address!r}: the inline engine runs everything in this process and joins "
                "no cluster"
            )
        session_config.set_log_level(logging_level)
        started = _starter(name)(config)
        _register_exit()
        _engine = started
        return Context(started)


def _starter(name: str) -> Callable[[SessionConfig], Engine]:
    # Engines are heavy to import: only the chosen one is.
    if name == "inline":
        from skate.engine.inline import start as start_inline

        return start_inline
    if sys.platform != "linux":
        raise NotSupportedError(
            'the native engine needs Linux; init(engine="inline") runs everything in this process'
        )
    from skate.engine.starting import start as start_native

    return start_native


def _register_exit() -> None:
    global _exit_registered
    if not _exit_registered:
        import atexit

        atexit.register(_at_exit)
        # A fork of the driver shares its sockets but is not the driver.
        os.register_at_fork(after_in_child=_forget)
        _exit_registered = True


def _at_exit() -> None:
    # Finalizers that run after this must not start another session.
    global _exiting
    _exiting = True
    shutdown()


def _forget() -> None:
    global _engine, _lock
    _engine = None
    _lock = threading.RLock()
    hooks.clear()


def shutdown() -> None:
    """End the session and all its processes; nothing happens if there is none."""
    global _engine
    with _lock:
        ending, _engine = _engine, None
        if ending is None:
            return
        if not ending.context().is_driver:
            _engine = ending
            raise SessionError("a task cannot shut down the session that it runs in")
        try:
            ending.shutdown()
        finally:
            hooks.clear()


class Context:
    """What ``init`` returns."""

    def __init__(self, engine: Engine) -> None:
        where = engine.context()
        #: Of the session: "node_id", "job_id", "namespace", "session_dir".
        self.address_info: dict[str, Any] = {
            "node_id": where.node_id.hex(),
            "job_id": where.job_id,
            "namespace": where.namespace,
            "session_dir": engine.session_dir,
            "node_ip_address": "127.0.0.1",
            "address": "local",
        }
        #: There is no dashboard yet.
        self.dashboard_url = ""

    def __getitem__(self, name: str) -> Any:
        return self.address_info[name]

    def disconnect(self) -> None:
        """End the session."""
        shutdown()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        shutdown()

    def __repr__(self) -> str:
        info = self.address_info
        return f"Context(node_id={info['node_id']!r}, namespace={info['namespace']!r})"
