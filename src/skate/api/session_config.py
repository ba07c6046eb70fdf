"""Checks of what ``init`` is given, and defaults from the machine."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from skate.api import options as option_checks
from skate.api.spill_uri import check_spill_uri
from skate.engine.base import SessionConfig
from skate.exceptions import NotSupportedError

#: What part of the machine's memory shared objects may take.
STORE_SHARE = 0.3
#: Below this many bytes a store holds nothing that would not travel in messages anyway.
MIN_STORE = 16 * 1024 * 1024

#: Share of the machine's memory in use above which workers are ended, as in Ray.
MEMORY_THRESHOLD = 0.95
#: Says another one for sessions that are not told.
MEMORY_VARIABLE = "SKATE_MEMORY_USAGE_THRESHOLD"
#: Waits are told of after so many seconds.
DEFAULT_HANG_WARNING_S = 60.0
#: Set to 1: calls that raise wait for a debugger.
POST_MORTEM_VARIABLE = "SKATE_POST_MORTEM"

#: Where metrics are served unless the user says otherwise: this machine alone can reach it.
METRICS_HOST = "127.0.0.1"

ENGINES = ("native", "inline")

_OWN = (
    "address",
    "num_cpus",
    "num_gpus",
    "resources",
    "object_store_memory",
    "spill_uri",
    "preload",
    "namespace",
    "logging_level",
    "log_to_driver",
    "metrics_port",
    "metrics_host",
    "memory_usage_threshold",
    "post_mortem",
    "hang_warning_s",
    "ignore_reinit_error",
    "runtime_env",
    "engine",
)
# Options of ray.init about things that Skate does not have, or does without being told.
_IGNORED = (
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
    "dashboard_agent_listen_port",
    "configure_logging",
    "logging_format",
    "logging_config",
    "local_mode",
    "labels",
    "_temp_dir",
    "_memory",
    "_system_config",
    "_node_ip_address",
    "_metrics_export_port",
    "_enable_object_reconstruction",
    "_tracing_startup_hook",
)
_UNSUPPORTED = ("job_config", "storage", "allow_multiple")


def check_others(others: Mapping[str, Any]) -> bool:
    """Check options that ``init`` has no parameter for; return the value of ``local_mode``."""
    for name, value in others.items():
        if name in _UNSUPPORTED:
            if value:
                raise NotSupportedError(f"init({name}=...) is not supported")
        elif name not in _IGNORED:
            known = (*_OWN, *_IGNORED, *_UNSUPPORTED)
            raise TypeError(f"init() has no option {name!r}.{option_checks.nearest(name, known)}")
    return bool(others.get("local_mode", False))


def engine_name(name: object) -> str:
    """Check the name of an engine."""
    if not isinstance(name, str) or name not in ENGINES:
        hint = option_checks.nearest(name, ENGINES) if isinstance(name, str) else ""
        raise ValueError(f"there is no engine {name!r}, only {' and '.join(ENGINES)}.{hint}")
    return name


def check(
    *,
    address: object,
    num_cpus: object,
    num_gpus: object,
    resources: object,
    object_store_memory: object,
    spill_uri: object,
    preload: object,
    namespace: object,
    logging_level: int | str | None,
    log_to_driver: object,
    runtime_env: object,
    post_mortem: object = None,
    hang_warning_s: object = DEFAULT_HANG_WARNING_S,
    metrics_port: object = None,
    metrics_host: object = METRICS_HOST,
    memory_usage_threshold: object = None,
) -> SessionConfig:
    """Check the options and fill in what was left out.

    Raises:
        TypeError, ValueError, NotSupportedError: With the name of the option that is wrong.
    """
    where = _address(address)
    if where != "local":
        for name, value in (
            ("num_cpus", num_cpus),
            ("num_gpus", num_gpus),
            ("resources", resources),
            ("object_store_memory", object_store_memory),
            ("preload", preload),
        ):
            if value is not None:
                raise ValueError(
                    f"{name} cannot be given with address={where!r}: a cluster has what its nodes "
                    "were started with"
                )
    if namespace is None:
        namespace = os.urandom(8).hex()
    elif not isinstance(namespace, str) or not namespace:
        raise TypeError(f"namespace must be a string that is not empty, not {namespace!r}")
    log_to_driver = option_checks.flag("log_to_driver", log_to_driver)
    if post_mortem is None:
        post_mortem = os.environ.get(POST_MORTEM_VARIABLE, "") not in ("", "0")
    post_mortem = option_checks.flag("post_mortem", post_mortem)
    if hang_warning_s is not None:
        hang_warning_s = option_checks.amount("hang_warning_s", hang_warning_s)
        if not hang_warning_s:
            raise ValueError("hang_warning_s must be more than 0 seconds, or None for never")
    memory = memory_bytes()
    store = (
        int(memory * STORE_SHARE) if object_store_memory is None else _store(object_store_memory)
    )
    amounts = {
        "CPU": available_cpus() if num_cpus is None else option_checks.amount("num_cpus", num_cpus),
        "GPU": available_gpus() if num_gpus is None else _gpus(num_gpus),
        "memory": max(0, memory - store),
        **(accelerator_types() if num_gpus is None and available_gpus() else {}),
        **option_checks.custom_resources("resources", {} if resources is None else resources),
    }
    return SessionConfig(
        resources={name: float(number) for name, number in amounts.items() if number},
        object_store_memory=store,
        spill_uri=check_spill_uri(spill_uri),
        preload=_modules(preload),
        namespace=namespace,
        logging_level=_level(logging_level),
        log_to_driver=log_to_driver,
        metrics_port=_port("metrics_port", metrics_port),
        metrics_host=_host("metrics_host", metrics_host),
        memory_usage_threshold=memory_threshold(memory_usage_threshold),
        post_mortem=post_mortem,
        hang_warning_s=hang_warning_s,
        runtime_env=_environment(runtime_env),
        address=where,
    )


def memory_threshold(value: object) -> float:
    """Check the share of memory above which workers are ended; None: as the environment says.

    Raises:
        TypeError, ValueError: It is no number above 0 and up to 1.
    """
    option = "memory_usage_threshold"
    if value is None:
        value = os.environ.get(MEMORY_VARIABLE)
        if not value:
            return MEMORY_THRESHOLD
        option = MEMORY_VARIABLE
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number, not {value!r}")
    if not 0 < value <= 1:
        raise ValueError(
            f"{option} must be above 0 and at most 1 (then workers are never ended to save memory),"
            f" but is {value!r}"
        )
    return float(value)


def _address(value: object) -> str:
    if value in (None, "", "local"):
        return "local"
    if not isinstance(value, str):
        raise TypeError(f'address must be "auto" or host:port of a cluster, not {value!r}')
    if value.startswith("ray://"):
        raise NotSupportedError(
            f"address={value!r}: Ray clusters cannot be joined, only those of `skate start`"
        )
    return value


def set_log_level(level: int | str | None) -> None:
    """Set the level of the logger "skate" unless ``level`` is None."""
    if level is not None:
        logging.getLogger("skate").setLevel(_level(level))


def _level(level: int | str | None) -> int:
    if level is None:
        return logging.getLogger("skate").getEffectiveLevel()
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"logging_level must be a level of logging, not {level!r}")
    return number


def _environment(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    from skate.api import runtime_env

    return runtime_env.check("runtime_env", value)


def _gpus(value: object) -> float:
    number = option_checks.amount("num_gpus", value)
    if number != int(number):
        raise ValueError(f"num_gpus must be a whole number, but is {value!r}")
    visible = _visible_gpus()
    if visible and number > len(visible):
        raise ValueError(
            f"num_gpus={value!r}, but CUDA_VISIBLE_DEVICES names only {', '.join(visible)}: two"
            " tasks would get the same GPU"
        )
    return number


def _store(value: object) -> int:
    number = int(option_checks.amount("object_store_memory", value))
    if number < MIN_STORE:
        raise ValueError(f"object_store_memory must be at least {MIN_STORE} bytes, but is {value}")
    return number


def _port(option: str, value: object) -> int:
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError(f"{option} must be a port from 0 to 65535, but is {value!r}")
    return value


def _host(option: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{option} must be a host name or address, not {value!r}")
    return value


def _modules(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise TypeError(f"preload must be a list of module names, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise TypeError(f"preload must be a list of module names, but has {name!r}")
    return list(value)


# --------------------------------------------------------------------------- the machine


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and the quota of its container."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        count = min(count, max(1, round(int(quota[0]) / int(quota[1]))))
    return count


def available_gpus() -> int:
    """Return how many GPUs this process may use, without asking a driver."""
    visible = _visible_gpus()
    return len(glob.glob("/proc/driver/nvidia/gpus/*")) if visible is None else len(visible)


def _visible_gpus() -> list[str] | None:
    """Return the ids in ``CUDA_VISIBLE_DEVICES``, None if it does not exist."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    ids = [part.strip() for part in visible.split(",") if part.strip()]
    # By convention an invalid id ends the list.
    return ids[: ids.index("-1")] if "-1" in ids else ids


def accelerator_types(folder: str = "/proc/driver/nvidia/gpus") -> dict[str, float]:
    """Return a resource for each kind of GPU in this machine: ``accelerator_type:H100``."""
    found: dict[str, float] = {}
    for path in glob.glob(f"{folder}/*/information"):
        for line in _read(path).splitlines():
            name, _, model = line.partition(":")
            # "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-16GB", "NVIDIA GeForce RTX 3090"
            kind = re.search(r"\b([A-Z]+\d+\w*)", model)
            if name == "Model" and kind:
                found[option_checks.ACCELERATOR_TYPE + kind[1]] = 1.0
    return found


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container if that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
