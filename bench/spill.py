"""Spilling and reading back, beside ``dd`` with the same block size on the same disk.

    python -m bench.spill [--megabytes 768] [--object-megabytes 16] [--directory /where/the/disk/is]

Both write to the disk (what is in the page cache at the end is flushed, and that is part of the
time), and both read from it (the page cache has been told to forget the files before).  What Skate
does begins with arrays in the driver and ends with arrays in the driver: objects are put into a
store that is much smaller than all of them, then read in order.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MB = 1 << 20


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def flush(directory: Path) -> None:
    """Write to disk what is in the page cache of these files."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fdatasync(fd)
            os.close(fd)


def forget(directory: Path) -> None:
    """Have the page cache forget these files, which have been flushed."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def dd(directory: Path, megabytes: int, block: int) -> tuple[float, float]:
    """Return the rates of writing and reading, in bytes per second."""
    path = directory / "dd"
    common = ["dd", f"bs={block}", "status=none"]
    count = megabytes * MB // block
    write = [*common, "if=/dev/zero", f"of={path}", f"count={count}", "conv=fdatasync"]
    wrote = timed(lambda: subprocess.run(write, check=True))
    forget(directory)
    read = [*common, f"if={path}", "of=/dev/null"]
    took = timed(lambda: subprocess.run(read, check=True))
    path.unlink()
    return megabytes * MB / wrote, megabytes * MB / took


def spill(directory: Path, megabytes: int, object_bytes: int, store: int) -> tuple[float, float]:
    """Return the rates of ``put`` and ``get`` of more than there is room for."""
    import numpy as np

    import skate

    skate.init(num_cpus=1, object_store_memory=store, spill_uri=str(directory))
    count = megabytes * MB // object_bytes
    array = np.arange(object_bytes, dtype=np.uint8)
    # What fills the store first, so that everything that is measured goes to disk.
    filler = [skate.put(array) for _ in range(store // object_bytes + 1)]
    refs: list[Any] = []

    def put() -> None:
        refs.extend(skate.put(array) for _ in range(count))
        flush(directory)

    wrote = timed(put)
    spilled = [skate.put(array) for _ in range(store // object_bytes + 1)]
    flush(directory)
    forget(directory)

    def get() -> None:
        # A few at a time: all of them do not fit.
        for start in range(0, count, 4):
            found = skate.get(refs[start : start + 4])
            assert all(one[-1] == array[-1] for one in found)
            del found

    took = timed(get)
    del filler, spilled
    skate.shutdown()
    return megabytes * MB / wrote, megabytes * MB / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=768)
    parser.add_argument("--object-megabytes", type=int, default=16)
    parser.add_argument("--store-megabytes", type=int, default=256)
    parser.add_argument("--block", type=int, default=MB)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as name:
        directory = Path(name)
        plain = dd(directory, asked.megabytes, asked.block)
        ours = spill(
            directory,
            asked.megabytes,
            asked.object_megabytes * MB,
            asked.store_megabytes * MB,
        )
        again = dd(directory, asked.megabytes, asked.block)
    print(f"{'':8}{'dd':>10}{'Skate':>10}{'dd again':>10}   ratio")
    for row, what in enumerate(("write", "read")):
        reference = (plain[row] + again[row]) / 2
        rates = "".join(f"{rate / 1e6:>10.0f}" for rate in (plain[row], ours[row], again[row]))
        print(f"{what:8}{rates}   {ours[row] / reference:.0%}")
    print("MB/s, with blocks of", asked.block, "bytes")


if __name__ == "__main__":
    main()
