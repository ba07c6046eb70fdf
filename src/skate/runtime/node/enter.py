"""How a worker enters its runtime environment, after the fork and before any user code.

A fork of the zygote has everything imported, and an environment may want some of that to be
different: a package in another version, or a variable that only counts when a process starts.  Such
a worker begins anew in the same process, as a fresh interpreter; all others just go on.
"""

from __future__ import annotations

import marshal
import os
import re
import site
import sys
from typing import BinaryIO, NoReturn

import msgspec

from skate.runtime.node import processes
from skate.runtime.worker.config import PreparedEnvironment, WorkerConfig

#: Variables with these beginnings are read once, by the dynamic linker, the C library or Python.
EARLY = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_", "LC_")
#: The same for whole names.
EARLY_NAMES = ("LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "HOME")
#: The file by which a virtual environment sees the one that it stands on.
BASE_FILE = "skate-base.pth"

#: What a fresh interpreter runs.  ``skate`` is the driver's, whatever the environment has.
_BOOTSTRAP = (
    "import sys, marshal; f = open(sys.argv[2], 'rb'); driver, environment = marshal.load(f); "
    "sys.path[:] = driver; import skate; sys.path[:] = environment; "
    "from skate.runtime.node.enter import go_on; go_on(f)"
)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Imported with the interpreter, by files in its site-packages.
_BY_SITE = ("_distutils_hack", "_virtualenv", "sitecustomize", "usercustomize")


def enter(config: WorkerConfig, worker_module: str, preloaded: bool) -> None:
    """Make this fork of the zygote a process of the environment, or replace it by a fresh one.

    ``preloaded``: modules of the user were imported before the fork.
    """
    environment = config.environment
    assert environment is not None
    variables = expand(environment.env_vars, os.environ)
    variables.update(_of_virtual_environment(environment.virtual_environment))
    if _begins_anew(environment, preloaded):
        _begin_anew(config, environment, worker_module, variables)
    os.environ.update(variables)
    sys.path[:] = search_path(environment, sys.path)
    _settle(environment)


def expand(variables: dict[str, str], known: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Replace ``${NAME}`` in values by what is known of that name."""

    def known_value(match: re.Match[str]) -> str:
        return known.get(match[1], "")

    return {name: _REFERENCE.sub(known_value, text) for name, text in variables.items()}


def search_path(environment: PreparedEnvironment, base: list[str]) -> list[str]:
    """Return where modules are searched in the environment."""
    first = [*environment.sys_path]
    if environment.working_dir:
        first.insert(0, environment.working_dir)
    packages = site_packages(environment.virtual_environment)
    if packages:
        first.append(packages)
        first += _named_by_files(packages, [*first, *base])
    return first + [entry for entry in base if entry not in first]


def site_packages(virtual_environment: str) -> str:
    """Return where a virtual environment has its packages; "" for none."""
    if not virtual_environment:
        return ""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return os.path.join(virtual_environment, "lib", version, "site-packages")


def _named_by_files(directory: str, known: list[str]) -> list[str]:
    """Return the directories that ``.pth`` files name, those of editable installations."""
    added: list[str] = []
    before = sys.path
    try:
        for name in sorted(os.listdir(directory)):
            if name.endswith(".pth") and name != BASE_FILE:
                sys.path = [directory, *known, *added]
                count = len(sys.path)
                site.addpackage(directory, name, set(sys.path))
                added += sys.path[count:]
    finally:
        sys.path = before
    return added


def _of_virtual_environment(path: str) -> dict[str, str]:
    """Return the variables by which programs that a task starts find the environment."""
    if not path:
        return {}
    return {
        "VIRTUAL_ENV": path,
        "PATH": os.pathsep.join([os.path.join(path, "bin"), os.environ.get("PATH", os.defpath)]),
    }


def _begins_anew(environment: PreparedEnvironment, preloaded: bool) -> bool:
    """Whether something that this process has already done would have to be different."""
    variables = environment.env_vars
    # Libraries read variables when they are imported.
    if variables and preloaded:
        return True
    if any(name.startswith(EARLY) or name in EARLY_NAMES for name in variables):
        return True
    imported = {name.partition(".")[0] for name in sys.modules}
    imported -= {*sys.stdlib_module_names, *_BY_SITE, "skate", "__main__"}
    packages = site_packages(environment.virtual_environment)
    for directory in (environment.working_dir, *environment.sys_path, packages):
        if directory and not imported.isdisjoint(_modules_in(directory)):
            return True
    return False


def _modules_in(directory: str) -> set[str]:
    return {name.partition(".")[0] for name in os.listdir(directory)}


def _begin_anew(
    config: WorkerConfig,
    environment: PreparedEnvironment,
    worker_module: str,
    variables: dict[str, str],
) -> NoReturn:
    path = os.path.join(config.session_dir, f"{config.worker_id.hex()}.start")
    with open(path, "xb") as file:
        marshal.dump((list(sys.path), search_path(environment, sys.path)), file)
        file.write(msgspec.msgpack.encode((worker_module, config)))
    executable = _executable(environment) or sys.executable
    # The session's directory, as in all processes of a session, is for those who look at ``ps``.
    arguments = [executable, "-c", _BOOTSTRAP, config.session_dir, path]
    os.execve(executable, arguments, {**os.environ, **variables})


def _executable(environment: PreparedEnvironment) -> str:
    home = environment.virtual_environment
    return os.path.join(home, "bin", "python") if home else ""


def go_on(file: BinaryIO) -> NoReturn:
    """Be a worker, in the fresh interpreter."""
    import importlib

    with file:
        worker_module, config = msgspec.msgpack.decode(file.read(), type=tuple[str, WorkerConfig])
    os.unlink(file.name)
    processes.set_name("skate-worker")
    assert config.environment is not None
    _settle(config.environment)
    importlib.import_module(worker_module).main(config)
    os._exit(0)


def _settle(environment: PreparedEnvironment) -> None:
    """Do what is the same in forks and in fresh interpreters."""
    sys.argv = [""]
    executable = _executable(environment)
    if executable:
        # What starts further interpreters (multiprocessing, subprocess) starts them in here.
        sys.executable = executable
        sys.prefix = sys.exec_prefix = environment.virtual_environment
    if environment.working_dir:
        os.chdir(environment.working_dir)
    sys.path_importer_cache.clear()
