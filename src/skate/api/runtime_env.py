"""``RuntimeEnv``: what a runtime environment may say, checked as soon as it is written.

In its checked form, which engines are given, paths are absolute and requirements are lists.  That
form can be checked again and stays what it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from skate.api import requirements
from skate.api.checks import nearest
from skate.exceptions import NotSupportedError

#: Where files that the session has already got are named by their content.
PACKAGE_SCHEME = "package://"
#: Suffixes of what may stand for a directory of modules.
ARCHIVES = (".zip", ".whl")

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_Check = Callable[[str, Any], Any]


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is prepared.

    Args:
        setup_timeout_seconds: Most seconds that a node may take; -1 for no limit.
        eager_install: Of the environment of ``init``: prepare it at once, not with the first task.

    Raises:
        TypeError, ValueError: A value that makes no sense.
    """

    def __init__(self, setup_timeout_seconds: int = 600, eager_install: bool = True) -> None:
        seconds: object = setup_timeout_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise TypeError(f"setup_timeout_seconds must be a whole number, not {seconds!r}")
        if seconds < 1 and seconds != -1:
            raise ValueError(
                f"setup_timeout_seconds must be at least 1, or -1 for no limit, but is {seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be True or False, not {eager_install!r}")
        super().__init__(setup_timeout_seconds=seconds, eager_install=eager_install)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment; a dict with the same keys does as well.

    Args:
        env_vars: Environment variables by name.  ``${NAME}`` in a value stands for the value that
            the variable has without this.
        working_dir: A directory or a .zip file: tasks run in a copy of it and can import from it.
        py_modules: Directories of packages, .py files, .zip files, wheels or imported modules that
            tasks can import.
        excludes: Patterns as in .gitignore of what is left out of ``working_dir`` and
            ``py_modules``, beside what .gitignore and .skateignore files in them name.
        pip: Packages to install: a list of requirements, the path of a requirements.txt, or a dict
            with "packages" and optionally "pip_check", "pip_version", "pip_install_options".
        uv: The same by uv: "packages", "uv_check", "uv_version", "uv_pip_install_options".
        config: How it is prepared, see ``RuntimeEnvConfig``.

    Raises:
        TypeError, ValueError: A field that is unknown or wrong, with its name.
        NotSupportedError: A field of Ray's that Skate does not have.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        py_modules: list[Any] | None = None,
        excludes: list[str] | None = None,
        pip: Any = None,
        uv: Any = None,
        config: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        fields = {
            "env_vars": env_vars,
            "working_dir": working_dir,
            "py_modules": py_modules,
            "excludes": excludes,
            "pip": pip,
            "uv": uv,
            "config": config,
            **others,
        }
        for name, value in fields.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        check = _FIELDS.get(name)
        if check is None:
            if name in _OF_RAY and value is None:
                return
            if name in _OF_RAY:
                raise NotSupportedError(f"runtime_env: the field {name!r} is not supported")
            raise ValueError(f"runtime_env has no field {name!r}.{nearest(name, _FIELDS)}")
        if value is None:
            self.pop(name, None)
            return
        super().__setitem__(name, check(name, value))
        if "pip" in self and "uv" in self:
            raise ValueError("runtime_env has both 'pip' and 'uv': they install the same things")

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict of the fields that are set."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through the checks: the paths are those of another process.
        return _restore, (dict(self),)


def _restore(fields: dict[str, Any]) -> RuntimeEnv:
    environment = RuntimeEnv.__new__(RuntimeEnv)
    dict.update(environment, fields)
    return environment


def check(option: str, value: object) -> RuntimeEnv:
    """Check what stands for a runtime environment.

    Raises:
        TypeError, ValueError, NotSupportedError: See ``RuntimeEnv``.
    """
    if isinstance(value, RuntimeEnv):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict or a RuntimeEnv, not {value!r}")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"{option} must have names as keys, not {name!r}")
    return RuntimeEnv(**value)


# --------------------------------------------------------------------------- the fields


