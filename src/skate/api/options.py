"""The options of ``@remote``, ``.options()`` and ``@method``: which there are and what they may be.

Whatever a user may write wrong here is refused when it is written, not when the task runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from skate.api.checks import nearest as nearest
from skate.engine.base import (
    DYNAMIC,
    STREAMING,
    ActorOptions,
    CallOptions,
    Strategy,
    TaskOptions,
)
from skate.exceptions import NotSupportedError

#: Begins the names of resources that say what kind of GPU a node has.
ACCELERATOR_TYPE = "accelerator_type:"
#: Amounts of resources are multiples of this.
RESOURCE_STEP = 0.0001

#: How many calls of an async actor run at the same time unless told otherwise.
ASYNC_CONCURRENCY = 1000

Given = Mapping[str, Any]


# --------------------------------------------------------------------------- checks of one value


def amount(option: str, value: object) -> float:
    """Check an amount of a resource: a finite number, zero or more, in steps of 0.0001."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        # numpy's numbers are no subclasses of ours but convert without loss.
        convert = getattr(value, "__float__", None)
        if convert is None or isinstance(value, bool | str):
            raise TypeError(f"{option} must be a number, not {value!r}")
        value = float(convert())
    if not math.isfinite(value):
        raise ValueError(f"{option} must be finite, not {value!r}")
    if value < 0:
        raise ValueError(f"{option} must not be negative, but is {value!r}")
    rounded = round(value / RESOURCE_STEP) * RESOURCE_STEP
    if value and abs(rounded - value) > 1e-9 * max(1.0, value):
        raise ValueError(f"{option} must be a multiple of {RESOURCE_STEP}, but is {value!r}")
    return float(value)


def gpu_amount(option: str, value: object) -> float:
    """Check an amount of GPUs: above one only whole ones, since a task cannot use a bit of each."""
    number = amount(option, value)
    if number > 1 and number != int(number):
        raise ValueError(f"{option} must be at most 1 or a whole number, but is {value!r}")
    return number


