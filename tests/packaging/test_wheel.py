"""The wheel builds, and works in an empty environment with the core dependencies alone."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The first test sets up the environment: pip builds and downloads.
pytestmark = pytest.mark.timeout(300)

PROGRAM = """
import importlib.util

import skate

for extra in ("matplotlib", "numpy", "optuna", "pandas", "sklearn", "xgboost"):
    assert importlib.util.find_spec(extra) is None, extra


@skate.remote
def double(x):
    return 2 * x


@skate.remote
class Counter:
    def __init__(self):
        self.value = 0

    def inc(self):
        self.value += 1
        return self.value


skate.init(num_cpus=2)
assert skate.get([double.remote(i) for i in range(100)]) == list(range(0, 200, 2))
counter = Counter.remote()
assert skate.get([counter.inc.remote() for _ in range(3)]) == [1, 2, 3]
# Beyond the size that travels in messages: shared memory without numpy.
assert skate.get(double.remote("a" * 1_000_000)) == "a" * 2_000_000
skate.shutdown()
print("works")
"""


def python(interpreter: Path | str, *arguments: str, cwd: Path) -> str:
    """Run Python and return what it printed; fail with both streams."""
    done = subprocess.run(
        [str(interpreter), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    options = ["--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
    python(sys.executable, "-m", "pip", "wheel", *options, str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def interpreter(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and the pinned core dependencies into an environment of its own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    installed = folder / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    python(installed, "-m", "pip", "install", "-c", constraints, str(wheel), cwd=folder)
    return installed


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "skate",
        next(name.split("/")[0] for name in names if ".dist-info/" in name),
    }
    assert "skate/py.typed" in names
    assert "skate/cli/__init__.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    packaged = {name for name in names if name.endswith(".py")}
    assert packaged == {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")
    }


def test_core_works_with_the_core_dependencies_alone(interpreter: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    assert python(interpreter, str(script), cwd=tmp_path).splitlines()[-1] == "works"


def test_missing_extras_are_named(interpreter: Path, tmp_path: Path) -> None:
    code = "from skate.xgboost import RayDMatrix, train; train({}, RayDMatrix([[1.0]], [1.0]))"
    done = subprocess.run(
        [str(interpreter), "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "skate[xgboost]" in done.stderr


def test_command_says_its_version(interpreter: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(interpreter.parent / "skate"), "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    version = python(interpreter, "-c", "import skate; print(skate.__version__)", cwd=tmp_path)
    assert done.stdout.startswith(f"skate {version.strip()} ")


def test_pip_finds_nothing_to_complain_about(interpreter: Path, tmp_path: Path) -> None:
    assert "No broken requirements" in python(interpreter, "-m", "pip", "check", cwd=tmp_path)
