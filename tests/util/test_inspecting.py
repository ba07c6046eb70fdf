"""``inspect_serializability`` and ``list_named_actors``."""

from __future__ import annotations

import io
import threading

import pytest

import skate
from skate.util import get_node_ip_address, inspect_serializability, list_named_actors


def test_what_can_travel():
    out = io.StringIO()
    assert inspect_serializability([1, 2, lambda: 3], name="it", print_file=out) == (True, set())
    assert out.getvalue() == "it can be serialized.\n"


def test_every_part_that_cannot_travel_is_named(capsys):
    lock, other = threading.Lock(), threading.Lock()
    values = {"fine": 1, "lock": lock}

    def uses():
        return values, other

    able, failures = inspect_serializability(uses, name="uses", depth=5)
    assert not able
    assert {id(failure.obj) for failure in failures} == {id(lock), id(other)}
    [ours] = [failure for failure in failures if failure.obj is lock]
    assert ours.parent is values
    printed = capsys.readouterr().out
    assert "closure variable values['lock'] of function" in printed
    assert "cannot pickle '_thread.lock' object" in printed


def test_depth_is_a_bound(capsys):
    lock = threading.Lock()
    nested = [[[[[lock]]]]]
    _, failures = inspect_serializability(nested, name="nested", depth=2)
    [failure] = failures
    assert failure.name == "nested[0][0]"
    assert inspect_serializability(lock)[1].pop().parent is None


@skate.remote
class Named:
    def ping(self):
        return True


@pytest.mark.usefixtures("session")
def test_named_actors():
    assert list_named_actors() == []
    one, two = Named.options(name="one").remote(), Named.options(name="two").remote()
    other = Named.options(name="three", namespace="elsewhere").remote()
    nameless = Named.remote()
    skate.get([actor.ping.remote() for actor in (one, two, other, nameless)])
    assert list_named_actors() == ["one", "two"]
    own = skate.get_runtime_context().namespace
    assert sorted(list_named_actors(all_namespaces=True), key=lambda row: row["name"]) == [
        {"name": "one", "namespace": own},
        {"name": "three", "namespace": "elsewhere"},
        {"name": "two", "namespace": own},
    ]
    skate.kill(one)
    with pytest.raises(skate.exceptions.ActorDiedError):
        skate.get(one.ping.remote())
    assert list_named_actors() == ["two"]


def test_the_address_of_this_node() -> None:
    assert get_node_ip_address() == "127.0.0.1"
