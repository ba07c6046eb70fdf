"""Tests run on the engine that they name, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sessions import at_hand

import skate


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    skate.shutdown()


def session_id() -> str:
    return skate.get_runtime_context().get_worker_id()


def test_a_session_serves_only_tests_that_ask_for_its_like() -> None:
    at_hand(num_cpus=2, engine="inline")
    first = session_id()
    at_hand(num_cpus=2, engine="inline")
    assert session_id() == first
    at_hand(num_cpus=3, engine="inline")
    assert skate.cluster_resources()["CPU"] == 3
    at_hand(num_cpus=2, engine="inline")
    assert skate.cluster_resources()["CPU"] == 2
    assert session_id() != first


def test_what_a_test_has_put_in_its_place_serves_no_other() -> None:
    at_hand(num_cpus=2, engine="inline")
    skate.shutdown()
    skate.init(num_cpus=1, engine="inline")
    at_hand(num_cpus=2, engine="inline")
    assert skate.cluster_resources()["CPU"] == 2
