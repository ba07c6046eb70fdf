"""Values and names that cannot be shown: no run ends over them, and no look at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click.testing
import pytest

from skate import tune
from skate.cli import main
from skate.tune.error import describe
from skate.tune.readable import as_json, printable, text_of

pytestmark = pytest.mark.usefixtures("inline")

#: Half of a pair: it is in names of files that are no text, and UTF-8 has nothing for it.
LONE = "\ud800"


class Shy:
    """Nobody may look at it."""

    def __repr__(self) -> str:
        raise RuntimeError("do not look")

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shy)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError("do not ask")


class ShyError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("do not look")


def report_shy(config: dict[str, Any]) -> None:
    for step in range(3):
        tune.report({"loss": step, "shy": Shy(), "deep": {"shy": [Shy()]}, "keyed": {Shy(): 1}})


def test_text_in_the_place_of_what_raises() -> None:
    assert text_of(Shy()) == "<Shy: its str raises RuntimeError>"
    assert json.loads(as_json({"a": Shy()})) == {"a": "<Shy: its repr raises RuntimeError>"}
    assert json.loads(as_json({(1, 2): [Shy()]})) == {
        "(1, 2)": ["<Shy: its repr raises RuntimeError>"]
    }
    assert describe(ShyError()) == "ShyError: <ShyError: its str raises RuntimeError>"
    assert printable(f"a{LONE}") == "a\\ud800"


@pytest.mark.parametrize("verbose", [0, 1])
def test_what_cannot_be_shown_is_configured_and_reported(tmp_path: Path, verbose: int) -> None:
    analysis = tune.run(
        report_shy,
        name="shy",
        config={"shy": tune.choice([Shy()]), "constant": Shy(), "x": tune.grid_search([1, 2])},
        metric="loss",
        mode="min",
        storage_path=tmp_path,
        verbose=verbose,
    )
    assert [trial.iterations for trial in analysis.trials] == [3, 3]
    folder = Path(analysis.trials[0].path or "")
    assert "its repr raises RuntimeError" in (folder / "params.json").read_text()
    assert (folder / "progress.csv").read_text().count("<Shy: its str raises RuntimeError>") >= 3
    analysis.save_report(tmp_path / "page.html")
    assert "<Shy: its str raises" not in (tmp_path / "page.html").read_text()  # escaped
    restored = tune.Tuner.restore(tmp_path / "shy", report_shy).fit()
    assert len(restored) == 2


def test_an_error_that_cannot_be_shown_fails_its_trial_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: dict[str, Any]) -> None:
        if config["x"]:
            raise ShyError
        tune.report(loss=1)

    analysis = tune.run(
        fail,
        config={"x": tune.grid_search([True, False])},
        raise_on_failed_trial=False,
        storage_path=tmp_path,
    )
    assert sorted(trial.status for trial in analysis.trials) == ["ERROR", "TERMINATED"]
    assert "ShyError" in capsys.readouterr().out


def test_what_is_no_character_is_escaped(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report({"loss": config["x"], f"name{LONE}": LONE, "said": LONE})

    with (tmp_path / "out").open("w", encoding="utf-8") as out, pytest.MonkeyPatch.context() as m:
        m.setattr("sys.stdout", out)  # strict, as that of a program is
        analysis = tune.run(
            train,
            name="lone",
            config={f"key{LONE}": tune.choice([LONE]), "x": tune.grid_search([1, 2])},
            metric="loss",
            mode="min",
            storage_path=tmp_path,
        )
    assert "\\ud800" in (tmp_path / "out").read_text()
    analysis.save_report(tmp_path / "page.html")
    for command in (["show"], ["show", "--json"], ["export"], ["export", "--reports"]):
        shown = skate_tune(*command, str(tmp_path / "lone"))
        assert "\\ud800" in shown
    for name in ("all.csv", "all.json", "page.html"):
        skate_tune("export", str(tmp_path / "lone"), "-o", str(tmp_path / name))
        assert "ud800" in (tmp_path / name).read_text(encoding="utf-8")


def skate_tune(*arguments: str) -> str:
    result = click.testing.CliRunner().invoke(main, ["tune", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
