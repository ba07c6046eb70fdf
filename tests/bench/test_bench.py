"""The benchmark reads its own figures correctly, and cleans up after what it runs."""

from __future__ import annotations

import ast
import json
import os
import select
import sys
from pathlib import Path

import pytest

from bench import report, runner
from bench.catalogue import WORKLOADS, Wanted, Workload, selected
from bench.report import Row


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_is_a_function_of_its_script(workload: Workload) -> None:
    tree = ast.parse((runner.WORKLOADS / workload.script).read_text())
    assert workload.function in {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("wanted", "more_is_better", "good", "bad"),
    [
        (Wanted("at most", 2.0), False, 2.0, 2.1),
        (Wanted("at least", 2.0), True, 2.0, 1.9),
        (Wanted("times Ray", 3.0), True, 30.0, 29.0),
        (Wanted("times Ray", 2.0), False, 5.0, 5.1),
        (Wanted("of plain", 0.5), True, 50.0, 49.0),
        (Wanted("times plain", 1.5), False, 150.0, 151.0),
        (Wanted("times plain", 1.5, plus=10.0), False, 160.0, 161.0),
    ],
)
def test_goals(wanted: Wanted, more_is_better: bool, good: float, bad: float) -> None:
    workload = Workload("a.b", "", "", wanted, more_is_better)
    assert workload.met(good, ray=10.0, plain=100.0) is True
    assert workload.met(bad, ray=10.0, plain=100.0) is False
    assert workload.met(None, ray=10.0, plain=100.0) is None


def test_a_goal_against_something_that_was_not_measured_is_open() -> None:
    for wanted in (Wanted("times Ray", 3.0), Wanted("times plain", 1.5)):
        assert Workload("a.b", "", "", wanted).met(30.0, ray=None, plain=None) is None


def test_ratio_says_how_many_times_better_skate_is() -> None:
    rate = Workload("a.b", "", "/s", Wanted("times Ray", 1), more_is_better=True)
    time = Workload("a.b", "", "s", Wanted("at most", 1))
    assert rate.ratio(20.0, 10.0) == 2.0
    assert time.ratio(5.0, 10.0) == 2.0
    assert time.ratio(None, 10.0) is None


def test_selection_by_name() -> None:
    assert {w.name for w in selected("tasks_at_once,shutdown")} == {
        "calls.tasks_at_once",
        "session.shutdown",
    }
    assert selected("") == WORKLOADS
    with pytest.raises(ValueError, match=r"calls\.tasks_at_once"):
        selected("nonsense")


def test_readme_gets_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "LATEST", tmp_path / "results" / "latest.json")
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    (start,) = selected("session.start,")[:1]
    report.save([Row(start, samples={"skate": [0.3, 0.1, 0.2], "ray": [2.0]})], {"Python": "3"})
    report.write_readme()
    text = readme.read_text()
    assert f"| {start.title} | 0.20 s | 2.00 s | 10.0x |" in text
    assert "old" not in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert json.loads(report.LATEST.read_text())["rows"][0]["met"] is True


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a script of the test's own in the place of the workloads."""
    monkeypatch.setattr(runner, "WORKLOADS", tmp_path)
    monkeypatch.setattr(runner, "GRACE", 0.5)
    return tmp_path / "own.py"


OWN = Workload("own.work", "", "s", Wanted("at most", 1), timeout=20.0)


def test_a_figure_is_read_among_other_output(script: Path) -> None:
    script.write_text("""print("noise"); print('{"figure": 1.5}'); print("a late log line")""")
    assert runner.run(OWN, "skate", Path(sys.executable)) == runner.Outcome(1.5)


def test_a_workload_that_fails_says_why(script: Path) -> None:
    script.write_text("""print('{"figure": 1.5}'); raise SystemExit("wrong result")""")
    outcome = runner.run(OWN, "skate", Path(sys.executable))
    assert outcome.figure is None
    assert "wrong result" in outcome.error


def test_a_workload_that_hangs_is_given_up(script: Path) -> None:
    script.write_text("import time; time.sleep(60)")
    hanging = Workload("own.work", "", "s", Wanted("at most", 1), timeout=0.5)
    outcome = runner.run(hanging, "skate", Path(sys.executable))
    assert outcome.figure is None
    assert "no result after" in outcome.error


def test_what_is_left_behind_is_counted_and_ended(script: Path) -> None:
    pid_file = script.parent / "pid"
    script.write_text(f"""
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
)
open({str(pid_file)!r}, "w").write(str(child.pid))
print('{{"figure": 1.5}}')
""")
    outcome = runner.run(OWN, "skate", Path(sys.executable))
    assert outcome.left_behind == 1
    try:
        descriptor = os.pidfd_open(int(pid_file.read_text()))
    except ProcessLookupError:
        return
    # Readable means that the process has ended.
    assert select.select([descriptor], [], [], 10)[0]
    os.close(descriptor)
