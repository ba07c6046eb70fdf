"""One suite for every engine.

A difference between engines that has to stay is marked where it is:
``@pytest.mark.differs("inline", reason=...)`` skips that test on that engine, with the reason in
the report.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import skate

ENGINES = ("inline", "native")

#: What the shared session has.  Tests that need something else call ``init`` themselves.
RESOURCES = {"num_cpus": 2, "num_gpus": 1, "resources": {"widget": 3}}

_shared: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "differs(engine, reason): this engine cannot behave like the others here"
    )


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the engine under test, which ``init()`` starts."""
    name: str = request.param
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == name:
            pytest.skip(f"{name}: {mark.kwargs['reason']}")
    monkeypatch.setenv("SKATE_ENGINE", name)
    return name


@pytest.fixture
def session(engine: str) -> str:
    """A running session, shared between tests to save their time."""
    if not (_shared == [engine] and skate.is_initialized()):
        skate.shutdown()
        skate.init(**RESOURCES, namespace="conformance")
        _shared[:] = [engine]
    return engine


@pytest.fixture
def no_session(engine: str) -> Iterator[str]:
    """No session before, and none after; the test makes its own."""
    _shared.clear()
    skate.shutdown()
    yield engine
    skate.shutdown()


@pytest.fixture(scope="session", autouse=True)
def _end() -> Iterator[None]:
    yield
    skate.shutdown()
