"""The process that prepares one runtime environment: unpacks packages, installs requirements.

A fork of the zygote, so it ends with the session and whatever it has started ends with it.  What it
says goes to a log of its own; the result is a file that the daemon reads when it has ended.
"""

from __future__ import annotations

import os
import shutil
import stat
import traceback
import zipfile
from typing import NoReturn

import msgspec

from skate.runtime.node import processes, virtual_environments
from skate.runtime.node.environments import BuildResult, result_path
from skate.runtime.node.packages import package_path
from skate.runtime.node.virtual_environments import BuildError
from skate.runtime.wire.environments import decode
from skate.runtime.worker.config import PreparedEnvironment, WorkerConfig
from skate.runtime.worker.packages import digest

#: Parts of a wheel's data directory that belong among its modules.
_WHEEL_MODULES = ("purelib", "platlib")


def main(config: WorkerConfig, name: bytes) -> NoReturn:
    """Prepare the environment called ``name`` and exit."""
    processes.set_name("skate-builder")
    try:
        result = BuildResult("", _prepare(config.session_dir, name))
    except (BuildError, OSError, zipfile.BadZipFile) as error:
        result = BuildResult(str(error))
    except Exception:
        result = BuildResult(traceback.format_exc())
    path = result_path(config.session_dir, config.worker_id)
    with open(path + ".new", "wb") as file:
        file.write(msgspec.msgpack.encode(result))
    os.rename(path + ".new", path)
    os._exit(1 if result.error else 0)


def _prepare(session_dir: str, name: bytes) -> PreparedEnvironment:
    environment = decode(name)
    return PreparedEnvironment(
        name,
        environment.env_vars,
        unpack(session_dir, environment.working_dir) if environment.working_dir else "",
        [unpack(session_dir, package_id) for package_id in environment.py_modules],
        virtual_environments.ensure(environment.installation)
        if environment.installation is not None
        else "",
    )


def unpack(session_dir: str, package_id: str) -> str:
    """Return the session's copy of a package; make it if there is none.

    Raises:
        BuildError: the package is damaged.
        OSError: it cannot be unpacked.
    """
    target = os.path.join(session_dir, "packages", package_id)
    if os.path.isdir(target):
        return target
    os.makedirs(os.path.dirname(target), exist_ok=True)
    source = package_path(package_id)
    fresh = f"{target}.{os.getpid()}"
    with open(source, "rb") as file:
        if digest(file) != package_id:
            os.unlink(source)
            raise BuildError(f"{source} was damaged and is removed; the next session brings it")
        with zipfile.ZipFile(file) as archive:
            os.mkdir(fresh)
            _extract(archive, fresh)
    try:
        os.rename(fresh, target)
    except OSError:
        # Another builder was faster.
        shutil.rmtree(fresh)
    return target


def _extract(archive: zipfile.ZipFile, target: str) -> None:
    is_wheel = any(name.endswith(".dist-info/WHEEL") for name in archive.namelist())
    for entry in archive.infolist():
        name = entry.filename
        if is_wheel and ".data/" in name:
            kind, _, rest = name.partition(".data/")[2].partition("/")
            if kind not in _WHEEL_MODULES:
                continue
            name = rest
        if not name or name.startswith("/") or ".." in name.split("/"):
            continue
        path = os.path.join(target, *name.split("/"))
        if entry.is_dir():
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with archive.open(entry) as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file)
        if entry.external_attr >> 16 & stat.S_IXUSR:
            os.chmod(path, 0o755)
