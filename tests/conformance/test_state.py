"""The state API: what every engine can tell."""

from __future__ import annotations

import pytest

import skate
from skate import state
from skate.exceptions import NotSupportedError

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
class Counter:
    def add(self) -> int:
        return 1


@pytest.mark.differs("cluster", reason="it has two nodes")
def test_nodes_and_actors() -> None:
    counter = Counter.options(name="state-counter").remote()
    assert skate.get(counter.add.remote()) == 1
    [actor] = state.list_actors(filters=[("name", "=", "state-counter"), ("state", "=", "ALIVE")])
    assert actor.class_name == "Counter"
    assert actor.ray_namespace == "conformance"
    assert state.get_actor(actor.actor_id) == actor
    assert state.summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"]["ALIVE"] >= 1
    [node] = state.list_nodes()
    assert node.state == "ALIVE"
    assert node.resources_total["CPU"] == 2.0
    skate.kill(counter)


@pytest.mark.differs("inline", reason="every task has ended when it is submitted, and is forgotten")
def test_tasks() -> None:
    @skate.remote
    def named() -> None:
        pass

    skate.get(named.options(name="a-named-task").remote())
    [task] = state.list_tasks(filters=[("name", "=", "a-named-task")])
    assert task.state == "FINISHED"


@pytest.mark.differs("native", reason="it has processes to ask: see the test before")
def test_what_cannot_be_told_is_said() -> None:
    with pytest.raises(NotSupportedError, match="inline engine keeps no tasks"):
        state.list_tasks()
    with pytest.raises(NotSupportedError, match="inline engine keeps no objects"):
        state.list_objects()
