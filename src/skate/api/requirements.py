"""Requirements of ``pip`` and ``uv``: read from where the user has them, and normalised.

What comes out does not depend on the directory it was written in: paths are absolute, other
requirements files are taken in, names are spelled as the package index spells them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from skate.api.checks import nearest

#: Endings of files that can be installed.
_FILES = (".whl", ".tar.gz", ".zip", ".tar.bz2")
#: Options of requirements files that have a path behind them.
_PATH_OPTIONS = {
    "-f": "--find-links",
    "--find-links": "--find-links",
    "-c": "--constraint",
    "--constraint": "--constraint",
    "-e": "--editable",
    "--editable": "--editable",
}
_INCLUDE_OPTIONS = ("-r", "--requirement")
_NAMED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)"
)
_AT_URL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*@\s*\S+")
_REST = re.compile(r"(?:\(|===|==|~=|!=|<=|>=|<|>|;|@|--)")
_COMMENT = re.compile(r"(^|\s)#.*$")
#: Skate comes from the driver: all processes of a session speak the same version.
_OWN_NAME = "skate"


def check(field: str, value: Any) -> dict[str, Any]:
    """Check what ``pip`` or ``uv`` is given; return all of it in the form of a dict.

    Raises:
        TypeError, ValueError: With the field or the requirement that is wrong.
    """
    defaults: dict[str, Any] = {
        "packages": [],
        f"{field}_check": False,
        f"{field}_version": "",
        "pip_install_options" if field == "pip" else "uv_pip_install_options": [],
    }
    given = dict(value) if isinstance(value, Mapping) else {"packages": value}
    for name in given:
        if name not in defaults:
            raise ValueError(f"{field} has no field {name!r}.{nearest(str(name), defaults)}")
    if "packages" not in given:
        raise ValueError(f"{field} needs the field 'packages'")
    merged = {**defaults, **{name: part for name, part in given.items() if part is not None}}
    for name, part in merged.items():
        if name == "packages":
            merged[name] = _packages(field, part)
        elif name.endswith("_check"):
            if not isinstance(part, bool):
                raise TypeError(f"{name} must be True or False, not {part!r}")
        elif name.endswith("_version"):
            if not isinstance(part, str) or (part and not _REST.match(part)):
                raise ValueError(f"{name} must be like '==24.0', not {part!r}")
        elif not isinstance(part, list | tuple) or not all(isinstance(x, str) for x in part):
            raise TypeError(f"{name} must be a list of options, not {part!r}")
        else:
            merged[name] = list(part)
    return merged


def _packages(field: str, value: Any) -> list[str]:
    if isinstance(value, str | os.PathLike):
        lines = _lines_of(field, os.path.abspath(os.path.expanduser(os.fspath(value))), ())
    elif isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, str):
                raise TypeError(f"{field} must be a list of requirements, but has {item!r}")
        lines = _read(field, value, os.getcwd(), ())
    else:
        raise TypeError(
            f"{field} must be a list of requirements, the path of a requirements file or a dict,"
            f" not {value!r}"
        )
    options: list[str] = []
    packages: set[str] = set()
    for line in lines:
        if line.startswith("-") and not line.startswith("--editable"):
            if line not in options:
                options.append(line)
        else:
            packages.add(line)
    # The order of options may matter, that of packages does not.
    return options + sorted(packages)


def _lines_of(field: str, path: str, seen: tuple[str, ...]) -> Iterator[str]:
    path = os.path.realpath(path)
    if path in seen:
        return
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{field}: cannot read the requirements file {path}: {error}") from None
    lines = text.replace("\\\n", " ").splitlines()
    yield from _read(field, lines, os.path.dirname(path), (*seen, path))


def _read(field: str, lines: Any, directory: str, seen: tuple[str, ...]) -> Iterator[str]:
    for line in lines:
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        if not text.startswith("-"):
            yield _requirement(field, text, directory)
            continue
        name, argument = [*re.split(r"[=\s]+", text, maxsplit=1), ""][:2]
        if name in _INCLUDE_OPTIONS:
            yield from _lines_of(field, os.path.join(directory, argument), seen)
        elif name in _PATH_OPTIONS:
            path = os.path.normpath(os.path.join(directory, os.path.expanduser(argument)))
            yield f"{_PATH_OPTIONS[name]}={path if os.path.exists(path) else argument}"
        else:
            yield text


def _requirement(field: str, text: str, directory: str) -> str:
    """Return one requirement in the form that equal ones share."""
    if "://" in text.partition(";")[0].partition("@")[0]:
        return text
    path, semicolon, marker = text.partition(";")
    path = path.strip()
    bare = re.sub(r"\[[^\]]*\]$", "", path)
    is_path = bare.startswith((".", "/", "~")) or bare.endswith(_FILES) or os.sep in bare
    if is_path and not _AT_URL.match(text):
        found = os.path.normpath(os.path.join(directory, os.path.expanduser(bare)))
        if not os.path.exists(found):
            raise ValueError(f"{field}: there is no {found}, which is required as {text!r}")
        return found + path[len(bare) :] + (f" {semicolon}{marker}" if marker else "")
    match = _NAMED.fullmatch(text)
    rest = match["rest"].strip() if match is not None else "?"
    if match is None or (rest and not _REST.match(rest)):
        hint = " (one version is named by '==')" if rest.startswith("=") else ""
        raise ValueError(f"{field}: cannot read the requirement {text!r}{hint}")
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    if name == _OWN_NAME:
        raise ValueError(f"{field}: {text!r} is not installed, all processes run the driver's")
    extras = (match["extras"] or "").replace(" ", "").lower()
    version, semicolon, marker = rest.partition(";")
    if not version.startswith("@") and "--" not in version:
        version = version.replace(" ", "").strip("()")
    elif version.startswith("@"):
        version = " " + version
    return f"{name}{extras}{version}" + (f" ; {marker.strip()}" if semicolon else "")
