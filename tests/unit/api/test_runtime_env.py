"""What a runtime environment may say, and its checked form."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from skate.api.runtime_env import check
from skate.exceptions import NotSupportedError
from skate.runtime_env import RuntimeEnv, RuntimeEnvConfig


@pytest.mark.parametrize(
    ("fields", "kind", "match"),
    [
        ({"env_vars": ["A"]}, TypeError, "dict of strings"),
        ({"env_vars": {"A=B": "1"}}, TypeError, "cannot be the name"),
        ({"env_vars": {"A": "\0"}}, ValueError, "zero byte"),
        ({"working_dir": 3}, TypeError, "working_dir must be a path"),
        ({"working_dir": "s3://bucket/x.zip"}, NotSupportedError, "only local files"),
        ({"working_dir": __file__}, ValueError, "directory or a .zip"),
        ({"py_modules": "x"}, TypeError, "list of paths"),
        ({"py_modules": [json.decoder]}, ValueError, "part of a package; name the package, json"),
        ({"py_modules": [__import__("sys")]}, ValueError, "has no files"),
        ({"py_modules": ["/etc/hosts"]}, ValueError, "none of these"),
        ({"excludes": "x"}, TypeError, "patterns"),
        ({"config": {"setup_timeout": 1}}, ValueError, "Did you mean 'setup_timeout_seconds'"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "at least 1"),
        ({"config": {"setup_timeout_seconds": "1"}}, TypeError, "whole number"),
        ({"config": {"eager_install": 1}}, TypeError, "True or False"),
        ({"pip": ["a"], "uv": ["a"]}, ValueError, "both 'pip' and 'uv'"),
        ({"conda": "x"}, NotSupportedError, "conda"),
        ({"workingdir": "."}, ValueError, "Did you mean 'working_dir'"),
    ],
)
def test_mistakes(fields: dict[str, Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        RuntimeEnv(**fields)
    with pytest.raises(kind, match=match):
        check("runtime_env", fields)


def test_the_checked_form_is_checked_again_without_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "module.py").touch()
    environment = RuntimeEnv(
        env_vars={"A": "1"},
        working_dir="here",
        py_modules=["module.py", json],
        pip=["Some_Package == 1.0", "other"],
        config={"setup_timeout_seconds": -1},
    )
    assert environment["working_dir"] == str(tmp_path / "here")
    assert environment["py_modules"] == [
        str(tmp_path / "module.py"),
        str(Path(json.__file__).parent),
    ]
    assert environment["pip"]["packages"] == ["other", "some-package==1.0"]
    assert environment["config"] == {"setup_timeout_seconds": -1, "eager_install": True}
    assert RuntimeEnv(**environment) == environment
    assert pickle.loads(pickle.dumps(environment)) == environment


def test_it_is_a_dict_that_checks_what_is_put_into_it() -> None:
    environment = RuntimeEnv()
    environment["env_vars"] = {"A": "1"}
    assert environment.to_dict() == {"env_vars": {"A": "1"}}
    with pytest.raises(ValueError, match="no field"):
        environment["x"] = 1
    environment["env_vars"] = None
    assert environment == {}
    assert check("runtime_env", {"config": RuntimeEnvConfig(5)})["config"] == {
        "setup_timeout_seconds": 5,
        "eager_install": True,
    }


def test_archives(tmp_path: Path) -> None:
    good, outside, broken = (tmp_path / name for name in ("good.zip", "outside.zip", "broken.zip"))
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("module.py", "")
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../module.py", "")
    broken.write_text("no archive")
    assert RuntimeEnv(working_dir=good)["working_dir"] == str(good)
    with pytest.raises(ValueError, match="outside of its directory"):
        RuntimeEnv(py_modules=[outside])
    with pytest.raises(ValueError, match="is no zip file"):
        RuntimeEnv(working_dir=broken)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("thing-1.0-py3-none-any.whl", ""),
        ("thing-1.0-py2.py3-none-any.whl", ""),
        ("thing-1.0-cp37-abi3-any.whl", ""),
        ("thing-1.0-cp27-cp27mu-linux_x86_64.whl", "not for Python 3"),
        ("thing.whl", "not how a wheel is named"),
    ],
)
def test_wheels(tmp_path: Path, name: str, match: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("thing.py", "")
    if match:
        with pytest.raises(ValueError, match=match):
            RuntimeEnv(py_modules=[tmp_path / name])
    else:
        RuntimeEnv(py_modules=[tmp_path / name])
