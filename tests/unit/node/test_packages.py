"""Packages of a node, and how directories become packages."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from skate.exceptions import RuntimeEnvSetupError
from skate.runtime.node import builder, cache
from skate.runtime.node.packages import PackageStore, package_path
from skate.runtime.wire import environments as wire
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.worker import packages as module


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def name_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def piece(content: bytes, offset: int, size: int, name: str = "") -> wire.StorePackage:
    last = offset + size >= len(content)
    part = content[offset : offset + size]
    return wire.StorePackage(1, name or name_of(content), offset, part, last)


def packed(directory: Path, excludes: list[str] | None = None, prefix: str = "") -> bytes:
    with tempfile.TemporaryFile() as file:
        module.pack(str(directory), excludes or [], prefix, file)
        file.seek(0)
        return file.read()


def test_pieces_come_together_and_stay() -> None:
    content = os.urandom(1000)
    store = PackageStore()
    assert store.missing([name_of(content)]) == [name_of(content)]
    for offset in range(0, 1000, 300):
        assert store.store(b"p", piece(content, offset, 300)) == ""
    assert store.missing([name_of(content)]) == []
    assert Path(package_path(name_of(content))).read_bytes() == content
    assert store.read(1, name_of(content), 400).data == content[400:]
    assert store.read(1, name_of(content), 400).size == 1000
    assert "there is no package" in store.read(1, name_of(b""), 0).error
    # Held by this session.
    assert cache.collect_packages(0) == []
    assert PackageStore().missing([name_of(content)]) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 32, "0" * 31])
def test_names_that_are_none(name: str) -> None:
    store = PackageStore()
    with pytest.raises(ProtocolError, match="not the name of a package"):
        store.missing([name])
    with pytest.raises(ProtocolError, match="not the name of a package"):
        store.store(b"p", wire.StorePackage(1, name, 0, b"", True))
    reasons: list[str] = []
    store.need([name], reasons.append)
    assert "not the name of a package" in reasons[0]


def test_what_does_not_fit_together_leaves_nothing() -> None:
    store = PackageStore()
    content = b"abcdef"
    store.store(b"p", piece(content, 0, 2))
    with pytest.raises(ProtocolError, match="out of place"):
        store.store(b"p", piece(content, 4, 2))
    with pytest.raises(ProtocolError, match="not what its name says"):
        store.store(b"p", piece(b"other", 0, 5, name_of(content)))
    store.store(b"p", piece(content, 0, 2))
    store.process_died(b"p")
    assert os.listdir(cache.directory("packages")) == []


def test_two_may_bring_the_same() -> None:
    store = PackageStore()
    content = b"abcdef"
    for offset in (0, 3):
        for process in (b"p", b"q"):
            assert store.store(process, piece(content, offset, 3)) == ""
    assert os.listdir(cache.directory("packages")) == [name_of(content)]


def test_what_another_node_has_is_fetched() -> None:
    content, other = b"abcdef", b"ghi"
    store = PackageStore()
    reasons: list[str] = []
    store.need([name_of(content)], reasons.append)
    assert "this node does not have the package" in reasons.pop()

    def fetch(name: str, done: object) -> None:
        whole = next(c for c in (content, other) if name_of(c) == name)
        store.store(b"node", piece(whole, 0, 100))
        done("")  # type: ignore[operator]  # a callback

    store.fetch = fetch
    store.need([name_of(content), name_of(other)], reasons.append)
    assert reasons == [""]


def test_a_cache_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "file"))
    store = PackageStore()
    assert store.missing([name_of(b"a")]) == [name_of(b"a")]
    assert "SKATE_CACHE_DIR" in store.store(b"p", piece(b"a", 0, 1))


def test_equal_directories_give_equal_packages(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "b.py").write_text("b = 1\n")
        (tmp_path / name / "a.sh").write_text("echo\n")
        (tmp_path / name / "a.sh").chmod(0o755)
    os.utime(tmp_path / "one" / "a.sh", (time.time(), 1))
    assert packed(tmp_path / "one") == packed(tmp_path / "two")
    (tmp_path / "two" / "a.sh").chmod(0o644)
    assert packed(tmp_path / "one") != packed(tmp_path / "two")


def test_a_package_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PACKAGE", 1 << 20)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.bin").write_bytes(b"x" * 1_000_000)
    (tmp_path / "d" / "b.bin").write_bytes(b"x" * 100_000)
    with pytest.raises(RuntimeEnvSetupError, match=r"at most 1 MiB.*\n.*a\.bin.*\n.*b\.bin"):
        packed(tmp_path / "d")
    assert packed(tmp_path / "d", ["a.bin"])


def stored(content: bytes) -> str:
    Path(package_path(name_of(content))).write_bytes(content)
    return name_of(content)


def test_unpacking(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.sh").write_text("echo\n")
    (tmp_path / "d" / "run.sh").chmod(0o755)
    name = stored(packed(tmp_path / "d", prefix="d"))
    target = Path(builder.unpack(str(tmp_path), name))
    assert (target / "d" / "run.sh").stat().st_mode & 0o111
    assert builder.unpack(str(tmp_path), name) == str(target)
    assert [path.name for path in target.parent.iterdir()] == [name]


def test_a_wheel_is_unpacked_as_it_is_installed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("thing/__init__.py", "")
        archive.writestr("thing-1.dist-info/WHEEL", "")
        archive.writestr("thing-1.data/purelib/more.py", "")
        archive.writestr("thing-1.data/scripts/run", "")
    target = Path(builder.unpack(str(tmp_path), stored((tmp_path / "x.whl").read_bytes())))
    assert sorted(path.name for path in target.iterdir()) == [
        "more.py",
        "thing",
        "thing-1.dist-info",
    ]


def test_a_package_that_was_damaged_is_removed(tmp_path: Path) -> None:
    name = stored(b"content")
    Path(package_path(name)).write_bytes(b"other")
    with pytest.raises(builder.BuildError, match="was damaged"):
        builder.unpack(str(tmp_path), name)
    assert not os.path.exists(package_path(name))
