"""Requirements in their normal form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skate.api.requirements import check


def packages(value: Any, field: str = "pip") -> list[str]:
    result: list[str] = check(field, value)["packages"]
    return result


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("Django", "django"),
        ("zope.interface >= 5, < 6", "zope-interface>=5,<6"),
        ("a_b [x, Y] == 1.0  # why", "a-b[x,y]==1.0"),
        ("a (>=1)", "a>=1"),
        ("a ; python_version < '3.12'", "a ; python_version < '3.12'"),
        ("a @ https://host/a.whl", "a @ https://host/a.whl"),
        ("https://host/a.whl", "https://host/a.whl"),
        ("git+ssh://git@host/a.git@main", "git+ssh://git@host/a.git@main"),
        ("a==1 --hash=sha256:00", "a==1 --hash=sha256:00"),
    ],
)
def test_one_requirement(given: str, normal: str) -> None:
    assert packages([given]) == [normal]
    assert packages([normal]) == [normal]


def test_order_and_repetition_do_not_matter() -> None:
    assert packages(["b", "a", "B"]) == packages(["a", "b"]) == ["a", "b"]


def test_a_file_with_others_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "local-1.0.tar.gz").touch()
    (tmp_path / "limits.txt").write_text("x<2\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.txt").write_text("-r ../main.txt\n../local-1.0.tar.gz\n")
    (tmp_path / "main.txt").write_text(
        "# what we need\n--find-links=wheels\n--index-url https://host/?a=b\n"
        "first \\\n  >= 1\n-r sub/more.txt\n-c limits.txt\n--pre\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = [
        f"--find-links={tmp_path}/wheels",
        "--index-url https://host/?a=b",
        f"--constraint={tmp_path}/limits.txt",
        "--pre",
        f"{tmp_path}/local-1.0.tar.gz",
        "first>=1",
    ]
    assert packages("main.txt") == expected
    assert packages(tmp_path / "main.txt") == expected
    assert packages({"packages": "main.txt"}) == expected
    assert packages(expected) == expected


def test_all_fields() -> None:
    assert check("pip", {"packages": ["a"], "pip_check": True, "pip_version": "==24.0"}) == {
        "packages": ["a"],
        "pip_check": True,
        "pip_version": "==24.0",
        "pip_install_options": [],
    }
    assert check("uv", {"packages": ["a"], "uv_pip_install_options": ["--pre"]}) == {
        "packages": ["a"],
        "uv_check": False,
        "uv_version": "",
        "uv_pip_install_options": ["--pre"],
    }


@pytest.mark.parametrize(
    ("value", "kind", "match"),
    [
        (3, TypeError, "list of requirements"),
        ([3], TypeError, "has 3"),
        ({}, ValueError, "needs the field 'packages'"),
        ({"package": []}, ValueError, "Did you mean 'packages'"),
        ({"packages": [], "pip_check": 1}, TypeError, "True or False"),
        ({"packages": [], "pip_version": "24"}, ValueError, "==24.0"),
        ({"packages": [], "pip_install_options": "--pre"}, TypeError, "list of options"),
        (["a=1"], ValueError, "one version is named by '=='"),
        (["a b"], ValueError, "cannot read the requirement 'a b'"),
        (["./missing"], ValueError, "there is no"),
        (["missing.whl"], ValueError, "there is no"),
        ("missing.txt", ValueError, "cannot read the requirements file"),
        (["skate>=1"], ValueError, "all processes run the driver's"),
    ],
)
def test_mistakes(value: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        check("pip", value)
