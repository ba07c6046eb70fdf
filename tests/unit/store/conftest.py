"""A daemon and clients for the tests of the store."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_client import LIMIT, MIB, NODE, MakeClient
from store_daemon import StoreDaemon

from skate.runtime.store import client as client_module
from skate.runtime.store.client import StoreClient


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StoreDaemon]:
    gc.collect()  # what earlier tests left
    before = len(os.listdir("/proc/self/fd"))
    daemon = StoreDaemon(tmp_path / "store.sock", NODE, LIMIT)
    yield daemon
    daemon.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def connect(daemon: StoreDaemon) -> Iterator[MakeClient]:
    clients: list[StoreClient] = []

    def make(process_id: bytes) -> StoreClient:
        clients.append(StoreClient(daemon.address, NODE, process_id))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs of 1 and 2 MiB, so that tests with little data see many segments."""
    monkeypatch.setattr(client_module, "SLAB_BYTES", 2 * MIB)
    monkeypatch.setattr(client_module, "KEEP_FREE", 4 * MIB)
