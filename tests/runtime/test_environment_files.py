"""working_dir and py_modules with real workers."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wheels

import skate
from skate.exceptions import RuntimeEnvSetupError


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    (path / "helpers").mkdir(parents=True)
    (path / "helpers" / "__init__.py").write_text("from helpers.inner import ANSWER\n")
    (path / "helpers" / "inner.py").write_text("ANSWER = 42\n")
    (path / "data.txt").write_text("hello")
    (path / "secret.key").write_text("")
    (path / "big.bin").write_text("")
    (path / ".gitignore").write_text("*.key\n")
    (path / ".skateignore").write_text("notes/\n")
    (path / "notes").mkdir()
    (path / "notes" / "a").touch()
    return path


@skate.remote
def look(*modules: str) -> dict[str, Any]:
    import importlib

    found = {}
    for name in modules:
        try:
            found[name] = vars(importlib.import_module(name)).get("VERSION", "no version")
        except ImportError:
            found[name] = "missing"
    here = sorted(str(path) for path in Path().rglob("*") if path.is_file())
    return {"modules": found, "files": [f for f in here if "__pycache__" not in f]}


def test_a_working_directory(session: None, project: Path) -> None:
    runtime_env = {"working_dir": project, "excludes": ["big.bin"]}

    @skate.remote(runtime_env=runtime_env)
    def work() -> tuple[int, str, str]:
        from helpers import ANSWER  # type: ignore[import-not-found]  # comes with the environment

        return ANSWER, Path("data.txt").read_text(), os.getcwd()

    answer, text, where = skate.get(work.remote())
    assert (answer, text) == (42, "hello")
    assert where != str(project)
    found = skate.get(look.options(runtime_env=runtime_env).remote())["files"]
    assert found == [
        ".gitignore",
        ".skateignore",
        "data.txt",
        "helpers/__init__.py",
        "helpers/inner.py",
    ]
    # Others are where they were, and without its modules.
    assert skate.get(look.remote("helpers"))["modules"] == {"helpers": "missing"}


def test_a_session_in_a_directory_that_a_child_replaces(
    cluster: Callable[..., None], project: Path, tmp_path: Path
) -> None:
    cluster(num_cpus=2, runtime_env={"working_dir": str(project), "env_vars": {"A": "1"}})
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other.txt", "other")

    @skate.remote
    def parent(options: dict[str, Any]) -> list[str]:
        files: list[str] = skate.get(look.options(**options).remote())["files"]
        return files

    assert "data.txt" in skate.get(parent.remote({}))
    assert skate.get(parent.remote({"runtime_env": {"working_dir": str(archive)}})) == ["other.txt"]
    # What the context tells can be given on.
    there = skate.get_runtime_context().runtime_env
    assert there["working_dir"].startswith("package://")
    assert "data.txt" in skate.get(look.options(runtime_env=there).remote())["files"]


def test_modules_of_all_kinds(session: None, tmp_path: Path) -> None:
    package = tmp_path / "mine" / "kind_directory"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VERSION = 'd'\n")
    (tmp_path / "kind_file.py").write_text("VERSION = 'f'\n")
    with zipfile.ZipFile(tmp_path / "kind.zip", "w") as archive:
        archive.writestr("kind_zip.py", "VERSION = 'z'\n")
    wheel = wheels.make(tmp_path, "kind_wheel", "1.5")
    (tmp_path / "mine" / "kind_module.py").write_text("VERSION = 'm'\n")
    sys.path.insert(0, str(tmp_path / "mine"))
    try:
        import kind_module  # type: ignore[import-not-found]  # made above
    finally:
        sys.path.remove(str(tmp_path / "mine"))
    modules = [package, tmp_path / "kind_file.py", tmp_path / "kind.zip", wheel, kind_module]
    names = ["kind_directory", "kind_file", "kind_zip", "kind_wheel", "kind_module"]
    found = skate.get(look.options(runtime_env={"py_modules": modules}).remote(*names))
    assert found["modules"] == dict(zip(names, ["d", "f", "z", "1.5", "m"], strict=True))


def test_functions_take_files_along_by_content(session: None, project: Path) -> None:
    """A remote function that is sent to a task means the same there, without the files."""
    configured = look.options(runtime_env={"working_dir": str(project)})

    @skate.remote
    def call() -> list[str]:
        files: list[str] = skate.get(configured.remote())["files"]
        return files

    ref = call.remote()
    shutil.rmtree(project)
    assert "data.txt" in skate.get(ref)


def test_equal_directories_share_workers_and_changed_ones_do_not(
    session: None, project: Path, cache_dir: Path
) -> None:
    @skate.remote
    def where() -> str:
        return os.getcwd()

    first = skate.get(where.options(runtime_env={"working_dir": project}).remote())
    same = skate.get(where.options(runtime_env={"working_dir": str(project)}).remote())
    (project / "data.txt").write_text("changed")
    changed = skate.get(where.options(runtime_env={"working_dir": project}).remote())
    assert first == same != changed
    assert len(os.listdir(cache_dir / "packages")) == 2


def test_a_preloaded_module_in_another_version(
    cluster: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zygote has imported what the environment has in another version."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twice.py").write_text(f"VERSION = {name!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    cluster(num_cpus=2, preload=["twice"])
    runtime_env = {"py_modules": [tmp_path / "new" / "twice.py"]}
    refs = [look.remote("twice"), look.options(runtime_env=runtime_env).remote("twice")]
    assert [found["modules"]["twice"] for found in skate.get(refs)] == ["old", "new"]


def test_variables_are_there_before_preloaded_modules(
    cluster: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads.py").write_text("import os\nVERSION = os.environ.get('SKATE_TEST_A')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cluster(num_cpus=2, preload=["reads"])
    runtime_env = {"env_vars": {"SKATE_TEST_A": "1"}}
    refs = [look.remote("reads"), look.options(runtime_env=runtime_env).remote("reads")]
    assert [found["modules"]["reads"] for found in skate.get(refs)] == [None, "1"]


def test_a_directory_that_is_too_large(
    session: None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skate.runtime.worker.packages.MAX_PACKAGE", 4)
    with pytest.raises(RuntimeEnvSetupError, match=r"(?s)data\.txt.*\.skateignore"):
        look.options(runtime_env={"working_dir": project}).remote()


def test_a_package_of_another_session(cluster: Callable[..., None], cache_dir: Path) -> None:
    cluster(num_cpus=1)
    unknown = {"working_dir": "package://" + "0" * 32}
    for _ in range(2):
        with pytest.raises(RuntimeEnvSetupError, match="this node does not have the package 000"):
            skate.get(look.options(runtime_env=unknown).remote())

    @skate.remote
    class Actor:
        def method(self) -> None:
            """Never called."""

    with pytest.raises(RuntimeEnvSetupError, match=r"Actor .* could not be started"):
        skate.get(Actor.options(runtime_env=unknown).remote().method.remote())
    assert skate.get(look.remote())


def test_a_cache_that_cannot_be_used(
    cluster: Callable[..., None], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "file"))
    cluster(num_cpus=1)
    with pytest.raises(RuntimeEnvSetupError, match="SKATE_CACHE_DIR"):
        look.options(runtime_env={"working_dir": project}).remote()
    assert skate.get(look.remote())


def test_a_worker_that_removes_its_directory_harms_only_those_who_start_in_it(
    session: None, project: Path
) -> None:
    runtime_env = {"working_dir": project}

    @skate.remote(max_retries=0)
    def remove() -> None:
        shutil.rmtree(os.getcwd())
        os._exit(1)

    with pytest.raises(skate.exceptions.WorkerCrashedError):
        skate.get(remove.options(runtime_env=runtime_env).remote())
    # Nobody is in the environment any more: it is prepared anew.
    assert "data.txt" in skate.get(look.options(runtime_env=runtime_env).remote())["files"]
