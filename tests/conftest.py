"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

import skate
from skate.api.session_config import available_cpus

# A busy machine is no failure: pytest's timeout ends what hangs.
settings.register_profile("skate", deadline=None, print_blob=True)
settings.load_profile("skate")

#: At most so many files at a time.  With more of them the longest file decides how long it takes,
#: and every one has processes and shared memory of its own.
MOST_FILES_AT_ONCE = 8
#: Files that take 20 s and more, the longest first.  They start first, so that nobody runs the last
#: one while the others have nothing left to do.  Not that of the memory guard, which needs memory
#: that the soak takes.
LONG_FILES = (
    "tests/runtime/test_spilling.py",
    "tests/runtime/test_hangs.py",
    "tests/bench/test_soak.py",
    "tests/runtime/test_environment_packages.py",
    "tests/xgboost/test_tune.py",
    "tests/cluster/test_node_death.py",
    "tests/runtime/test_regressions.py",
    "tests/runtime/test_chaos.py",
    "tests/conformance/test_control.py",
    "tests/xgboost/test_failures.py",
    "tests/cluster/test_chaos.py",
    "tests/state/test_cli.py",
    "tests/examples/test_guide.py",
    "tests/xgboost/test_demo_survives.py",
    "tests/xgboost/test_training.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many files ``make test`` runs at a time: one for each CPU, but two at least.

    Half of the time a test waits for its processes, so that two share one CPU well.
    """
    return min(max(available_cpus(), 2), MOST_FILES_AT_ONCE)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first if several run at a time; alone, the order of folders is easier read."""
    if hasattr(config, "workerinput"):
        turn = {file: nth for nth, file in enumerate(LONG_FILES)}
        items.sort(key=lambda item: turn.get(item.location[0], len(turn)))


@pytest.fixture(scope="module", autouse=True)
def no_session_is_left() -> Iterator[None]:
    """End what the tests of a module have left running: each module starts without a session."""
    yield
    skate.shutdown()
