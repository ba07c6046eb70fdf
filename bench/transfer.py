"""Objects pulled from another node of this machine, beside a plain socket between two processes.

    python -m bench.transfer [--megabytes 1024] [--rounds 3]

The plain program sends with ``os.sendfile`` from shared memory, receives with ``recv_into`` and
writes to fresh shared memory, in pieces of the same size as Skate's chunks, over the same loopback
interface.  Skate's time begins with a ``get`` in a driver whose node does not have the object, and
ends with the array.  While objects of twice the size come, the time of empty tasks on both nodes is
measured, and compared with that of the same tasks when nothing else happens.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import skate
from skate.cluster_utils import Cluster

MB = 1 << 20
#: As ``skate.runtime.wire.transfers.CHUNK_SIZE``.
CHUNK = MB


def _memory(size: int) -> int:
    fd = os.memfd_create("bench")
    os.ftruncate(fd, size)
    return fd


def plain(size: int) -> float:
    """Return bytes per second of two processes with a socket between them."""
    source = _memory(size)
    piece = os.urandom(CHUNK)
    for offset in range(0, size, CHUNK):
        os.pwrite(source, piece, offset)
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if not child:
            client, _ = server.accept()
            sent = 0
            while sent < size:
                sent += os.sendfile(client.fileno(), source, sent, min(CHUNK, size - sent))
            os._exit(0)
        started = time.perf_counter()
        target = _memory(size)
        with socket.create_connection(server.getsockname()) as sock:
            buffer = memoryview(bytearray(CHUNK))
            received = 0
            while received < size:
                filled = 0
                wanted = min(CHUNK, size - received)
                while filled < wanted:
                    filled += sock.recv_into(buffer[filled:wanted])
                os.pwrite(target, buffer[:filled], received)
                received += filled
        took = time.perf_counter() - started
    os.waitpid(child, 0)
    os.close(source)
    os.close(target)
    return size / took


@skate.remote(num_cpus=0, resources={"there": 1})
def make(size: int, value: int) -> Any:
    return np.full(size, value, np.uint8)


@skate.remote(num_cpus=0)
def nothing() -> None:
    pass


def pull(size: int, value: int) -> float:
    """Return bytes per second of one object."""
    ref = make.remote(size, value)
    skate.wait([ref], fetch_local=False)
    started = time.perf_counter()
    array = skate.get(ref)
    took = time.perf_counter() - started
    assert array.nbytes == size
    assert array[0] == array[-1] == value
    return size / took


def task_times(place: str, go_on: Callable[[int], bool]) -> list[float]:
    """Return the seconds of tasks on a node, one after the other, sorted."""
    task = nothing.options(resources={place: 1})
    skate.get(task.remote())
    times: list[float] = []
    while go_on(len(times)):
        started = time.perf_counter()
        skate.get(task.remote())
        times.append(time.perf_counter() - started)
        time.sleep(0.002)
    return sorted(times)


def times_during_pulls(place: str, size: int) -> list[float]:
    """Return what ``task_times`` does while objects of ``size`` bytes come."""
    puller = threading.Thread(target=lambda: [pull(size, 3) for _ in range(2)])
    puller.start()
    return task_times(place, lambda _count: puller.is_alive())


def describe(times: list[float]) -> str:
    median, late = times[len(times) // 2], times[len(times) * 99 // 100]
    figures = f"median {1e3 * median:.2f}, 99th of 100 {1e3 * late:.2f}, most {1e3 * times[-1]:.1f}"
    return f"{figures} ms ({len(times)} tasks)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    size = asked.megabytes * MB
    store = 6 * size
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "resources": {"here": 9}, "object_store_memory": store},
    )
    cluster.add_node(num_cpus=1, resources={"there": 9}, object_store_memory=store)
    skate.init(cluster.address)
    pull(16 * MB, 1)  # opens the connection
    rates: dict[str, list[float]] = {"plain": [], "Skate": []}
    for number in range(asked.rounds):
        # In turns, and in reverse order every second time.
        for what in ("plain", "Skate") if number % 2 else ("Skate", "plain"):
            rates[what].append(plain(size) if what == "plain" else pull(size, 2))
    for what, found in rates.items():
        each = " ".join(f"{rate / MB:.0f}" for rate in found)
        print(f"{what:8}{statistics.median(found) / MB:>8.0f} MiB/s   ({each})")
    ratio = statistics.median(rates["Skate"]) / statistics.median(rates["plain"])
    print(f"ratio   {ratio:>8.0%}")
    for place in ("here", "there"):
        print(f"tasks {place}, quiet:   ", describe(task_times(place, lambda count: count < 200)))
        print("  during transfers:", describe(times_during_pulls(place, 2 * size)))
    skate.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
