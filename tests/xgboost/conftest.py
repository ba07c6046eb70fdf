"""Data, and sessions to train in."""

from __future__ import annotations

from typing import Any

import pytest
from sessions import at_hand

np = pytest.importorskip("numpy")
pytest.importorskip("xgboost")

#: Few distinct values per column: every actor finds the same bins as XGBoost alone, so models of
#: any number of actors differ by rounding only.
LEVELS = 40


def make_data(rows: int = 2000, columns: int = 6, seed: int = 0) -> tuple[Any, Any]:
    """Return features with few distinct values, and labels 0 and 1 that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, LEVELS, size=(rows, columns)).astype(np.float32)
    noise = rng.normal(0, 4, size=rows)
    y = (x[:, 0] + 0.5 * x[:, 1] - 0.3 * x[:, 2] + noise > 20).astype(np.float32)
    return x, y


@pytest.fixture(scope="session")
def data() -> tuple[Any, Any]:
    """Features and labels."""
    return make_data()


@pytest.fixture
def inline() -> None:
    """A session in this process: for one actor."""
    at_hand(num_cpus=2, engine="inline")


@pytest.fixture
def native() -> None:
    """A session with two CPUs."""
    at_hand(num_cpus=2, engine="native", preload=["xgboost"])
