"""Runtime environments on several nodes: each prepares its own, packages are pulled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wheels

import skate
from skate.cluster_utils import Cluster
from skate.exceptions import RuntimeEnvSetupError

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head and two nodes, each with a cache of its own as if on hosts of their own."""
    skate.shutdown()
    cluster = Cluster()
    for name in ("here", "there", "elsewhere"):
        monkeypatch.setenv("SKATE_CACHE_DIR", str(tmp_path / name))
        cluster.add_node(num_cpus=1, resources={name: 9})
    yield cluster
    skate.shutdown()
    cluster.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> dict[str, Any]:
    """An environment whose package takes several messages."""
    path = tmp_path / "project"
    path.mkdir()
    (path / "large.bin").write_bytes(os.urandom(9_000_000))
    (tmp_path / "skate_here.py").write_text("VERSION = 7\n")
    return {"working_dir": str(path), "py_modules": [str(tmp_path / "skate_here.py")]}


@skate.remote(num_cpus=0)
def look() -> tuple[str, int, int]:
    import skate_here  # type: ignore[import-not-found]  # comes with the environment

    node = skate.get_runtime_context().get_node_id()
    return node, os.path.getsize("large.bin"), skate_here.VERSION


def at(name: str, **options: Any) -> dict[str, Any]:
    return {"resources": {name: 1}, **options}


def test_files_are_pulled_from_whoever_has_them(
    nodes: Cluster, project: dict[str, Any], tmp_path: Path
) -> None:
    skate.init(nodes.address, runtime_env=project, engine="native")
    ids = [node.node_id for node in nodes.list_all_nodes]
    names = ("there", "there", "here", "elsewhere")
    found = skate.get([look.options(**at(name)).remote() for name in names])
    assert found == [(ids[i], 9_000_000, 7) for i in (1, 1, 0, 2)]
    kept = [sorted(os.listdir(tmp_path / name / "packages")) for name in set(names)]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 2

    @skate.remote
    class Actor:
        def look(self) -> tuple[str, int, int]:
            found: tuple[str, int, int] = skate.get(look.options(**at("elsewhere")).remote())
            return found

    actor = Actor.options(**at("there")).remote()
    assert skate.get(actor.look.remote()) == (ids[2], 9_000_000, 7)


def test_nobody_has_it(nodes: Cluster) -> None:
    skate.init(nodes.address, engine="native")
    unknown = at("there", runtime_env={"working_dir": "package://" + "0" * 32})
    with pytest.raises(RuntimeEnvSetupError, match="no node of the cluster has the package 000"):
        skate.get(look.options(**unknown).remote())

    @skate.remote
    class Actor:
        def method(self) -> None:
            """Never called."""

    with pytest.raises(RuntimeEnvSetupError, match="no node of the cluster"):
        skate.get(Actor.options(**unknown).remote().method.remote())


def test_packages_are_installed_where_they_are_used(nodes: Cluster, tmp_path: Path) -> None:
    wheels.make(tmp_path, "skate_tiny", "1.0")
    skate.init(nodes.address, engine="native")
    options = ["--no-index", "--find-links", str(tmp_path)]

    @skate.remote
    def home() -> str:
        import skate_tiny  # type: ignore[import-not-found]  # comes with the environment

        return str(skate_tiny.__file__)

    runtime_env = {"pip": {"packages": ["skate-tiny"], "pip_install_options": options}}
    where = skate.get(home.options(**at("there", runtime_env=runtime_env)).remote())
    assert where.startswith(str(tmp_path / "there" / "environments"))
    assert not (tmp_path / "here" / "environments").exists()
    missing = {"pip": {"packages": ["skate-nowhere"], "pip_install_options": options}}
    with pytest.raises(RuntimeEnvSetupError, match="No matching distribution"):
        skate.get(home.options(**at("there", runtime_env=missing)).remote())
