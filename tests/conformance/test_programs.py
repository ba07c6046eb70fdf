"""Whole programs: scripts, pipes, the REPL, cells of a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.differs("cluster", reason="programs start sessions of their own")

PROGRAM = """
import skate as ray

FACTOR = 10

class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and self.x == other.x

class TooBig(Exception):
    pass

def helper(x):
    return x * FACTOR

@ray.remote
def double(point):
    if point.x > 100:
        raise TooBig(point.x)
    return Point(helper(point.x))

@ray.remote
class Counter:
    def __init__(self):
        self.points = []
    def add(self, point):
        self.points.append(point)
        return sum(p.x for p in self.points)
"""

USE = """
ray.init(num_cpus=2)
assert ray.get(double.remote(Point(2))) == Point(20)
counter = Counter.remote()
assert ray.get([counter.add.remote(double.remote(Point(i))) for i in range(4)]) == [0, 10, 30, 60]
try:
    ray.get(double.remote(Point(101)))
except TooBig as error:
    assert error.args == (101,), error
    assert isinstance(error, ray.exceptions.RayTaskError)
else:
    raise AssertionError("nothing raised")
print("all", "well")
"""


def run(
    engine: str, *command: str, text: str | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with this engine; return what it printed."""
    return subprocess.run(
        [sys.executable, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        env={**os.environ, "SKATE_ENGINE": engine},
    )


def assert_well(done: subprocess.CompletedProcess[str]) -> None:
    """Nothing but success: no warnings of threads, sockets or the interpreter's end either."""
    assert done.stdout.strip() == "all well", done.stdout + done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


def test_script(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + USE)
    assert_well(run(engine, str(path)))


def test_script_with_shutdown(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + USE + "ray.shutdown()\n")
    assert_well(run(engine, str(path)))


def test_script_with_a_main_guard(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    guarded = "if __name__ == '__main__':\n" + textwrap.indent(USE, "    ")
    path.write_text(PROGRAM + guarded)
    assert_well(run(engine, str(path)))


def test_module_of_the_script_is_imported_by_workers(engine: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROGRAM)
    path = tmp_path / "program.py"
    path.write_text("from mine import *\n" + USE)
    assert_well(run(engine, str(path)))


def test_program_from_the_command_line(engine: str) -> None:
    assert_well(run(engine, "-c", PROGRAM + USE))


def test_program_from_a_pipe(engine: str) -> None:
    assert_well(run(engine, "-", text=PROGRAM + USE))


def test_repl(engine: str, tmp_path: Path) -> None:
    # The REPL wants blank lines after blocks, and none inside them.
    lines = (PROGRAM + USE).replace("\n\n", "\n").replace("\nclass", "\n\nclass")
    lines = lines.replace("\n@", "\n\n@").replace("\ndef", "\n\ndef").replace("\nray", "\n\nray")
    lines = lines.replace("@ray.remote\n\n", "@ray.remote\n").replace("\nprint", "\n\nprint")
    done = run(engine, "-i", "-q", "-c", "import sys; sys.ps1 = sys.ps2 = ''", text=lines)
    assert "all well" in done.stdout, done.stderr
    assert "Error" not in done.stderr
    assert done.returncode == 0


def test_cells_of_a_notebook(engine: str) -> None:
    # A notebook executes each cell in one namespace, under a file name that does not exist.
    program = f"""
import __main__
for number, cell in enumerate([{PROGRAM!r}, {USE!r}]):
    exec(compile(cell, f"<ipython-input-{{number}}>", "exec"), __main__.__dict__)
"""
    assert_well(run(engine, "-c", program))


def test_program_that_raises_ends(engine: str) -> None:
    done = run(engine, "-c", PROGRAM + "x = double.remote(Point(1))\nraise SystemExit(7)\n")
    assert done.returncode == 7
    done = run(engine, "-c", PROGRAM + "x = double.remote(Point(1))\n1 / 0\n")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_uncaught_error_of_a_task_is_readable(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + "ray.init(num_cpus=1)\nray.get(double.remote(Point(101)))\n")
    done = run(engine, str(path))
    assert done.returncode == 1
    assert "raise TooBig(point.x)" in done.stderr
    assert "TaskError(TooBig)" in done.stderr
    assert "program.py" in done.stderr
    assert len(done.stderr.splitlines()) < 40, done.stderr


@pytest.mark.differs("inline", reason="it has no processes")
def test_child_made_by_fork_is_not_the_driver(engine: str) -> None:
    program = """
import multiprocessing
import skate

@skate.remote
def f(x):
    return x + 1

def child(queue):
    # A session of its own, not the parent's sockets.
    assert not skate.is_initialized()
    queue.put(skate.get(f.remote(1)))

if __name__ == "__main__":
    skate.init(num_cpus=1)
    assert skate.get(f.remote(1)) == 2
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=30) == 2
    process.join(timeout=30)
    assert process.exitcode == 0
    assert skate.get(f.remote(2)) == 3
    print("all well")
"""
    done = run(engine, "-W", "ignore::DeprecationWarning", "-c", program)
    assert_well(done)
