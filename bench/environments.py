"""The environments that are compared: the built wheel, Ray and Dask, each in its own folder.

They lie under ``.bench/`` and are made once; a wheel that changed is installed again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".bench"
CONSTRAINTS = ROOT / "constraints.txt"
RAY_REQUIREMENTS = ROOT / "bench" / "requirements-ray.txt"
DASK_REQUIREMENTS = ROOT / "bench" / "requirements-dask.txt"


def build_wheel() -> Path:
    """Build the wheel of this checkout, with the tools of the calling environment."""
    target = FOLDER / "wheel"
    for old in target.glob("*.whl"):
        old.unlink()
    _pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", target, ROOT)
    return next(target.glob("*.whl"))


def skate_environment(python: str, wheel: Path) -> Path:
    """Return the interpreter of an environment with ``wheel`` and what its libraries need."""
    version = version_of(python)
    folder = FOLDER / f"skate-{version}"
    interpreter = _environment(python, folder, CONSTRAINTS.read_bytes())
    stamp = folder / ".wheel"
    # PyArrow for the Parquet files of one workload.
    requirements = [f"skate[tune,xgboost] @ {wheel.as_uri()}", "pyarrow"]
    content = hashlib.sha256(wheel.read_bytes() + repr(requirements).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != content:
        _pip(interpreter, "install", "-c", CONSTRAINTS, *requirements)
        _pip(interpreter, "install", "--no-deps", "--force-reinstall", wheel)
        stamp.write_text(content)
    return interpreter


def ray_environment(python: str) -> Path:
    """Return the interpreter of an environment with Ray, its Tune and XGBoost-Ray."""
    return _of_requirements(python, "ray", RAY_REQUIREMENTS)


def dask_environment(python: str) -> Path:
    """Return the interpreter of an environment with XGBoost and Dask."""
    return _of_requirements(python, "dask", DASK_REQUIREMENTS)


def version_of(python: str) -> str:
    """Return ``3.11`` and the like.

    Raises:
        OSError, subprocess.CalledProcessError: there is no such interpreter.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def find(version: str) -> str | None:
    """Return an interpreter for ``3.12`` (or a path), None if there is none that runs."""
    name = version if "python" in version else f"python{version}"
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in [name, *map(str, installed)]:
        try:
            version_of(python)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


def _of_requirements(python: str, name: str, requirements: Path) -> Path:
    folder = FOLDER / f"{name}-{version_of(python)}"
    interpreter = _environment(python, folder, requirements.read_bytes())
    stamp = folder / ".installed"
    if not stamp.exists():
        _pip(interpreter, "install", "-r", requirements)
        stamp.touch()
    return interpreter


def _environment(python: str, folder: Path, contents: bytes) -> Path:
    """Make ``folder`` a new virtual environment unless it was made for the same ``contents``."""
    interpreter = folder / "bin" / "python"
    stamp = folder / ".contents"
    wanted = hashlib.sha256(contents).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"bench: setting up {folder.relative_to(ROOT)} (once)")
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        stamp.write_text(wanted)
    return interpreter


def _pip(python: Path | str, *arguments: Path | str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, arguments)], check=True)
