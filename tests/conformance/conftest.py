"""One suite for every engine.

A difference between engines that has to stay is marked where it is:
``@pytest.mark.differs("inline", reason=...)`` skips that test on that engine, with the reason in
the report.

``SKATE_TEST_ENGINES`` names the engines, separated by commas.  Besides those that run by default
there is "cluster": the native engine with the driver on a node that has nothing, so that everything
runs on, and every object comes from, the second node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import skate
from skate.cluster_utils import Cluster

ENGINES = os.environ.get("SKATE_TEST_ENGINES", "inline,native").split(",")

#: What the shared session has.  Tests that need something else call ``init`` themselves.
RESOURCES = {"num_cpus": 2, "num_gpus": 1, "resources": {"widget": 3}}

_shared: list[str] = []
_clusters: list[Cluster] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "differs(engine, reason): this engine cannot behave like the others here"
    )


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine under test.  That it is a module's has the tests of one engine run in a row."""
    name: str = request.param
    return name


@pytest.fixture
def engine(
    engine_name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The name of the engine under test, which ``init()`` starts."""
    name = engine_name
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == name or (mark.args[0], name) == ("native", "cluster"):
            pytest.skip(f"{name}: {mark.kwargs['reason']}")
    monkeypatch.setenv("SKATE_ENGINE", "native" if name == "cluster" else name)
    return name


@pytest.fixture
def session(engine: str) -> str:
    """A running session, shared between tests to save their time."""
    if not (_shared == [engine] and skate.is_initialized()):
        _end_session()
        if engine == "cluster":
            _clusters.append(Cluster(initialize_head=True, head_node_args={"num_cpus": 0}))
            _clusters[0].add_node(**RESOURCES)
            skate.init(_clusters[0].address, namespace="conformance")
        else:
            skate.init(**RESOURCES, namespace="conformance")
        _shared[:] = [engine]
    return engine


def _end_session() -> None:
    skate.shutdown()
    while _clusters:
        _clusters.pop().shutdown()


@pytest.fixture
def no_session(engine: str) -> Iterator[str]:
    """No session before, and none after; the test makes its own."""
    if engine == "cluster":
        pytest.skip("cluster: it starts sessions of its own, as on native")
    _shared.clear()
    _end_session()
    yield engine
    skate.shutdown()


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    yield
    _end_session()
