"""Options that are wrong are refused when they are written."""

from __future__ import annotations

from typing import Any

import pytest

import skate
from skate.exceptions import NotSupportedError


def function(x: int) -> int:
    return x


class Class:
    def method(self) -> None:
        pass


WRONG_FOR_BOTH = [
    ({"num_cpu": 1}, TypeError, "num_cpus"),
    ({"nonsense": 1}, TypeError, "nonsense"),
    ({"num_cpus": -1}, ValueError, "num_cpus"),
    ({"num_cpus": "1"}, TypeError, "num_cpus"),
    ({"num_cpus": True}, TypeError, "num_cpus"),
    ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
    ({"num_cpus": float("inf")}, ValueError, "num_cpus"),
    ({"num_cpus": 0.00001}, ValueError, "num_cpus"),
    ({"num_gpus": 1.5}, ValueError, "num_gpus"),
    ({"num_gpus": -1}, ValueError, "num_gpus"),
    ({"memory": -1}, ValueError, "memory"),
    ({"resources": 1}, TypeError, "resources"),
    ({"resources": {1: 1}}, TypeError, "resources"),
    ({"resources": {"a": "b"}}, TypeError, "resources"),
    ({"resources": {"a": -1}}, ValueError, "resources"),
    ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
    ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
    ({"name": 5}, TypeError, "name"),
    ({"runtime_env": {"conda": "x"}}, NotSupportedError, "conda"),
    ({"scheduling_strategy": 1.5}, TypeError, "scheduling_strategy"),
    ({"placement_group_bundle_index": 3}, ValueError, "needs a placement group"),
    ({"placement_group_bundle_index": "3"}, TypeError, "placement_group_bundle_index"),
    ({"placement_group_capture_child_tasks": 1}, TypeError, "placement_group_capture"),
]
WRONG_FOR_TASKS = [
    ({"num_returns": -1}, ValueError, "num_returns"),
    ({"num_returns": 1.5}, TypeError, "num_returns"),
    ({"num_returns": "two"}, ValueError, "streaming"),
    ({"_generator_backpressure_num_objects": 0}, ValueError, "at least 1"),
    ({"max_retries": -2}, ValueError, "max_retries"),
    ({"max_retries": "3"}, TypeError, "max_retries"),
    ({"retry_exceptions": 1}, TypeError, "retry_exceptions"),
    ({"retry_exceptions": [ValueError("instance")]}, TypeError, "retry_exceptions"),
    ({"retry_exceptions": [int]}, TypeError, "retry_exceptions"),
    ({"max_restarts": 1}, TypeError, "actors"),
    ({"lifetime": "detached"}, TypeError, "actors"),
]
WRONG_FOR_ACTORS = [
    ({"max_restarts": -2}, ValueError, "max_restarts"),
    ({"max_task_retries": 1.5}, TypeError, "max_task_retries"),
    ({"max_concurrency": 0}, ValueError, "max_concurrency"),
    ({"max_pending_calls": 0}, ValueError, "max_pending_calls"),
    ({"concurrency_groups": {"io": 0}}, ValueError, "io"),
    ({"concurrency_groups": ["io"]}, TypeError, "concurrency_groups"),
    (
        {"allow_out_of_order_execution": False, "max_concurrency": 2},
        ValueError,
        "allow_out_of_order_execution",
    ),
    ({"name": ""}, ValueError, "name"),
    ({"namespace": ""}, ValueError, "namespace"),
    ({"lifetime": "forever"}, ValueError, "lifetime"),
    ({"get_if_exists": True}, ValueError, "name"),
    ({"get_if_exists": "yes", "name": "a"}, TypeError, "get_if_exists"),
    ({"num_returns": 2}, TypeError, "tasks"),
    ({"max_retries": 2}, TypeError, "tasks"),
]


@pytest.mark.parametrize(("options", "kind", "match"), WRONG_FOR_BOTH + WRONG_FOR_TASKS, ids=str)
def test_wrong_options_of_tasks(options: dict[str, Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        skate.remote(**options)(function)
    with pytest.raises(kind, match=match):
        skate.remote(function).options(**options)


@pytest.mark.parametrize(("options", "kind", "match"), WRONG_FOR_BOTH + WRONG_FOR_ACTORS, ids=str)
def test_wrong_options_of_actors(
    options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        skate.remote(**options)(Class)
    with pytest.raises(kind, match=match):
        skate.remote(Class).options(**options)


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"num_return": 2}, TypeError, "num_returns"),
        ({"num_returns": -2}, ValueError, "num_returns"),
        ({"num_cpus": 2}, TypeError, "num_cpus"),
        ({"max_task_retries": "x"}, TypeError, "max_task_retries"),
        ({"concurrency_group": ""}, ValueError, "concurrency_group"),
        ({"timeout_s": 0}, ValueError, "timeout_s"),
        ({}, TypeError, "by name"),
    ],
    ids=str,
)
def test_wrong_options_of_methods(
    options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        skate.method(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": 0},
        {"num_cpus": 0.5, "num_gpus": 0.25},
        {"num_cpus": None, "resources": None, "name": None},
        {"memory": 1 << 30},
        {"resources": {"widget": 0.5}},
        {"scheduling_strategy": "SPREAD"},
    ],
    ids=str,
)
def test_right_options(options: dict[str, Any]) -> None:
    skate.remote(**options)(function)
    skate.remote(**options)(Class)


@pytest.mark.parametrize("target", [5, None, "name", staticmethod(function), [function]])
def test_what_cannot_be_remote(target: Any) -> None:
    with pytest.raises(TypeError, match="function or a class"):
        skate.remote(target)


def test_remote_twice() -> None:
    with pytest.raises(TypeError, match="already"):
        skate.remote(skate.remote(function))
    with pytest.raises(TypeError, match="already"):
        skate.remote(skate.remote(Class))


def test_positional_options() -> None:
    with pytest.raises(TypeError, match="by name"):
        skate.remote(function, 2)
    with pytest.raises(TypeError, match="by name"):
        skate.remote(function, num_cpus=2)
