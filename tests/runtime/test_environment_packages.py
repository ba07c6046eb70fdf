"""pip and uv with real installers, offline: wheels that the test makes, an index that it runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wheels
from node_fakes import is_running, wait_until
from scripts import Script

import skate
from skate.api.session import current
from skate.exceptions import RuntimeEnvSetupError

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A directory of wheels."""
    path = tmp_path / "wheels"
    path.mkdir()
    wheels.make(path, "skate_tiny", "1.0")
    wheels.make(path, "skate_tiny", "2.0")
    wheels.make(path, "skate_needs", "1.0", "import skate_tiny\n", "skate-tiny<2")
    # What the zygote has imported, as another version that works the same.
    wheels.make(
        path,
        "cloudpickle",
        "99.0",
        "import importlib.util as u, sys\n"
        "from importlib.machinery import PathFinder as F\n"
        "spec = F.find_spec('cloudpickle', [p for p in sys.path if 'cache' not in p])\n"
        "module = u.module_from_spec(spec)\n"
        "sys.modules['cloudpickle'] = module\n"
        "spec.loader.exec_module(module)\n"
        "module.VERSION = VERSION\n",
    )
    return path


def pip(shelf: Path, *packages: str, **more: Any) -> dict[str, Any]:
    options = ["--no-index", "--find-links", str(shelf)]
    return {"pip": {"packages": list(packages), "pip_install_options": options, **more}}


@skate.remote
def version(name: str) -> str:
    import importlib

    return str(vars(importlib.import_module(name)).get("VERSION", "another"))


@skate.remote
def pid() -> int:
    return os.getpid()


def processes(state: str) -> list[int]:
    return [row["pid"] for row in current().state("workers") if row["state"] == state]


