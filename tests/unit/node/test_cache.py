"""The cache on disk: who may use what, and what is removed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skate.runtime.node import cache

HOLDER = """
import sys, time
from skate.runtime.node import cache
fd = cache.hold(sys.argv[1])
print("held" if fd is not None else "not there", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def environment(name: str, age: float = 0.0, complete: bool = True, size: int = 10) -> str:
    """Make something that looks like a virtual environment."""
    path = os.path.join(cache.directory("environments"), name)
    os.mkdir(path)
    Path(path, "file").write_bytes(b"x" * size)
    lock = Path(cache.lock_of(path))
    lock.touch()
    if complete:
        cache.mark_complete(path, {"requirements": [name]})
    then = time.time() - age
    os.utime(lock, (then, then))
    return path


@pytest.fixture
def holder() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that hold environments; they are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def hold_elsewhere(path: str, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_where_it_is(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.directory("packages") == str(root / "packages")
    for path in (root, root / "packages"):
        assert path.stat().st_mode & 0o777 == 0o700
    root.chmod(0o755)
    cache.directory("packages")
    assert root.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("SKATE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory("packages") == str(tmp_path / "xdg" / "skate" / "packages")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.directory("packages") == str(tmp_path / "home" / ".cache" / "skate" / "packages")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match="no directory of yours; remove it or set SKATE_CACHE_DIR"):
        cache.directory("packages")


def test_locks_exclude_each_other_and_survive_the_removal_of_their_file(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first = cache.try_lock(path, fcntl.LOCK_SH)
    second = cache.try_lock(path, fcntl.LOCK_SH)
    assert first is not None
    assert second is not None
    assert cache.try_lock(path, fcntl.LOCK_EX) is None
    os.close(first)
    os.close(second)
    third = cache.try_lock(path, fcntl.LOCK_EX)
    assert third is not None
    assert cache.try_lock(path, fcntl.LOCK_SH) is None
    os.unlink(path)
    fourth = cache.try_lock(path, fcntl.LOCK_EX)
    assert fourth is not None
    os.close(third)
    assert cache.try_lock(path, fcntl.LOCK_SH) is None
    os.close(fourth)


def test_the_longest_unused_go_first() -> None:
    old, middle, young = (environment(n, age) for n, age in (("o", 30), ("m", 20), ("y", 10)))
    assert cache.collect_environments(limit=3) == []
    assert cache.collect_environments(limit=2) == [old]
    assert not os.path.exists(old)
    assert not os.path.exists(cache.lock_of(old))
    held = cache.hold(middle)
    assert held is not None
    os.close(held)
    # It was used just now.
    assert cache.collect_environments(limit=1) == [young]


def test_a_limit_in_bytes() -> None:
    large, small = environment("l", 30, size=100_000), environment("s", 20, size=10)
    assert cache.collect_environments(limit_bytes=200_000) == []
    assert cache.collect_environments(limit_bytes=50_000) == [large]
    assert os.path.exists(small)


def test_what_is_in_use_stays_until_its_user_has_died(
    holder: list[subprocess.Popen[str]],
) -> None:
    used, unused = environment("used", 30), environment("unused", 20)
    process = hold_elsewhere(used, holder)
    os.utime(cache.lock_of(used), (0, 0))
    assert cache.collect_environments(limit=0) == [unused]
    assert cache.is_complete(used)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cache.collect_environments(limit=0) == [used]
    assert cache.hold(used) is None


def test_what_was_interrupted_is_removed_unless_somebody_builds_it() -> None:
    broken, building = environment("broken", complete=False), environment("b", complete=False)
    aside = Path(cache.directory("environments"), ".removed-x")
    aside.mkdir()
    lock = cache.try_lock(cache.lock_of(building), fcntl.LOCK_EX)
    assert lock is not None
    assert cache.hold(broken) is None
    assert cache.collect_environments() == [broken]
    assert os.path.exists(building)
    assert not aside.exists()
    os.close(lock)


def test_packages_beyond_the_limit() -> None:
    root = Path(cache.directory("packages"))
    for number, name in enumerate(("old", "held", "new")):
        (root / name).write_bytes(b"x" * 100)
        os.utime(root / name, (number, number))
    fd = os.open(root / "held", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert cache.collect_packages(300) == []
    assert cache.collect_packages(50) == [str(root / "old"), str(root / "new")]
    assert (root / "held").exists()
    os.close(fd)
