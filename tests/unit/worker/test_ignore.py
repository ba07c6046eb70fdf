"""Patterns as in .gitignore, against git itself where it is installed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from skate.runtime.worker.ignore import Ignored
from skate.runtime.worker.packages import walk


@pytest.mark.parametrize(
    ("pattern", "ignored", "kept"),
    [
        ("*.log", ["a.log", "x/y.log"], ["a.txt", "log"]),
        ("/a", ["a"], ["x/a"]),
        ("x/a", ["x/a"], ["y/x/a", "a"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["b"]),
        ("x/**", ["x/a", "x/y/a"], ["x", "y/x/a"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["a", "x/b"]),
        ("a?c", ["abc", "x/abc"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[!a-c]x", ["dx"], ["ax"]),
        ("\\#a", ["#a"], ["a"]),
        ("\\!a", ["!a"], ["a"]),
        ("# a", [], ["# a", "a"]),
        ("a\\*", ["a*"], ["ab"]),
        ("a b ", ["a b"], ["a"]),
        ("[", [], ["a"]),
    ],
)
def test_patterns(pattern: str, ignored: list[str], kept: list[str]) -> None:
    rules = Ignored([pattern])
    assert [name for name in ignored + kept if rules.matches(name, False)] == ignored


def test_directories_and_exceptions() -> None:
    rules = Ignored(["build/", "*.log", "!important.log"])
    assert rules.matches("build", True)
    assert not rules.matches("build", False)
    assert rules.matches("a.log", False)
    assert not rules.matches("important.log", False)


def test_files_in_directories_and_what_the_program_says(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "sub/a.txt", "sub/b.txt", "sub/c.txt", "big/a.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").touch()
    (tmp_path / ".gitignore").write_text("a.txt\n")
    (tmp_path / ".skateignore").write_text("big/\n")
    (tmp_path / "sub" / ".gitignore").write_text("!a.txt\n/b.txt\n")
    found = [name for name, _ in walk(str(tmp_path), ["c.txt"])]
    assert found == [".gitignore", ".skateignore", "b.txt", "sub/.gitignore", "sub/a.txt"]


def test_links(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").touch()
    (tmp_path / "again").symlink_to(tmp_path / "inside")
    (tmp_path / "inside" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert [name for name, _ in walk(str(tmp_path), [])] == ["again/file", "inside/file"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("seed", range(12))
def test_git_agrees(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "ab", "a.b", "b a"]
    parts = ["a", "b", "*", "?", "**", "[ab]", "[!a]", "a*", "*.b", ".", "b a", "\\a"]
    for _ in range(40):
        path = tmp_path.joinpath(*chance.choices(names, k=chance.randint(1, 3)))
        if not path.exists() and all(p.is_dir() or not p.exists() for p in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    where = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for directory in chance.sample(where, min(2, len(where))):
        lines = [
            chance.choice(["", "", "!"])
            + chance.choice(["", "/"])
            + "/".join(chance.choices(parts, k=chance.randint(1, 3)))
            + chance.choice(["", "", "/"])
            for _ in range(4)
        ]
        (directory / ".gitignore").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, env=environment)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout.split("\0")
    assert [name for name, _ in walk(str(tmp_path), [])] == sorted(
        filter(None, listed), key=lambda name: name.split("/")
    )
