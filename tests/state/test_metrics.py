"""Metrics: what Prometheus reads of a session, and what user code counts."""

from __future__ import annotations

import http.client
import os
import pickle
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sessions import running

import skate
from skate.util.metrics import Counter, Gauge, Histogram

pytestmark = pytest.mark.timeout(180)

Until = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def port() -> Iterator[int]:
    """A session that serves metrics, and where."""
    with running(engine="native", num_cpus=2, metrics_port=0):
        yield skate.nodes()[0]["MetricsExportPort"]


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = answer.read().decode()
    return text


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return values by name and tags, as Prometheus would have them."""
    found = {}
    for family in text_string_to_metric_families(read(port)):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a series occurs twice"
            found[key] = sample.value
    return found


def value(port: int, name: str, **tags: str) -> float | None:
    return scrape(port).get((name, frozenset(tags.items())))


@skate.remote
def double(x: int) -> int:
    Counter("test_doubled", "Numbers doubled", tag_keys=("parity",)).inc(
        tags={"parity": "even" if x % 2 == 0 else "odd"}
    )
    return 2 * x


@skate.remote
def refuse() -> None:
    raise ValueError("no good")


@skate.remote
class Meter:
    def __init__(self) -> None:
        self.level = Gauge("test_level", tag_keys=("room",)).set_default_tags({"room": "hall"})
        self.times = Histogram("test_seconds", "Waiting", boundaries=[0.1, 1, 10])

    def measure(self, level: float, seconds: float) -> int:
        self.level.set(level)
        self.times.observe(seconds)
        return os.getpid()

    def identity(self) -> str:
        return skate.get_runtime_context().get_worker_id()


def test_the_session_itself(port: int, until: Until) -> None:
    skate.get([double.remote(i) for i in range(10)])
    with pytest.raises(ValueError, match="no good"):
        skate.get(refuse.remote())
    meter = Meter.options(num_cpus=1).remote()
    pid = skate.get(meter.measure.remote(1, 1))
    kept = skate.put(np.zeros(1 << 20))
    never = double.options(num_cpus=50).remote(1)
    until(lambda: value(port, "skate_tasks_ended_total", state="FINISHED") == 12)
    found = scrape(port)

    def of(name: str, **tags: str) -> float | None:
        return found.get((name, frozenset(tags.items())))

    assert of("skate_tasks_ended_total", state="FAILED") == 1
    assert of("skate_tasks", state="PENDING_NODE_ASSIGNMENT") == 1
    assert of("skate_tasks", state="RUNNING") == 0
    assert of("skate_actors", state="ALIVE") == 1
    assert of("skate_workers", state="actor") == 1
    assert of("skate_resources_total", resource="CPU") == 2
    assert of("skate_resources_used", resource="CPU") >= 1  # type: ignore[operator]
    assert of("skate_object_store_used_bytes") >= 8 << 20  # type: ignore[operator]
    assert of("skate_object_store_limit_bytes") > of("skate_object_store_used_bytes")  # type: ignore[operator]
    assert of("skate_leases_granted_total") >= 2  # type: ignore[operator]
    assert of("skate_demands") == 1
    assert of("skate_processes_silent") == 0
    memory = {
        dict(tags)["kind"]: amount
        for (name, tags), amount in found.items()
        if name == "skate_process_resident_memory_bytes"
    }
    assert set(memory) == {"driver", "node", "worker"}
    assert min(memory.values()) > 1 << 20
    cpu = {dict(tags)["pid"] for name, tags in found if name == "skate_process_cpu_seconds_total"}
    assert {str(pid), str(os.getpid())} <= cpu
    del kept, never


def test_counters_of_all_processes_are_added_up(port: int) -> None:
    skate.get([double.remote(i) for i in range(9)])
    # The driver's own, beside those of the workers.
    Counter("test_doubled", tag_keys=("parity",)).inc(0.5, tags={"parity": "odd"})
    assert value(port, "test_doubled_total", parity="even") == 5
    assert value(port, "test_doubled_total", parity="odd") == 4.5


def test_gauges_and_histograms(port: int) -> None:
    meters = [Meter.remote() for _ in range(2)]
    for meter, level in zip(meters, (3, 4.5), strict=True):
        for seconds in (0.05, 0.1, 5, 50):
            skate.get(meter.measure.remote(level, seconds))
    found = scrape(port)
    workers = [skate.get(meter.identity.remote()) for meter in meters]
    for worker_id, level in zip(workers, (3, 4.5), strict=True):
        tags = frozenset({("room", "hall"), ("worker_id", worker_id)})
        assert found["test_level", tags] == level
    buckets = {
        dict(tags)["le"]: amount
        for (name, tags), amount in found.items()
        if name == "test_seconds_bucket"
    }
    assert buckets == {"0.1": 4, "1": 4, "10": 6, "+Inf": 8}
    assert found["test_seconds_count", frozenset()] == 8
    assert found["test_seconds_sum", frozenset()] == pytest.approx(110.3)


def test_what_ended_processes_have_counted_still_counts(port: int, until: Until) -> None:
    meter = Meter.remote()
    pid = skate.get(meter.measure.remote(1, 1))
    before = value(port, "test_seconds_count")
    assert before is not None
    del meter
    until(lambda: not psutil.pid_exists(pid))
    assert value(port, "test_seconds_count") == before
    # Its gauge is gone with it.
    assert not [name for name, _ in scrape(port) if name == "test_level"]
    # A killed one has told everything up to the last scrape.
    meter = Meter.remote()
    pid = skate.get(meter.measure.remote(1, 1))
    assert value(port, "test_seconds_count") == before + 1
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid))
    assert value(port, "test_seconds_count") == before + 1


def test_a_hung_process_costs_its_own_numbers(port: int, until: Until) -> None:
    meter = Meter.remote()
    pid = skate.get(meter.measure.remote(1, 1))
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        assert value(port, "skate_processes_silent") == 1
    finally:
        os.kill(pid, signal.SIGCONT)


def test_requests_that_make_no_sense(port: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/metrics", body=b"x")
    assert connection.getresponse().status == 405
    connection.close()
    connection.request("HEAD", "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.close()
    for request in (b"\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000, b"\xff\xfe\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(request)
            assert sock.recv(100).startswith(b"HTTP/1.1 4")
    # Some who say nothing keep nobody out.
    silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(10)]
    assert "skate_tasks" in read(port)
    for sock in silent:
        sock.close()


def test_nothing_listens_unless_asked() -> None:
    skate.shutdown()
    skate.init(engine="native", num_cpus=1)
    try:
        [node] = skate.nodes()
        assert node["MetricsExportPort"] == 0
        connections = psutil.Process(node["daemon_pid"]).net_connections(kind="inet")
        assert connections == []
    finally:
        skate.shutdown()


def test_it_listens_on_this_machine_only(port: int) -> None:
    [node] = skate.nodes()
    [listening] = psutil.Process(node["daemon_pid"]).net_connections(kind="inet")
    assert (listening.laddr.ip, listening.laddr.port) == ("127.0.0.1", port)


def test_a_port_in_use_is_said_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    skate.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        skate.init(engine="native", num_cpus=1, metrics_port=number)
        try:
            assert skate.get(double.remote(1)) == 2
            until(lambda: "metrics are not served: cannot listen on 127.0.0.1" in caplog.text)
        finally:
            skate.shutdown()


@pytest.mark.parametrize("wrong", [-1, 70000, "8080", True, 1.5])
def test_wrong_ports(wrong: Any) -> None:
    skate.shutdown()
    with pytest.raises(ValueError, match="metrics_port"):
        skate.init(metrics_port=wrong)


def test_wrong_uses() -> None:
    for name in ("", "1a", "a-b", "a b", None):
        with pytest.raises(ValueError, match="no name for a metric"):
            Counter(name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="those of Skate itself"):
        Counter("skate_tasks")
    with pytest.raises(TypeError, match="tag_keys"):
        Counter("test_wrong", tag_keys="abc")
    with pytest.raises(ValueError, match="no name for a tag"):
        Counter("test_wrong", tag_keys=("le",))
    counter = Counter("test_wrong", tag_keys=("a",))
    with pytest.raises(ValueError, match="only be increased"):
        counter.inc(0, tags={"a": "x"})
    with pytest.raises(ValueError, match="only be increased"):
        counter.inc(float("nan"), tags={"a": "x"})
    with pytest.raises(ValueError, match="lacks values"):
        counter.inc()
    with pytest.raises(ValueError, match="no tag 'b'"):
        counter.inc(tags={"b": "x"})
    with pytest.raises(TypeError, match="must be a string"):
        counter.inc(tags={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="takes numbers"):
        counter.inc("1", tags={"a": "x"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is a counter already"):
        Gauge("test_wrong")
    for bounds in ([], [0, 1], [2, 1], [1, 1], None):
        with pytest.raises(ValueError, match="ascending"):
            Histogram("test_wrong_bounds", boundaries=bounds)


def test_metrics_travel() -> None:
    counter = Counter("test_travels", "About", tag_keys=("a",)).set_default_tags({"a": "x"})
    assert pickle.loads(pickle.dumps(counter)).info == counter.info
    histogram = Histogram("test_travels_too", "About", boundaries=[1, 2])
    copy = pickle.loads(pickle.dumps(histogram))
    assert copy.info == histogram.info
    assert copy.info["boundaries"] == [1.0, 2.0]


def test_without_a_session_they_count_all_the_same() -> None:
    skate.shutdown()
    Counter("test_early").inc(2)
    skate.init(engine="native", num_cpus=1, metrics_port=0)
    try:
        assert value(skate.nodes()[0]["MetricsExportPort"], "test_early_total") == 2
    finally:
        skate.shutdown()