def children_of(parent: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def environments(cache_dir: Path) -> list[Path]:
    return [path for path in (cache_dir / "environments").glob("*") if path.is_dir()]


def test_versions_side_by_side(session: None, shelf: Path, cache_dir: Path) -> None:
    one, two = (pip(shelf, f"skate-tiny=={number}.0") for number in (1, 2))
    refs = [version.options(runtime_env=env).remote("skate_tiny") for env in (one, two, one, two)]

    @skate.remote
    class Actor:
        def version(self) -> str:
            import skate_tiny  # type: ignore[import-not-found]  # comes with the environment

            return str(skate_tiny.VERSION)

        def child(self) -> str:
            value: str = skate.get(version.remote("skate_tiny"))
            return value

    actor = Actor.options(runtime_env=one).remote()
    assert skate.get(refs) == ["1.0", "2.0", "1.0", "2.0"]
    assert skate.get([actor.version.remote(), actor.child.remote()]) == ["1.0", "1.0"]
    with pytest.raises(ModuleNotFoundError):
        skate.get(version.remote("skate_tiny"))
    assert len(environments(cache_dir)) == 2
    assert (cache_dir / "environments").stat().st_mode & 0o777 == 0o700


def test_programs_that_a_task_starts_are_in_the_environment(session: None, shelf: Path) -> None:
    @skate.remote
    def start() -> list[str]:
        import subprocess
        import sys

        code = "import skate_tiny, msgspec; print(skate_tiny.VERSION)"
        return [
            subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
            for python in (sys.executable, "python")
        ]

    outputs = skate.get(start.options(runtime_env=pip(shelf, "skate-needs")).remote())
    assert outputs == ["1.0\n", "1.0\n"]


def test_another_version_of_what_the_zygote_has_imported(session: None, shelf: Path) -> None:
    @skate.remote
    def both() -> tuple[str, int]:
        import cloudpickle

        return vars(cloudpickle).get("VERSION", "another"), (lambda: 42)()

    assert skate.get(both.remote()) == ("another", 42)
    there = both.options(runtime_env=pip(shelf, "cloudpickle==99.0"))
    assert skate.get(there.remote()) == ("99.0", 42)


def test_a_file_of_requirements_and_a_job_default(
    cluster: Callable[..., None], shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text(
        "--no-index\n--find-links wheels\n-r more.txt\n# no more\n"
    )
    (tmp_path / "more.txt").write_text("Skate_Needs >= 1.0\n")
    cluster(num_cpus=1, runtime_env={"pip": str(tmp_path / "requirements.txt")})
    assert skate.get([version.remote("skate_tiny"), version.remote("skate_needs")]) == ["1.0"] * 2


def test_what_the_installer_says_reaches_everybody(session: None, shelf: Path) -> None:
    runtime_env = pip(shelf, "skate-nowhere")

    @skate.remote
    class Actor:
        def method(self) -> None:
            """Never called."""

    refs = [version.options(runtime_env=runtime_env).remote("skate_tiny") for _ in range(3)]
    refs.append(Actor.options(runtime_env=runtime_env).remote().method.remote())
    for ref in refs:
        with pytest.raises(RuntimeEnvSetupError) as caught:
            skate.get(ref)
        text = str(caught.value)
        assert "pip exited with code 1" in text
        assert "No matching distribution found for skate-nowhere" in text
        log = text.rpartition("Its whole output: ")[2]
        assert "No matching distribution" in Path(log).read_text()
    # The next one tries again.
    wheels.make(shelf, "skate_nowhere", "1.0")
    assert skate.get(version.options(runtime_env=runtime_env).remote("skate_nowhere")) == "1.0"


def test_pip_check(session: None, shelf: Path) -> None:
    wheels.make(shelf, "skate_broken", "1.0", "", "skate-tiny<2")
    options = ["--no-index", "--no-deps", "--find-links", str(shelf)]
    fields = {"packages": ["skate-broken", "skate-tiny==2.0"], "pip_install_options": options}
    loose = version.options(runtime_env={"pip": fields})
    assert skate.get(loose.remote("skate_broken")) == "1.0"
    strict = version.options(runtime_env={"pip": {**fields, "pip_check": True}})
    with pytest.raises(RuntimeEnvSetupError, match=r"skate-broken 1\.0 has requirement"):
        skate.get(strict.remote("skate_broken"))


def test_building_holds_nobody_up_and_ends_in_time(session: None, shelf: Path) -> None:
    with wheels.index(shelf) as index:
        slow = {"pip": ["skate-tiny", f"--index-url={index.url}"]}
        limited = {**slow, "config": {"setup_timeout_seconds": 2}}
        waiting = version.options(runtime_env=slow).remote("skate_tiny")
        late = version.options(runtime_env=limited).remote("skate_tiny")
        assert index.asked.wait(60)
        assert len(set(skate.get([pid.remote() for _ in range(100)]))) >= 1
        with pytest.raises(RuntimeEnvSetupError, match=r"longer than 2 s \(setup_timeout_seconds"):
            skate.get(late)
        assert skate.wait([waiting], timeout=0) == ([], [waiting])
        cancelled = version.options(runtime_env=slow).remote("skate_tiny")
        skate.cancel(cancelled)
        with pytest.raises(skate.exceptions.TaskCancelledError):
            skate.get(cancelled)
        index.gate.set()
        assert skate.get(waiting) == "2.0"


def test_kill_the_installer_and_the_builder(session: None, shelf: Path, cache_dir: Path) -> None:
    with wheels.index(shelf) as index:
        task = version.options(runtime_env={"pip": ["skate-tiny", f"--index-url={index.url}"]})
        ref = task.remote("skate_tiny")
        assert index.asked.wait(60)
        [builder] = processes("building")
        [installer] = children_of(builder)
        os.kill(installer, signal.SIGKILL)
        with pytest.raises(RuntimeEnvSetupError, match="pip killed by SIGKILL"):
            skate.get(ref)

        index.asked.clear()
        ref = task.remote("skate_tiny")
        assert index.asked.wait(60)
        [builder] = processes("building")
        [installer] = children_of(builder)
        os.kill(builder, signal.SIGKILL)
        with pytest.raises(RuntimeEnvSetupError, match="killed by SIGKILL; the end of its output"):
            skate.get(ref)
        # What it has left is not taken for an environment, and its installer is gone.
        assert len(environments(cache_dir)) == 1
        wait_until(lambda: not is_running(installer), "the installer lives on")
        index.gate.set()
        assert skate.get(task.remote("skate_tiny")) == "2.0"
        assert len(environments(cache_dir)) == 1


def test_a_session_that_ends_leaves_no_installer(cluster: Callable[..., None], shelf: Path) -> None:
    cluster(num_cpus=1)
    with wheels.index(shelf) as index:
        ref = version.options(
            runtime_env={"pip": ["skate-tiny", f"--index-url={index.url}"]}
        ).remote("skate_tiny")
        assert index.asked.wait(60)
        [builder] = processes("building")
        [installer] = children_of(builder)
        skate.shutdown()
        assert not is_running(builder)
        assert not is_running(installer)
        del ref


def test_an_environment_is_kept_while_it_is_used(
    cluster: Callable[..., None], shelf: Path, cache_dir: Path
) -> None:
    from skate.runtime.node import cache

    @skate.remote
    class Actor:
        def home(self) -> str:
            return os.environ["VIRTUAL_ENV"]

    cluster(num_cpus=2)
    actor = Actor.options(runtime_env=pip(shelf, "skate-tiny")).remote()
    home = skate.get(actor.home.remote())
    assert cache.collect_environments(limit=0) == []
    del actor
    # It is let go when its last worker has ended.
    wait_until(lambda: cache.collect_environments(limit=0) == [home], "it is held", 30)
    again = Actor.options(runtime_env=pip(shelf, "skate-tiny")).remote()
    assert skate.get(again.home.remote()) == home
    skate.shutdown()
    assert cache.collect_environments(limit=0) == [home]


TWO_SESSIONS = """
import os, sys
import skate

@skate.remote
def version():
    import skate_tiny
    return skate_tiny.VERSION, os.environ["VIRTUAL_ENV"]

fields = {{"packages": ["skate-tiny", "--index-url={url}"]}}
skate.init(num_cpus=1, runtime_env={{"pip": fields}})
print("started", flush=True)
print(*skate.get(version.remote()), flush=True)
"""


def test_two_sessions_build_once(
    script: Callable[[str], Script],
    shelf: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pip adds to this file whatever it does.
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    with wheels.index(shelf) as index:
        sessions = [script(TWO_SESSIONS.format(url=index.url)) for _ in range(2)]
        for one in sessions:
            one.wait_for_line("started")
        assert index.asked.wait(60)
        index.gate.set()
        outputs = [one.finish(120) for one in sessions]
    assert len({out for out, _ in outputs}) == 1, outputs
    assert outputs[0][0].startswith("2.0 ")
    assert (tmp_path / "pip.log").read_text().count("Successfully installed") == 1
    [made] = environments(cache_dir)
    assert json.loads((made / "skate-complete.json").read_text())["requirements"]


def test_the_first_of_two_sessions_is_killed_while_it_builds(
    script: Callable[[str], Script], shelf: Path, cache_dir: Path
) -> None:
    with wheels.index(shelf) as index:
        first = script(TWO_SESSIONS.format(url=index.url))
        assert index.asked.wait(60)
        second = script(TWO_SESSIONS.format(url=index.url))
        second.wait_for_line("started")
        index.asked.clear()
        os.kill(first.process.pid, signal.SIGKILL)
        # The lock of its builder is free, and the second one's begins anew.
        assert index.asked.wait(60)
        index.gate.set()
        assert second.finish(120)[0].startswith("2.0 ")
        first.assert_nothing_left()


def test_uv(session: None, shelf: Path) -> None:
    pytest.importorskip("uv")
    options = ["--no-index", "--find-links", str(shelf)]
    fields = {"packages": ["skate-needs"], "uv_pip_install_options": options, "uv_check": True}
    refs = [
        version.options(runtime_env={"uv": fields}).remote(name)
        for name in ("skate_tiny", "skate_needs")
    ]
    assert skate.get(refs) == ["1.0", "1.0"]
    missing = {"packages": ["skate-nowhere"], "uv_pip_install_options": options}
    with pytest.raises(RuntimeEnvSetupError, match=r"uv exited with code 1(?s:.*)skate-nowhere"):
        skate.get(version.options(runtime_env={"uv": missing}).remote("skate_tiny"))


def test_uv_that_is_not_there_is_installed(session: None, shelf: Path) -> None:
    """A version that was asked for always is; here by a stand-in that has pip do the work."""
    code = (
        "import subprocess, sys\n"
        "def main():\n"
        "    command, install, flag, python, *rest = sys.argv[1:]\n"
        "    assert (command, install, flag) == ('pip', 'install', '--python')\n"
        "    sys.exit(subprocess.call([python, '-m', 'pip', 'install', *rest]))\n"
    )
    wheels.make(shelf, "uv", "99.0", code, script="uv:main")
    options = ["--no-index", "--find-links", str(shelf)]
    fields = {
        "packages": ["skate-tiny"],
        "uv_version": "==99.0",
        "uv_pip_install_options": options,
    }
    assert skate.get(version.options(runtime_env={"uv": fields}).remote("uv")) == "99.0"
    assert skate.get(version.options(runtime_env={"uv": fields}).remote("skate_tiny")) == "2.0"


def test_an_environment_whose_workers_cannot_start(session: None, shelf: Path) -> None:
    """It breaks what a worker needs; others go on."""
    wheels.make(shelf, "msgspec", "99.0", "raise RuntimeError('this msgspec is broken')\n")
    ref = version.options(runtime_env=pip(shelf, "msgspec==99.0")).remote("msgspec")
    others = [pid.remote() for _ in range(10)]
    with pytest.raises(RuntimeEnvSetupError, match="this msgspec is broken"):
        skate.get(ref)
    assert len(skate.get(others)) == 10


def test_local_files_are_installed_again_when_they_change(session: None, shelf: Path) -> None:
    wheel = wheels.make(shelf, "skate_local", "1.0", "COLOUR = 'red'\n")

    @skate.remote
    def colour() -> str:
        import skate_local  # type: ignore[import-not-found]  # comes with the environment

        return str(skate_local.COLOUR)

    runtime_env = {"pip": {"packages": [str(wheel)], "pip_install_options": ["--no-index"]}}
    assert skate.get(colour.options(runtime_env=runtime_env).remote()) == "red"
    wheels.make(shelf, "skate_local", "1.0", "COLOUR = 'blue'\n")
    assert skate.get(colour.options(runtime_env=runtime_env).remote()) == "blue"


def test_a_finished_environment_is_there_at_once(session: None, shelf: Path) -> None:
    """Nothing is installed a second time, by this session or by the next."""
    task = version.options(runtime_env=pip(shelf, "skate-tiny"))
    skate.get(task.remote("skate_tiny"))
    for wheel in shelf.glob("*.whl"):
        wheel.unlink()
    skate.shutdown()
    skate.init(num_cpus=1, engine="native")
    started = time.monotonic()
    assert skate.get(task.remote("skate_tiny")) == "2.0"
    assert time.monotonic() - started < 30
