"""Decorated functions and classes, without any engine."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest

import skate
from skate.api import actor_spec, session
from skate.api.actor import ActorClass, ActorHandle
from skate.api.remote_function import RemoteFunction
from skate.engine.base import ActorOptions, CallOptions, Code, TaskOptions
from skate.refs import ObjectRef


class Cell:
    def __init__(self, number: int) -> None:
        self.object_id = number.to_bytes(16, "big")
        self.owner_address = "somewhere"


class RecordingEngine:
    """Remembers what it was asked for and answers with refs to nothing."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def submit_task(
        self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        self.asked.append((code.name, args, kwargs, options))
        return [ObjectRef(Cell(i)) for i in range(options.num_returns)]

    def create_actor(
        self,
        code: Code,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        handle: bytes,
    ) -> Cell:
        self.asked.append((code.name, args, kwargs, options))
        return Cell(99)

    def submit_call(
        self,
        actor: Cell,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> list[ObjectRef[Any]]:
        self.asked.append((method, args, kwargs, options))
        return [ObjectRef(Cell(i)) for i in range(options.num_returns)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> RecordingEngine:
    recording = RecordingEngine()
    monkeypatch.setattr(session, "_engine", recording)
    return recording


def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


class Counter:
    """Counts."""

    START = 5

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        return self.value + n

    @skate.method(num_returns=2, max_task_retries=4)
    def pair(self) -> Any:
        return 1, 2


def test_functions_look_like_themselves() -> None:
    remote = skate.remote(add)
    assert isinstance(remote, RemoteFunction)
    assert remote.__name__ == "add"
    assert remote.__doc__ == "Add two numbers."
    assert remote.__module__ == __name__
    assert "add" in repr(remote)
    assert remote._function is add


def test_classes_look_like_themselves() -> None:
    remote = skate.remote(Counter)
    assert isinstance(remote, ActorClass)
    assert remote.__name__ == "Counter"
    assert remote.__doc__ == "Counts."
    assert "Counter" in repr(remote)
    assert remote.START == 5
    with pytest.raises(AttributeError, match="nothing"):
        remote.nothing  # noqa: B018


def test_decorator_in_all_its_forms() -> None:
    for remote in (
        skate.remote(add),
        skate.remote()(add),
        skate.remote(num_cpus=2)(add),
        skate.remote(add).options(num_cpus=2),
    ):
        assert isinstance(remote, RemoteFunction)


def test_what_reaches_the_engine(engine: RecordingEngine) -> None:
    remote = skate.remote(num_cpus=2, num_gpus=0.5, resources={"x": 1}, memory=100, max_retries=0)(
        add
    )
    assert isinstance(remote.remote(1, y=2), ObjectRef)
    ((name, args, kwargs, options),) = engine.asked
    assert (name, args, kwargs) == ("add", (1,), {"y": 2})
    assert options.resources == {"CPU": 2.0, "GPU": 0.5, "memory": 100.0, "x": 1.0}
    assert options.max_retries == 0


def test_defaults_that_reach_the_engine(engine: RecordingEngine) -> None:
    skate.remote(add).remote(1)
    handle = skate.remote(Counter).remote()
    handle.add.remote()
    task, actor, call = (entry[-1] for entry in engine.asked)
    assert task == TaskOptions()
    assert task.resources == {"CPU": 1.0}
    assert actor == ActorOptions()
    assert actor.resources == {}
    assert call == CallOptions()


def test_options_are_merged_over_those_of_the_decorator(engine: RecordingEngine) -> None:
    remote = skate.remote(num_cpus=2, max_retries=7, name="first")(add)
    remote.options(num_cpus=0, name="second").remote(1)
    remote.remote(1)
    (changed, original) = (entry[-1] for entry in engine.asked)
    assert (changed.resources, changed.max_retries, changed.name) == ({}, 7, "second")
    assert (original.resources, original.name) == ({"CPU": 2.0}, "first")


def test_options_of_actors(engine: RecordingEngine) -> None:
    skate.remote(num_gpus=1)(Counter).options(
        name="n",
        namespace="s",
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=3,
        max_concurrency=4,
        num_cpus=1,
    ).remote(1)
    assert engine.asked[0][-1] == ActorOptions(
        {"CPU": 1.0, "GPU": 1.0}, "n", "s", -1, 3, 4, out_of_order=True, detached=True
    )


def test_options_of_methods(engine: RecordingEngine) -> None:
    handle = skate.remote(Counter).remote()
    assert len(handle.pair.remote()) == 2
    assert handle.pair.options(num_returns=0).remote() is None
    assert isinstance(handle.pair.options(num_returns=1).remote(), ObjectRef)
    declared, zero, one = (entry[-1] for entry in engine.asked[1:])
    assert (declared.num_returns, declared.max_task_retries) == (2, 4)
    assert (zero.num_returns, zero.max_task_retries) == (0, 4)
    assert (one.num_returns, one.max_task_retries) == (1, 4)


def test_shapes_of_results(engine: RecordingEngine) -> None:
    remote = skate.remote(add)
    assert isinstance(remote.remote(1), ObjectRef)
    assert len(remote.options(num_returns=3).remote(1)) == 3
    assert remote.options(num_returns=0).remote(1) is None


def test_wrong_calls_reach_no_engine(engine: RecordingEngine) -> None:
    with pytest.raises(TypeError):
        skate.remote(add).remote()
    with pytest.raises(TypeError):
        skate.remote(Counter).remote(1, 2, 3)
    assert engine.asked == []


def test_remote_functions_pickle_by_what_they_call(engine: RecordingEngine) -> None:
    remote = skate.remote(num_cpus=2)(add)
    again = pickle.loads(cloudpickle.dumps(remote))
    again.remote(5)
    assert engine.asked[0][1] == (5,)
    assert engine.asked[0][-1].resources == {"CPU": 2.0}
    assert len(cloudpickle.dumps(remote)) < len(cloudpickle.dumps(add)) + 300


def test_recursive_function_pickles_from_both_ends() -> None:
    namespace: dict[str, Any] = {"skate": skate, "__name__": "__main__"}
    exec("@skate.remote\ndef f(n):\n    return f if n else None\n", namespace)
    remote = namespace["f"]
    again = pickle.loads(cloudpickle.dumps(remote))
    assert isinstance(again._function(1), RemoteFunction)
    function = pickle.loads(cloudpickle.dumps(remote._function))
    assert isinstance(function(1), RemoteFunction)


def test_class_that_names_itself_pickles() -> None:
    namespace: dict[str, Any] = {"skate": skate, "__name__": "__main__"}
    exec(
        "@skate.remote\nclass C:\n    def me(self):\n        return C\n",
        namespace,
    )
    again = pickle.loads(cloudpickle.dumps(namespace["C"]))
    assert isinstance(again._class().me(), ActorClass)


def test_handles_pickle_small(engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from skate.refs import hooks

    handle = skate.remote(Counter).remote()
    pinned: list[Any] = []
    monkeypatch.setattr(hooks, "pin", pinned.append)
    monkeypatch.setattr(hooks, "resolve", lambda object_id, owner_address: handle._cell)
    data = pickle.dumps(handle)
    assert len(data) < 700
    assert pinned == [handle._cell]
    again = pickle.loads(data)
    assert again == handle
    assert again._spec is pickle.loads(data)._spec
    again.pair.remote()
    assert engine.asked[-1][-1].num_returns == 2


def test_what_counts_as_a_method() -> None:
    class Base:
        def inherited(self) -> None: ...

        def hidden(self) -> None: ...

    class Actor(Base):
        constant = 1
        hidden = None  # type: ignore[assignment]

        def own(self) -> None: ...

        def _private(self) -> None: ...

        def __len__(self) -> int:
            return 0

        def __deepcopy__(self, memo: object) -> Actor:
            return self

        @property
        def shown(self) -> int:
            return 1

        @staticmethod
        def static(x: int) -> None: ...

        @classmethod
        def klass(cls, x: int) -> None: ...

    spec = actor_spec.ActorSpec.of(Actor, ActorOptions())
    names = set(spec.methods)
    assert {"inherited", "own", "_private", "__len__", "static", "klass", "__ray_ready__"} <= names
    assert not names & {"hidden", "constant", "shown", "__deepcopy__", "__class__"}
    for name in ("static", "klass"):
        spec.methods[name].signature.check((1,), {})
        with pytest.raises(TypeError):
            spec.methods[name].signature.check((), {})


def test_actor_of_a_builtin_class(engine: RecordingEngine) -> None:
    class Box(dict):  # type: ignore[type-arg]
        pass

    box: ActorHandle = skate.remote(Box).remote(a=1)
    box.get.remote("a")
    box.__getitem__.remote("a")
    assert [entry[0] for entry in engine.asked[1:]] == ["get", "__getitem__"]


def test_decorating_starts_nothing() -> None:
    program = (
        "import skate, threading\n"
        "@skate.remote\ndef f(): pass\n"
        "@skate.remote(num_cpus=2)\nclass C:\n    def m(self): pass\n"
        "assert not skate.is_initialized()\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30, env=dict(os.environ))
