"""Objects on disk: where lists, the timeline and metrics see them."""

from __future__ import annotations

import urllib.request

import numpy as np
import pytest

import skate
from skate import state


def test_spilled_objects_are_seen() -> None:
    skate.shutdown()
    skate.init(engine="native", num_cpus=1, object_store_memory=64 << 20, metrics_port=0)
    try:
        refs = [skate.put(np.zeros(1 << 20)) for _ in range(16)]
        for ref in refs:
            assert skate.get(ref).nbytes == 8 << 20
        locations = {row.object_id: row.location for row in state.list_objects() if row.owned}
        assert set(locations) == {ref.hex() for ref in refs}
        assert set(locations.values()) == {"MEMORY", "SPILLED"}
        status = state.session_status()
        assert 64 << 20 <= status.store_spilled <= 17 * (8 << 20)
        assert status.store_used <= status.store_limit
        events = skate.timeline()
        assert events is not None
        kinds = {event.get("cat") for event in events}
        assert {"spill", "restore"} <= kinds
        [daemon] = {event["pid"] for event in events if event.get("cat") == "spill"}
        assert daemon == state.list_nodes()[0].daemon_pid
        port = skate.nodes()[0]["MetricsExportPort"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert float(values["skate_object_store_spilled_bytes"]) == pytest.approx(
            status.store_spilled, rel=0.2
        )
        assert float(values["skate_object_store_restore_bytes_total"]) >= 8 << 20
        del refs
    finally:
        skate.shutdown()
