"""The caller's side of runtime environments: what a task inherits, what its options change.

A process runs in one environment, that of its worker; a driver has the one that ``init`` was given.
What a process submits inherits it: variables are merged name by name, other fields are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import structs

from skate.runtime.wire.environments import (
    PACKAGE_SCHEME,
    Environment,
    Installation,
    PrepareEnvironment,
    decode,
    encode,
)

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.packages import Packages


class _Options(Protocol):
    """What this module needs of the options of tasks and actors."""

    runtime_env: Mapping[str, Any] | None
    environment: Any


class Environments:
    """The environment of this process, and those that it gives to others."""

    def __init__(self, core: Core, inherited: bytes) -> None:
        self._core = core
        #: Of everything whose options do not say otherwise.
        self.inherited = inherited
        #: The environment decides about GPUs, whatever the scheduler has given.
        self.sets_devices = "CUDA_VISIBLE_DEVICES" in decode(inherited).env_vars
        self._packages: Packages | None = None

    def adopt(self, runtime_env: Mapping[str, Any] | None) -> None:
        """Driver: give this environment to everything that does not say otherwise.

        Raises:
            RuntimeEnvSetupError: its files cannot be packed.
        """
        if not runtime_env:
            return
        environment = self._resolve(Environment(), runtime_env)
        self.inherited = encode(environment)
        if self.inherited and runtime_env.get("config", {}).get("eager_install", True):
            with self._core.lock:
                self._core.links.send_node(PrepareEnvironment(self.inherited))

    def of(self, options: _Options) -> bytes:
        """Return the environment of what has these options; not with the lock held.

        Raises:
            RuntimeEnvSetupError: its files cannot be packed.
        """
        if not options.runtime_env:
            return self.inherited
        known = options.environment
        # Options outlive sessions, and packages do not.
        if known is not None and known[0] is self:
            data: bytes = known[1]
            return data
        data = encode(self._resolve(decode(self.inherited), options.runtime_env))
        options.environment = (self, data)
        return data

    def portable(self, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields with packages in the place of paths; not with the lock held."""
        portable = dict(runtime_env)
        excludes = portable.pop("excludes", [])
        if "working_dir" in portable:
            portable["working_dir"] = self._bring(portable["working_dir"], excludes, False)
        if "py_modules" in portable:
            portable["py_modules"] = [
                self._bring(path, excludes, True) for path in portable["py_modules"]
            ]
        return portable

    def _bring(self, path: str, excludes: list[str], as_module: bool) -> str:
        if self._packages is None:
            # What it needs (zip files) is for the few who use it.
            from skate.runtime.worker.packages import Packages

            self._packages = Packages(self._core)
        return PACKAGE_SCHEME + self._packages.bring(path, excludes, as_module)

    def _resolve(self, base: Environment, runtime_env: Mapping[str, Any]) -> Environment:
        """Merge checked fields into an environment."""
        fields = self.portable(runtime_env)
        changes: dict[str, Any] = {}
        if "env_vars" in fields:
            changes["env_vars"] = {**base.env_vars, **fields["env_vars"]}
        if "working_dir" in fields:
            changes["working_dir"] = fields["working_dir"].removeprefix(PACKAGE_SCHEME)
        if "py_modules" in fields:
            changes["py_modules"] = [
                name.removeprefix(PACKAGE_SCHEME) for name in fields["py_modules"]
            ]
        for installer in ("pip", "uv"):
            if installer in fields:
                changes["installation"] = _installation(installer, fields[installer])
        if "config" in fields:
            seconds = fields["config"]["setup_timeout_seconds"]
            changes["setup_timeout_seconds"] = float(max(seconds, 0))
        return structs.replace(base, **changes)


def _installation(installer: str, fields: Mapping[str, Any]) -> Installation | None:
    if not fields["packages"]:
        return None
    from skate.runtime.worker.packages import digest_of_files

    return Installation(
        installer,
        list(fields["packages"]),
        list(
            fields[
                f"{installer}_install_options" if installer == "pip" else "uv_pip_install_options"
            ]
        ),
        fields[f"{installer}_check"],
        fields[f"{installer}_version"],
        digest_of_files(fields["packages"]),
    )


def describe(data: bytes) -> dict[str, Any]:
    """Return the fields of an environment as users know them."""
    environment = decode(data)
    fields: dict[str, Any] = {}
    if environment.env_vars:
        fields["env_vars"] = dict(environment.env_vars)
    if environment.working_dir:
        fields["working_dir"] = PACKAGE_SCHEME + environment.working_dir
    if environment.py_modules:
        fields["py_modules"] = [PACKAGE_SCHEME + name for name in environment.py_modules]
    installation = environment.installation
    if installation is not None:
        installer = installation.installer
        options = "pip_install_options" if installer == "pip" else "uv_pip_install_options"
        fields[installer] = {
            "packages": list(installation.requirements),
            f"{installer}_check": installation.check,
            f"{installer}_version": installation.version,
            options: list(installation.options),
        }
    return fields
