"""Spilling and reading back, beside ``dd`` with the same block size on the same disk.

    python -m bench.spill [--megabytes 512] [--rounds 5] [--directory /where/the/disk/is]

Both write to the disk (what is in the page cache at the end is flushed, and that is part of the
time), and both read from it, through the page cache, which has been told to forget the files before
and is asked whether it has.  (What lies below a virtual machine's disk may remember, for both.)
What Skate does begins with arrays in the driver and ends with arrays in the driver: objects are put
into a store that is much smaller than all of them, then read in order.  Disks are moody, so the two
take turns, in another order each round, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import skate

MB = 1 << 20


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def files(directory: Path) -> Iterator[int]:
    """Open each file below a directory for as long as it is looked at."""
    for path in directory.rglob("*"):
        if path.is_file():
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # what was freed is deleted in the background
            try:
                yield fd
            finally:
                os.close(fd)


def flush(directory: Path) -> None:
    """Write to disk what is in the page cache of these files."""
    for fd in files(directory):
        os.fdatasync(fd)


def forget(directory: Path) -> None:
    """Have the page cache forget these files, which have been flushed.

    Raises:
        RuntimeError: it has not: reading would measure memory.
    """
    looked = cached = 0
    for fd in files(directory):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset in range(0, os.fstat(fd).st_size, 4 * MB):
            looked += 1
            try:
                cached += os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
    if cached > looked // 20:
        raise RuntimeError(f"the page cache still has {cached} of {looked} pages")


class Dd:
    """Writes and reads a file of its own."""

    def __init__(self, directory: Path, megabytes: int, block: int) -> None:
        self._directory = directory
        directory.mkdir()
        self._file = directory / "file"
        self._common = ["dd", f"bs={block}", "status=none"]
        self._count = megabytes * MB // block

    def write(self) -> float:
        to = [f"of={self._file}", f"count={self._count}", "conv=fdatasync"]
        return timed(lambda: subprocess.run([*self._common, "if=/dev/zero", *to], check=True))

    def read(self) -> float:
        forget(self._directory)
        command = [*self._common, f"if={self._file}", "of=/dev/null"]
        took = timed(lambda: subprocess.run(command, check=True))
        self._file.unlink()
        return took


class Spill:
    """Puts more than there is room for, and gets it again."""

    def __init__(self, directory: Path, megabytes: int, object_bytes: int, store: int) -> None:
        import numpy as np

        self._directory = directory
        directory.mkdir()
        self._array = np.arange(object_bytes, dtype=np.uint8)
        self._count = megabytes * MB // object_bytes
        self._fill = store // object_bytes + 1
        self._refs: list[Any] = []
        #: What else is in the store, or was.
        self._fillers: list[Any] = []
        skate.init(num_cpus=1, object_store_memory=store, spill_uri=str(directory))

    def _put(self, count: int) -> list[Any]:
        return [skate.put(self._array) for _ in range(count)]

    def _get(self, refs: list[Any]) -> None:
        # A few at a time: all of them do not fit.
        for start in range(0, len(refs), 4):
            found = skate.get(refs[start : start + 4])
            assert all(one[-1] == self._array[-1] for one in found)
            del found

    def write(self) -> float:
        # What fills the store first, so that everything that is measured makes something spill.
        self._fillers = self._put(self._fill)
        flush(self._directory)

        def put() -> None:
            self._refs = self._put(self._count)
            flush(self._directory)

        return timed(put)

    def read(self) -> float:
        # Nothing of what is read is in memory any more, and what is there instead is on disk, too:
        # nothing has to be written to make room.
        self._get(self._fillers)
        flush(self._directory)
        forget(self._directory)
        took = timed(lambda: self._get(self._refs))
        self._refs.clear()
        self._fillers.clear()
        # Deleting takes the disk's time, too.  Dd's file is deleted outside of what is measured.
        deadline = time.monotonic() + 60
        while any(files(self._directory)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--object-megabytes", type=int, default=16)
    parser.add_argument("--store-megabytes", type=int, default=256)
    parser.add_argument("--block", type=int, default=MB)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    asked = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=asked.directory) as name:
        object_bytes, store = asked.object_megabytes * MB, asked.store_megabytes * MB
        plain = Dd(Path(name, "dd"), asked.megabytes, asked.block)
        ours = Spill(Path(name, "spill"), asked.megabytes, object_bytes, store)
        measures: list[tuple[str, Dd | Spill]] = [("dd", plain), ("Skate", ours)]
        # The first round does not count: files, memory and code are new in it.
        for number in range(asked.rounds + 1):
            for row in ("write", "read"):
                for who, measure in measures[:: 1 if number % 2 else -1]:
                    took = measure.write() if row == "write" else measure.read()
                    if number:
                        times.setdefault((row, who), []).append(took)
        skate.shutdown()
    print(f"{'':8}{'dd':>10}{'Skate':>10}   ratio   rounds of dd, and of Skate")
    for row in ("write", "read"):
        rates = [
            [asked.megabytes * MB / took / 1e6 for took in times[row, who]]
            for who in ("dd", "Skate")
        ]
        medians = [statistics.median(found) for found in rates]
        each = "   ".join(" ".join(f"{rate:.0f}" for rate in found) for found in rates)
        both = "".join(f"{median:>10.0f}" for median in medians)
        print(f"{row:8}{both}{medians[1] / medians[0]:>8.0%}   {each}")
    print("MB/s, medians, with blocks of", asked.block, "bytes")


if __name__ == "__main__":
    main()
