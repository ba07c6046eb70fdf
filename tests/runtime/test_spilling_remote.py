"""Spilling to an S3 server: a real one, in a process of its own."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from s3_server import Server, serving

import skate
from skate import exceptions

pytest.importorskip("s3fs")
pytest.importorskip("moto")

MB = 1 << 20
BUCKET = "spilled"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(tmp_path, BUCKET, monkeypatch) as server:
        yield server


@pytest.mark.timeout(240)
def test_a_bucket(cluster: Callable[..., None], server: Server) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=f"s3://{BUCKET}/some/folder")

    @skate.remote
    def total(array: np.ndarray) -> int:
        return int(array.sum())

    sizes = [(300_000, 20 * MB, 5 * MB)[i % 3] for i in range(24)]
    refs = [skate.put(np.full(size, i, dtype=np.uint8)) for i, size in enumerate(sizes)]
    assert server.keys() > 0
    for i, (ref, size) in enumerate(zip(refs, sizes, strict=True)):
        assert skate.get(total.remote(ref), timeout=100) == i * size
    del ref
    refs.clear()
    gc.collect()
    deadline = time.monotonic() + 60
    while server.keys():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    assert server.keys() > 0
    skate.shutdown()
    assert server.keys() == 0
    del kept


@pytest.mark.timeout(240)
def test_a_bucket_that_cannot_be_reached(cluster: Callable[..., None], server: Server) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=f"s3://{BUCKET}")
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    server.stop()
    # It cannot be read; or already the room for it cannot be made, because that means writing.
    errors = (exceptions.ObjectLostError, exceptions.ObjectStoreFullError)
    with pytest.raises(errors, match=refs[0]._cell.object_id.hex()) as caught:
        skate.get(refs[0], timeout=100)
    assert f"s3://{BUCKET}" in str(caught.value)
    with pytest.raises(exceptions.ObjectStoreFullError, match="cannot write s3:"):
        skate.put(np.zeros(30 * MB, dtype=np.uint8))
    # What is in memory is not lost.
    assert skate.get(refs[-1])[0] == 11
