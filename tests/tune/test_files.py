"""The folder of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from skate.tune.files import FLUSH_S, ResultFiles, read_lines
from skate.tune.trial import Trial


class Harness:
    def __init__(self, folder: Path) -> None:
        self.files = ResultFiles(folder)
        self.files.setup()
        self.trial = Trial("t1", {"x": 1, "f": print, "p": Path("/a")}, {"x": 1})
        self.folder = folder / "t1"
        self.start()

    def start(self) -> None:
        self.files.on_trial_start(0, [], self.trial)

    def report(self, **metrics: Any) -> None:
        self.files.on_trial_result(0, [], self.trial, {"trial_id": "t1", "config": {}, **metrics})

    def tick(self, now: float) -> None:
        self.files.on_step_end(0, [], now=now)

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "result.json"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def table(self) -> list[dict[str, str]]:
        with open(self.folder / "progress.csv", newline="") as file:
            return list(csv.DictReader(file))


def test_reports_are_written_in_bunches(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.tick(100.0)
    harness.report(loss=1.0)
    harness.tick(100.0 + FLUSH_S / 2)
    assert harness.lines() == []
    harness.report(loss=0.5)
    harness.tick(100.0 + FLUSH_S)
    assert [line["loss"] for line in harness.lines()] == [1.0, 0.5]
    harness.report(loss=0.25)
    harness.files.on_trial_complete(0, [], harness.trial)
    assert [row["loss"] for row in harness.table()] == ["1.0", "0.5", "0.25"]
    assert "config" not in harness.lines()[0]


def test_much_is_written_at_once(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    for _ in range(80):
        harness.report(text="x" * 1000)
    assert len(harness.lines()) > 50


def test_a_metric_that_appears_later_gets_a_column(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.report(loss=1.0)
    harness.tick(FLUSH_S)
    harness.report(loss=0.5, valid={"acc": 0.9})
    harness.tick(2 * FLUSH_S)
    harness.report(loss=0.25)
    harness.files.on_experiment_end([])
    rows = harness.table()
    assert [row["loss"] for row in rows] == ["1.0", "0.5", "0.25"]
    assert [row["valid/acc"] for row in rows] == ["", "0.9", ""]


def test_what_json_has_no_word_for(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    params = json.loads((harness.folder / "params.json").read_text())
    assert params["x"] == 1
    assert "print" in params["f"]
    harness.report(loss=float("nan"), where=Path("/a"), missing=None)
    harness.files.on_experiment_end([])
    assert harness.lines()[0]["missing"] is None


def test_a_trial_that_starts_again_has_fresh_files(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.report(loss=1.0)
    harness.trial.error = ValueError("the reason")
    harness.files.on_trial_error(0, [], harness.trial)
    assert "the reason" in (harness.folder / "error.txt").read_text()
    harness.trial.failures = 1
    harness.start()
    assert harness.lines() == []
    assert not (harness.folder / "error.txt").exists()
    harness.report(loss=0.5)
    harness.files.on_trial_complete(0, [], harness.trial)
    assert [line["loss"] for line in harness.lines()] == [0.5]


class Tensor:
    """Its ``size`` is a method, as that of tensors of PyTorch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def size(self) -> tuple[int]:
        return (self.count,)

    def numel(self) -> int:
        return self.count

    def tolist(self) -> list[int]:
        return [0] * self.count

    def __repr__(self) -> str:
        return "tensor(...)"


def test_whatever_is_reported_and_configured_is_written(tmp_path: Path) -> None:
    """None of this ends a run, which it did."""
    holds_itself: list[Any] = []
    holds_itself.append(holds_itself)
    given = {
        "pairs": {(0, 1): 2.0},
        "classes": [{np.int64(3): 0.5, None: 1}],
        "tensor": Tensor(2),
        "large": Tensor(2000),
        "itself": holds_itself,
        "name\udc80": "path\udc80",
    }
    files = ResultFiles(tmp_path)
    files.setup()
    trial = Trial("t1", given, {})
    files.on_trial_start(0, [], trial)
    files.on_trial_result(0, [], trial, {"trial_id": "t1", "config": given, **given})
    trial.error = OSError("no such file: path\udc80, für uns")
    files.on_trial_error(0, [], trial)
    params = json.loads((tmp_path / "t1" / "params.json").read_text())
    (line,) = read_lines(tmp_path / "t1")
    for written in (params, line):
        assert written["pairs"] == {"(0, 1)": 2.0}
        assert written["classes"] == [{"3": 0.5, "null": 1}]
        assert written["tensor"] == [0, 0]
        assert written["large"] == "tensor(...)"
        assert written["name\udc80"] == "path\udc80"
    with open(tmp_path / "t1" / "progress.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["pairs/(0, 1)"] == "2.0"
    assert row["name\\udc80"] == "path\\udc80"
    error = (tmp_path / "t1" / "error.txt").read_text(encoding="utf-8")
    assert error.strip().endswith("no such file: path\\udc80, für uns")