def custom_resources(option: str, value: object) -> dict[str, float]:
    """Check amounts of resources by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict of amounts by name, not {value!r}")
    checked: dict[str, float] = {}
    for name, number in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"{option} must have names as keys, not {name!r}")
        if name in _RESERVED:
            raise ValueError(f"{name} does not belong in {option}: use {_RESERVED[name]} instead")
        checked[name] = amount(f"{option}[{name!r}]", number)
    return checked


_RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


def _integer(option: str, value: object, least: int, meaning: str = "") -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{option} must be a whole number, not {value!r}")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"{option} must be at least {least}{meaning}, but is {number}")
    return number


def _retries(option: str, value: object) -> int:
    return _integer(option, value, -1, " (-1: without limit)")


def _num_returns(option: str, value: object) -> int:
    if isinstance(value, str):
        if value not in ("dynamic", "streaming"):
            raise ValueError(
                f"{option} must be a whole number, 'streaming' or 'dynamic', not {value!r}"
            )
        return STREAMING if value == "streaming" else DYNAMIC
    return _integer(option, value, 0)


def _backpressure(option: str, value: object) -> int:
    number = _integer(option, value, -1, " (-1: without limit)")
    if number == 0:
        raise ValueError(f"{option} must be at least 1, or -1 (without limit), but is 0")
    return max(number, 0)


def exception_names(option: str, value: object) -> bool | tuple[str, ...]:
    """Check exceptions to retry after: True for all, or classes, which become their names.

    By name, because they are compared in another process, where a class that was pickled by value
    is another one.
    """
    if isinstance(value, bool):
        return value
    kinds = tuple(value) if isinstance(value, list | tuple) else None
    if kinds is None or not all(
        isinstance(kind, str) or (isinstance(kind, type) and issubclass(kind, BaseException))
        for kind in kinds
    ):
        raise TypeError(f"{option} must be a bool or a list of exception classes, not {value!r}")
    return tuple(
        kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
    )


def _seconds(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number of seconds, not {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{option} must be finite and more than zero, but is {value!r}")
    return float(value)


def _groups(option: str, value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict of limits by name, not {value!r}")
    return {
        non_empty(f"name in {option}", name): _integer(f"{option}[{name!r}]", limit, 1)
        for name, limit in value.items()
    }


def _pending_calls(option: str, value: object) -> int:
    number = _integer(option, value, -1, " (-1: without limit)")
    if number == 0:
        raise ValueError(f"{option} must be at least 1, or -1 (without limit), but is 0")
    return number


def _text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a string, not {value!r}")
    return value


def non_empty(option: str, value: object) -> str:
    """Check a name: a string that is not empty."""
    if not _text(option, value):
        raise ValueError(f"{option} must not be empty")
    return str(value)


def flag(option: str, value: object) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{option} must be True or False, not {value!r}")
    return value


def _lifetime(option: str, value: object) -> bool:
    if value == "detached":
        return True
    if value == "non_detached":
        return False
    raise ValueError(f"{option} must be 'detached' or 'non_detached', not {value!r}")


def _environment(option: str, value: object) -> object:
    from skate.api import runtime_env  # few need it

    return runtime_env.check(option, value)


def _ignored(option: str, value: object) -> object:
    return value


def _strategy(option: str, value: object) -> object:
    from skate.api import strategies

    return strategies.check(option, value)


def _unsupported(option: str, value: object) -> object:
    raise NotSupportedError(f"the option {option}={value!r} is not supported")


# ------------------------------------------------------------------- which options there are

_Check = Callable[[str, object], object]

_RESOURCES: dict[str, _Check] = {
    "num_cpus": amount,
    "num_gpus": gpu_amount,
    "memory": amount,
    "resources": custom_resources,
}
#: Options of Ray that mean nothing here (one machine, no event log) or have to wait.
_OF_RAY: dict[str, _Check] = {
    "scheduling_strategy": _strategy,
    "enable_task_events": _ignored,
    "runtime_env": _environment,
    "placement_group": _ignored,  # checked together with the two below
    "placement_group_bundle_index": _ignored,
    "placement_group_capture_child_tasks": _ignored,
    "accelerator_type": non_empty,
    "label_selector": _unsupported,
    "_metadata": _ignored,
    "_labels": _ignored,
}
#: Where a task or actor runs.
_STRATEGY_OPTIONS = (
    "scheduling_strategy",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
)
_TASK: dict[str, _Check] = {
    **_RESOURCES,
    "num_returns": _num_returns,
    "_generator_backpressure_num_objects": _backpressure,
    "max_retries": _retries,
    "retry_exceptions": exception_names,
    "timeout_s": _seconds,
    "name": _text,
    "max_calls": lambda option, value: _integer(option, value, 0),
    **_OF_RAY,
}
_ACTOR: dict[str, _Check] = {
    **_RESOURCES,
    "name": non_empty,
    "namespace": non_empty,
    "get_if_exists": flag,
    "lifetime": _lifetime,
    "max_restarts": _retries,
    "max_task_retries": _retries,
    "max_concurrency": lambda option, value: _integer(option, value, 1),
    "max_pending_calls": _pending_calls,
    "concurrency_groups": _groups,
    "allow_out_of_order_execution": flag,
    "execute_out_of_order": flag,
    **_OF_RAY,
}
_CALL: dict[str, _Check] = {
    "num_returns": _num_returns,
    "_generator_backpressure_num_objects": _backpressure,
    "max_task_retries": _retries,
    "name": _text,
    "retry_exceptions": exception_names,
    "timeout_s": _seconds,
    "concurrency_group": non_empty,
    "enable_task_events": _ignored,
}


def check_names(given: Given, what: str = "") -> None:
    """Refuse names that are options of neither tasks nor actors, or of the wrong one of the two.

    Args:
        given: Options by name.
        what: "task", "actor" or "method"; "" while it is not known yet.

    Raises:
        TypeError: With a suggestion if one is near.
    """
    known = {"task": _TASK, "actor": _ACTOR, "method": _CALL}.get(what) or {**_TASK, **_ACTOR}
    for name in given:
        if name not in known:
            other = {"task": _ACTOR, "actor": _TASK}.get(what, {})
            if name in other:
                owner = "actors (classes)" if what == "task" else "tasks (functions)"
                raise TypeError(f"{name!r} is an option of {owner}, not of {what}s")
            raise TypeError(f"there is no option {name!r}.{nearest(name, known)}")


def _check(given: Given, known: Mapping[str, _Check]) -> dict[str, Any]:
    """Check every value; None stands for the default and is left out."""
    return {name: known[name](name, value) for name, value in given.items() if value is not None}


def _resources(checked: Mapping[str, Any], default_cpus: float) -> dict[str, float]:
    amounts = {
        "CPU": checked.get("num_cpus", default_cpus),
        "GPU": checked.get("num_gpus", 0.0),
        "memory": checked.get("memory", 0.0),
        **checked.get("resources", {}),
    }
    if "accelerator_type" in checked:
        # As in Ray: a little of what a node with such a GPU has one of.
        amounts[ACCELERATOR_TYPE + checked["accelerator_type"]] = 0.001
    return {name: number for name, number in amounts.items() if number}


def _placed(checked: Mapping[str, Any], resources: dict[str, float]) -> Strategy | None:
    if not any(name in checked for name in _STRATEGY_OPTIONS):
        return None
    from skate.api import strategies

    return strategies.of_options(checked, resources)


def task_options(given: Given, generator: bool = False) -> TaskOptions:
    """Turn what the user gave for a function into options with defaults.

    Args:
        given: Options by name.
        generator: It is a generator function: its items are streamed unless told otherwise.

    Raises:
        TypeError, ValueError, NotSupportedError: An option that is unknown, wrong or not supported.
    """
    check_names(given, "task")
    checked = _check(given, _TASK)
    defaults = TaskOptions()
    resources = _resources(checked, default_cpus=1.0)
    return TaskOptions(
        num_returns=checked.get("num_returns", STREAMING if generator else defaults.num_returns),
        generator_backpressure=checked.get("_generator_backpressure_num_objects", 0),
        resources=resources,
        strategy=_placed(checked, resources),
        max_retries=checked.get("max_retries", defaults.max_retries),
        retry_exceptions=checked.get("retry_exceptions", defaults.retry_exceptions),
        timeout_s=checked.get("timeout_s", 0.0),
        max_calls=checked.get("max_calls", 0),
        name=checked.get("name", ""),
        runtime_env=checked.get("runtime_env"),
    )


def actor_options(given: Given, asynchronous: bool = False) -> ActorOptions:
    """Turn what the user gave for a class into options with defaults.

    An actor holds no CPU unless it asks for one: most actors wait most of the time.

    Args:
        given: Options by name.
        asynchronous: The class has methods that are coroutines.

    Raises:
        TypeError, ValueError, NotSupportedError: An option that is unknown, wrong or not supported.
    """
    check_names(given, "actor")
    checked = _check(given, _ACTOR)
    if checked.get("get_if_exists") and "name" not in checked:
        raise ValueError("get_if_exists=True needs the name of the actor to get")
    max_concurrency = checked.get("max_concurrency", ASYNC_CONCURRENCY if asynchronous else 1)
    groups = checked.get("concurrency_groups", {})
    resources = _resources(checked, default_cpus=0.0)
    return ActorOptions(
        resources=resources,
        strategy=_placed(checked, resources),
        name=checked.get("name", ""),
        namespace=checked.get("namespace"),
        max_restarts=checked.get("max_restarts", 0),
        max_task_retries=checked.get("max_task_retries", 0),
        max_concurrency=max_concurrency,
        concurrency_groups=groups,
        asynchronous=asynchronous,
        max_pending_calls=max(checked.get("max_pending_calls", 0), 0),
        out_of_order=_out_of_order(checked, asynchronous or max_concurrency > 1 or bool(groups)),
        detached=checked.get("lifetime", False),
        runtime_env=checked.get("runtime_env"),
    )


def _out_of_order(checked: Mapping[str, Any], concurrent: bool) -> bool:
    """Whether a call whose arguments are not ready lets others of the same caller pass."""
    names = ("allow_out_of_order_execution", "execute_out_of_order")
    asked = [checked[name] for name in names if name in checked]
    if len(set(asked)) > 1:
        raise ValueError(" and ".join(names) + " mean the same but differ")
    if asked == [False] and concurrent:
        raise ValueError(
            f"{next(name for name in names if name in checked)}=False is not possible for an actor"
            " that runs several calls at the same time"
        )
    return asked[0] if asked else concurrent


def call_options(given: Given, generator: bool = False) -> CallOptions:
    """Turn what the user gave for a method into options with defaults.

    Args:
        given: Options by name.
        generator: It is a generator function: its items are streamed unless told otherwise.

    Raises:
        TypeError, ValueError, NotSupportedError: An option that is unknown, wrong or not supported.
    """
    check_names(given, "method")
    checked = _check(given, _CALL)
    return CallOptions(
        num_returns=checked.get("num_returns", STREAMING if generator else 1),
        generator_backpressure=checked.get("_generator_backpressure_num_objects", 0),
        max_task_retries=checked.get("max_task_retries"),
        retry_exceptions=checked.get("retry_exceptions", False),
        timeout_s=checked.get("timeout_s", 0.0),
        concurrency_group=checked.get("concurrency_group", ""),
        name=checked.get("name", ""),
    )