def _env_vars(field: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a dict of strings by name, not {value!r}")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise TypeError(f"{field} has {name!r}, which cannot be the name of a variable")
        if not isinstance(text, str):
            raise TypeError(f"{field}[{name!r}] must be a string, not {text!r}: say {str(text)!r}")
        if "\0" in text:
            raise ValueError(f"{field}[{name!r}] must not contain a zero byte")
    return dict(value)


def _path(field: str, value: Any) -> str:
    """Return the absolute path of something that exists, or the name of a package."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{field} must be a path, not {value!r}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{field} must be a path of text, not {value!r}")
    if text.startswith(PACKAGE_SCHEME):
        return text
    if _URI.match(text):
        raise NotSupportedError(
            f"{field}={text!r}: only local files are supported, download it before"
        )
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.exists(path):
        raise ValueError(f"{field}: there is no {path}")
    return path


def _working_dir(field: str, value: Any) -> str:
    path = _path(field, value)
    if path.startswith(PACKAGE_SCHEME) or os.path.isdir(path):
        return path
    if not path.endswith(".zip"):
        raise ValueError(f"{field} must be a directory or a .zip file, but {path} is neither")
    check_archive(field, path)
    return path


def _py_modules(field: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{field} must be a list of paths and modules, not {value!r}")
    return [_module(f"{field}[{index}]", item) for index, item in enumerate(value)]


def _module(field: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        where = next(iter(getattr(value, "__path__", [])), None) or value.__dict__.get("__file__")
        if where is None or os.path.basename(str(where)).startswith("__init__."):
            raise ValueError(f"{field}: the module {value.__name__} has no files")
        if "." in value.__name__:
            raise ValueError(
                f"{field}: {value.__name__} is part of a package; name the package,"
                f" {value.__name__.partition('.')[0]}"
            )
        value = where
    path = _path(field, value)
    if path.startswith(PACKAGE_SCHEME) or os.path.isdir(path):
        return path
    if path.endswith(ARCHIVES):
        check_archive(field, path)
        if path.endswith(".whl"):
            _check_wheel(field, os.path.basename(path))
    elif not path.endswith(".py"):
        raise ValueError(
            f"{field} must be a directory, a .py file, a .zip file, a wheel or a module, but"
            f" {path} is none of these"
        )
    return path


def check_archive(field: str, path: str) -> None:
    """Refuse what is no zip file, or one that would write outside of its directory.

    Raises:
        ValueError: With the reason.
    """
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{field}: {path} is no zip file ({error})") from None
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{field}: {path} has an entry outside of its directory: {name!r}")


def _check_wheel(field: str, name: str) -> None:
    """Refuse a wheel for other versions of Python."""
    parts = name.removesuffix(".whl").split("-")
    if len(parts) < 5:
        raise ValueError(f"{field}: {name} is not how a wheel is named")
    major, minor = sys.version_info[:2]
    pythons, abis = parts[-3].split("."), parts[-2].split(".")
    suits = {f"py{major}", f"py{major}{minor}", f"cp{major}{minor}"}
    if suits.isdisjoint(pythons) and "abi3" not in abis:
        raise ValueError(f"{field}: {name} is not for Python {major}.{minor}")


def _excludes(field: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{field} must be a list of patterns as in .gitignore, not {value!r}")
    return list(value)


def _config(field: str, value: Any) -> RuntimeEnvConfig:
    if not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a dict, not {value!r}")
    known = ("setup_timeout_seconds", "eager_install")
    for name in value:
        if name not in known:
            raise ValueError(f"{field} has no field {name!r}.{nearest(str(name), known)}")
    return RuntimeEnvConfig(**value)


_FIELDS: dict[str, _Check] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "py_modules": _py_modules,
    "excludes": _excludes,
    "pip": requirements.check,
    "uv": requirements.check,
    "config": _config,
}
#: Fields of Ray's that name what Skate does not do.
_OF_RAY = (
    "conda",
    "container",
    "image_uri",
    "java_jars",
    "mpi",
    "nsight",
    "py_executable",
    "worker_process_setup_hook",
)
