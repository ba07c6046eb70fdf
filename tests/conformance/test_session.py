"""``init``, ``shutdown``, and what can be asked about a session."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import pytest

import skate
from skate.exceptions import GetTimeoutError, NotSupportedError, SkateError


@skate.remote
def identity(x: Any) -> Any:
    return x


def test_implicit_init(no_session: str) -> None:
    assert not skate.is_initialized()
    assert skate.get(identity.remote(1)) == 1
    assert skate.is_initialized()


@pytest.mark.parametrize(
    "use",
    [
        lambda: skate.get(skate.put(1)),
        lambda: skate.nodes(),
        lambda: skate.get_runtime_context().get_node_id(),
        lambda: skate.cluster_resources(),
    ],
    ids=["put", "nodes", "context", "resources"],
)
def test_everything_starts_a_session(no_session: str, use: Any) -> None:
    use()
    assert skate.is_initialized()


def test_implicit_init_in_several_threads_is_one(no_session: str) -> None:
    nodes: list[str] = []

    def work() -> None:
        nodes.append(skate.get_runtime_context().get_node_id())

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(nodes) == 5
    assert len(set(nodes)) == 1


def test_init_twice(no_session: str) -> None:
    skate.init(num_cpus=1)
    with pytest.raises(RuntimeError, match=r"skate\.shutdown"):
        skate.init()
    node = skate.get_runtime_context().get_node_id()
    context = skate.init(ignore_reinit_error=True)
    assert context.address_info["node_id"] == node


def test_init_after_implicit_init(no_session: str) -> None:
    skate.put(1)
    with pytest.raises(RuntimeError, match="first use"):
        skate.init()


def test_shutdown_and_init_again(no_session: str) -> None:
    for _ in range(3):
        skate.init(num_cpus=1)
        assert skate.get(identity.remote("x"), timeout=30) == "x"
        skate.shutdown()
        assert not skate.is_initialized()
    skate.shutdown()


def test_context_manager(no_session: str) -> None:
    with skate.init(num_cpus=1, namespace="mine") as context:
        assert skate.is_initialized()
        assert context.address_info["namespace"] == "mine"
        assert context["node_id"]
        assert "mine" in repr(context)
    assert not skate.is_initialized()


def test_refs_and_handles_of_an_ended_session(no_session: str) -> None:
    @skate.remote
    class A:
        def f(self) -> int:
            return 1

    skate.init(num_cpus=1)
    ref, actor = skate.put(1), A.remote()
    assert skate.get(actor.f.remote(), timeout=30) == 1
    skate.shutdown()
    skate.init(num_cpus=1)

    # A value that is still in this process may be had; nothing may wait for what is gone.
    def value_or_error(get: Any) -> Any:
        try:
            return get()
        except GetTimeoutError:
            raise
        except SkateError:
            return 1

    assert value_or_error(lambda: skate.get(ref, timeout=10)) == 1
    assert value_or_error(lambda: skate.get([ref], timeout=10)[0]) == 1
    assert value_or_error(lambda: skate.get(identity.remote(ref), timeout=10)) == 1
    assert value_or_error(lambda: skate.get(identity.remote([ref]), timeout=10)[0].hex() and 1) == 1
    with pytest.raises(SkateError) as caught:
        skate.get(actor.f.remote(), timeout=10)
    assert not isinstance(caught.value, GetTimeoutError)
    assert skate.get(identity.remote(2), timeout=30) == 2


def test_resources(no_session: str) -> None:
    skate.init(num_cpus=3, num_gpus=2, resources={"widget": 1.5})
    total = skate.cluster_resources()
    assert (total["CPU"], total["GPU"], total["widget"]) == (3.0, 2.0, 1.5)
    assert total["memory"] > 0
    assert skate.available_resources() == total
    (node,) = skate.nodes()
    assert node["Alive"] is True
    assert node["Resources"]["CPU"] == 3.0
    assert node["NodeID"] == skate.get_runtime_context().get_node_id()
    assert node["NodeManagerHostname"]


def test_default_resources(no_session: str) -> None:
    skate.init()
    assert 1 <= skate.cluster_resources()["CPU"] <= len(os.sched_getaffinity(0))


def test_object_store_memory_and_preload(no_session: str) -> None:
    skate.init(num_cpus=1, object_store_memory=64 * 1024 * 1024, preload=["json", "xml.dom"])
    assert skate.get(identity.remote(b"x" * 1_000_000), timeout=30) == b"x" * 1_000_000


def test_namespace(no_session: str) -> None:
    skate.init(num_cpus=1, namespace="one")
    assert skate.get_runtime_context().namespace == "one"

    @skate.remote
    def where() -> str:
        return skate.get_runtime_context().namespace

    assert skate.get(where.remote(), timeout=30) == "one"


def test_sessions_have_different_namespaces(no_session: str) -> None:
    seen = set()
    for _ in range(2):
        skate.init(num_cpus=1)
        seen.add(skate.get_runtime_context().namespace)
        skate.shutdown()
    assert len(seen) == 2


def test_logging_level(no_session: str) -> None:
    logger = logging.getLogger("skate")
    before = logger.level
    try:
        skate.init(num_cpus=1, logging_level="ERROR")
        assert logger.level == logging.ERROR
        skate.shutdown()
        skate.init(num_cpus=1, logging_level=logging.WARNING, log_to_driver=False)
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


def test_options_of_ray_that_do_no_harm(no_session: str) -> None:
    skate.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        dashboard_host="127.0.0.1",
        configure_logging=True,
        log_to_driver=True,
        runtime_env=None,
    )
    assert skate.is_initialized()


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"num_cpu": 1}, TypeError, "num_cpus"),
        ({"number": 1}, TypeError, "number"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "two"}, TypeError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_gpus": 0.5}, ValueError, "num_gpus"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": ["a"]}, TypeError, "resources"),
        ({"resources": {"a": -1}}, ValueError, "resources"),
        ({"object_store_memory": 10}, ValueError, "object_store_memory"),
        ({"preload": "json"}, TypeError, "preload"),
        ({"preload": ["not a module"]}, TypeError, "preload"),
        ({"namespace": 5}, TypeError, "namespace"),
        ({"logging_level": "LOUD"}, ValueError, "logging_level"),
        ({"log_to_driver": "yes"}, TypeError, "log_to_driver"),
        ({"engine": "nativ"}, ValueError, "native"),
        ({"address": "ray://elsewhere:1"}, NotSupportedError, "Ray clusters"),
        ({"address": 7}, TypeError, "address"),
        ({"address": "skate://elsewhere:1", "num_cpus": 1}, ValueError, "num_cpus"),
        ({"runtime_env": {"conda": "x"}}, NotSupportedError, "conda"),
        ({"ignore_reinit_error": 1}, TypeError, "ignore_reinit_error"),
        ({"spill_uri": 3}, TypeError, "spill_uri"),
        ({"spill_uri": ""}, TypeError, "spill_uri"),
        ({"spill_uri": f"{__file__}/below"}, ValueError, "no directory"),
        ({"spill_uri": f"file://{__file__}"}, ValueError, "no directory"),
        ({"spill_uri": "s4://bucket/folder"}, ValueError, "no s4://"),
        ({"spill_uri": "simplecache::nonsense://x"}, ValueError, "nonsense"),
    ],
    ids=str,
)
def test_wrong_options(
    no_session: str, options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        skate.init(**options)
    assert not skate.is_initialized()


def test_no_shutdown_from_a_task(session: str) -> None:
    @skate.remote
    def end() -> None:
        skate.shutdown()

    with pytest.raises(RuntimeError, match="task"):
        skate.get(end.remote(), timeout=30)
    assert skate.get(identity.remote(1), timeout=30) == 1


def test_no_init_in_a_task(session: str) -> None:
    @skate.remote
    def begin() -> bool:
        with pytest.raises(RuntimeError):
            skate.init()
        skate.init(ignore_reinit_error=True)
        return skate.is_initialized()

    assert skate.get(begin.remote(), timeout=30) is True


# --------------------------------------------------------------------------- runtime context


def test_context_of_the_driver(session: str) -> None:
    context = skate.get_runtime_context()
    assert len(bytes.fromhex(context.get_node_id())) == 8
    assert len(bytes.fromhex(context.get_worker_id())) == 8
    assert context.get_job_id()
    assert context.get_task_id() is None
    assert context.get_task_name() is None
    assert context.get_actor_id() is None
    assert context.get_actor_name() is None
    assert context.namespace == "conformance"
    assert context.get_assigned_resources() == {}
    assert skate.get_gpu_ids() == []
    with pytest.raises(SkateError, match="actor"):
        context.current_actor  # noqa: B018
    with pytest.raises(SkateError, match="actor"):
        context.was_current_actor_reconstructed  # noqa: B018


@pytest.mark.differs("cluster", reason="tasks run on another node than the driver")
def test_context_of_a_task(session: str) -> None:
    @skate.remote
    def look() -> Any:
        context = skate.get_runtime_context()
        return (
            context.get_job_id(),
            context.get_node_id(),
            context.get_task_id(),
            context.get_task_name(),
            context.get_actor_id(),
        )

    driver = skate.get_runtime_context()
    job, node, task, name, actor = skate.get(look.remote(), timeout=30)
    assert job == driver.get_job_id()
    assert node == driver.get_node_id()
    assert len(bytes.fromhex(task)) == 16
    assert name == "look"
    assert actor is None
    named = skate.get(look.options(name="other").remote(), timeout=30)
    assert named[3] == "other"
    assert named[2] != task


def test_context_of_an_actor(session: str) -> None:
    @skate.remote
    class Looker:
        def __init__(self) -> None:
            self.at_birth = skate.get_runtime_context().get_actor_id()

        def look(self) -> Any:
            context = skate.get_runtime_context()
            return (
                context.get_actor_id(),
                context.get_actor_name(),
                context.get_task_name(),
                context.was_current_actor_reconstructed,
                self.at_birth,
                context.current_actor,
            )

    looker = Looker.options(name="looker").remote()
    actor_id, name, task_name, again, at_birth, me = skate.get(looker.look.remote(), timeout=30)
    assert actor_id == at_birth == looker._actor_id.hex()
    assert name == "looker"
    assert task_name == "Looker.look"
    assert again is False
    assert me == looker


def test_version() -> None:
    assert skate.__version__.count(".") == 2
