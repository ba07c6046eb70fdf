"""A hundredth of the soak: what a session has used is given back."""

from __future__ import annotations

import pytest
from rich.console import Console

import skate
from bench import soak


@pytest.mark.timeout(240)
def test_nothing_grows() -> None:
    skate.shutdown()
    skate.init(engine="native", num_cpus=2, object_store_memory=soak.STORE_BYTES)
    try:
        assert soak.soak(0.01, Console(width=100)) == []
    finally:
        skate.shutdown()


def test_what_grows_is_named() -> None:
    before = soak.Snapshot(4, 30.0, 15.0, 60.0, 13, 30, 100.0)
    after = soak.Snapshot(5, 30.5, 80.0, 60.0, 99, 31, 100.0)
    found = soak.leaks(before, after)
    assert [text.split(":")[0] for text in found] == [
        "processes beside the driver",
        "node daemon and zygote, private memory (MB)",
        "driver, descriptors",
    ]
