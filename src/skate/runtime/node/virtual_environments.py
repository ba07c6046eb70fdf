"""Virtual environments for ``pip`` and ``uv``: made once per set of requirements, then shared.

An environment stands on the one that the driver runs in: what is there and fits is not installed
again (``uv`` does not look there and installs everything).  It lies in the cache, see ``cache``,
under a key of everything that decides what is in it.
"""

from __future__ import annotations

import collections
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import msgspec

from skate.runtime.node import cache
from skate.runtime.node.causes import describe_status
from skate.runtime.node.enter import BASE_FILE, site_packages
from skate.runtime.wire.environments import Installation

#: How often to look whether somebody else has finished building, in seconds.
POLL_SECONDS = 0.05
#: How much of an installer's output an error shows, in lines.
SHOWN_LINES = 200
#: Variables by which an installer would install elsewhere.
_MISLEADING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PYTHONHOME", "PYTHONPATH")


class BuildError(Exception):
    """An environment cannot be prepared; the text is for the user."""


def ensure(installation: Installation) -> str:
    """Return the path of the virtual environment for these requirements; build it if need be.

    Waits while another process builds the same.

    Raises:
        BuildError: the installer failed; the message has its output.
        OSError: the cache cannot be used.
    """
    path = os.path.join(cache.directory("environments"), key(installation))
    lock_path = cache.lock_of(path)
    while True:
        # Shared first: those who use it hold such a lock for long.
        lock = cache.try_lock(lock_path, fcntl.LOCK_SH)
        if lock is not None:
            if cache.is_complete(path):
                os.utime(lock_path)
                os.close(lock)
                return path
            os.close(lock)
        lock = cache.try_lock(lock_path, fcntl.LOCK_EX)
        if lock is not None:
            break
        time.sleep(POLL_SECONDS)
    try:
        if not cache.is_complete(path):
            # What is there was interrupted.
            cache.discard(path)
            cache.collect_environments()
            try:
                _build(path, installation)
            except BaseException:
                cache.discard(path)
                raise
        os.utime(lock_path)
    finally:
        os.close(lock)
    return path


def key(installation: Installation) -> str:
    """Return the name of the environment of these requirements for this interpreter."""
    facts = [
        msgspec.to_builtins(installation),
        sys.version,
        sys.prefix,
        [[base, _distributions(base)] for base in base_directories()],
    ]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def base_directories() -> list[str]:
    """Return where the driver has its packages."""
    return [
        path
        for path in sys.path
        if os.path.basename(path) in ("site-packages", "dist-packages") and os.path.isdir(path)
    ]


def _distributions(directory: str) -> list[str]:
    return sorted(n for n in os.listdir(directory) if n.endswith((".dist-info", ".egg-info")))


def _build(path: str, installation: Installation) -> None:
    import venv

    print(f"building {path} for {', '.join(installation.requirements)}", flush=True)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(path)
    packages = site_packages(path)
    with open(os.path.join(packages, BASE_FILE), "w", encoding="utf-8") as file:
        for base in base_directories():
            file.write(f"import site; site.addsitedir({base!r})\n")
    requirements = os.path.join(path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in installation.requirements)
    if installation.installer == "uv":
        _install_with_uv(path, requirements, installation)
    else:
        _install_with_pip(path, requirements, installation)
    cache.mark_complete(path, {"requirements": installation.requirements})


def _install_with_pip(path: str, requirements: str, installation: Installation) -> None:
    _provide_pip(path)
    if installation.version:
        _pip(path, ["install", *installation.options, f"pip{installation.version}"])
    _pip(path, ["install", *installation.options, "-r", requirements])
    if installation.check:
        _pip(path, ["check"])


def _install_with_uv(path: str, requirements: str, installation: Installation) -> None:
    uv = "" if installation.version else _find_uv()
    if not uv:
        _provide_pip(path)
        _pip(path, ["install", *installation.options, f"uv{installation.version}"])
        uv = os.path.join(path, "bin", "uv")
    python = ["--python", _python(path)]
    _run([uv, "pip", "install", *python, *installation.options, "-r", requirements], "uv")
    if installation.check:
        _run([uv, "pip", "check", *python], "uv")


def _find_uv() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    return shutil.which("uv") or (beside if os.path.exists(beside) else "")


def _python(path: str) -> str:
    return os.path.join(path, "bin", "python")


def _provide_pip(path: str) -> None:
    """Have ``python -m pip`` work in the environment: the driver's pip, or else Python's own."""
    if any(os.path.isdir(os.path.join(base, "pip")) for base in base_directories()):
        return
    _run([_python(path), "-m", "ensurepip", "--default-pip"], "ensurepip")


def _pip(path: str, arguments: list[str]) -> None:
    common = ["--disable-pip-version-check", "--no-input"]
    _run([_python(path), "-m", "pip", arguments[0], *common, *arguments[1:]], "pip")


def _run(command: list[str], name: str) -> None:
    """Run an installer; what it says goes to our output, and into the error if it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in _MISLEADING}
    print("+", *command, flush=True)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="backslashreplace",
    )
    assert process.stdout is not None
    tail: collections.deque[str] = collections.deque(maxlen=SHOWN_LINES)
    for line in process.stdout:
        tail.append(line)
        print(line, end="", flush=True)
    code = process.wait()
    if code:
        # Popen has a negative signal number where the kernel has a status of its own.
        cause = describe_status(-code if code < 0 else code << 8)
        raise BuildError(f"{name} {cause}; the output of {' '.join(command)}:\n{''.join(tail)}")
