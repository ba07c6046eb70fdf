"""Learning curves as data, as a picture and in a page."""

from __future__ import annotations

import math
import re
import struct
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.curves import learning_curves, value_limits
from skate.tune.schedulers import ASHAScheduler

pytestmark = pytest.mark.usefixtures("inline")


def train(config: dict[str, Any]) -> None:
    for step in range(1, 10):
        if config["x"] == 4 and step == 3:
            raise ValueError("<b>four</b>")
        loss = math.nan if config["x"] == 5 else config["x"] + 1 / step
        tune.report(loss=loss, step=step)


@pytest.fixture(scope="module")
def analysis(inline: None, tmp_path_factory: pytest.TempPathFactory) -> tune.ExperimentAnalysis:
    return tune.run(
        train,
        name="a <run>",
        config={"x": tune.grid_search([1, 3, 0, 4, 5, 2])},
        scheduler=ASHAScheduler(max_t=9, grace_period=4),
        max_concurrent_trials=1,
        metric="loss",
        mode="min",
        raise_on_failed_trial=False,
        verbose=0,
        storage_path=tmp_path_factory.mktemp("results"),
    )


def test_curves_by_what_became_of_them(analysis: tune.ExperimentAnalysis) -> None:
    data = learning_curves(analysis.experiment)
    assert (data.metric, data.mode) == ("loss", "min")
    kinds = {curve.trial.config["x"]: curve.kind for curve in data.curves}
    assert kinds == {0: "best", 1: "completed", 2: "stopped", 3: "stopped", 4: "failed"}
    best = data.of("best")[0]
    assert best.iterations == list(range(1, 10))
    assert best.values == pytest.approx([1 / step for step in range(1, 10)])


def test_a_picture(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / "curves.png"
    tune.save_learning_curves(analysis, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1350, 810)


def test_what_the_picture_says(analysis: tune.ExperimentAnalysis) -> None:
    pytest.importorskip("matplotlib")
    from skate.tune.plots import draw

    figure = draw(learning_curves(analysis.experiment), "title")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "loss (lower is better)"
    assert axes.get_xlabel() == "training iteration"
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["failed (1)", "stopped early (2)", "ran to its end (1)", "best: 0.1111 (x=0)"]


def test_another_metric(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    analysis.save_learning_curves(str(tmp_path / "step.svg"), "step")
    assert "<svg" in (tmp_path / "step.svg").read_text()
    with pytest.raises(tune.MetricError, match="no trial reported 'acc'"):
        analysis.save_learning_curves(str(tmp_path / "acc.png"), "acc")


def test_diverging_trials_do_not_flatten_the_others() -> None:
    from skate.tune.curves import Curve

    trial = tune.Trial("t", {}, {})
    calm = [
        Curve(trial, [1.0, 2.0], [0.5 + i / 100, 0.4 + i / 100], "completed") for i in range(20)
    ]
    assert value_limits(calm) is None
    wild = Curve(trial, [1.0, 2.0], [1.0, 1e9], "stopped")
    limits = value_limits([*calm, wild])
    assert limits is not None
    assert limits[0] < 0.4
    assert 0.7 < limits[1] < 3


class Checker(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.rows += tag == "tr"
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href")
        ]


def test_a_page_that_needs_nothing_else(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "report.html"
    tune.save_report(analysis, path)
    text = path.read_text()
    checker = Checker()
    checker.feed(text)
    assert all(link.startswith(("#", "data:")) for link in checker.links)
    assert not re.search(r"url\(['\"]?https?:", text)
    assert "svg" in checker.tags
    assert "script" not in checker.tags
    assert checker.rows == 1 + 1 + 1 + 6  # best configuration and all trials, with headers
    assert "a &lt;run&gt;" in text
    assert "&lt;b&gt;four&lt;/b&gt;" in text
    assert "<b>four" not in text
    assert "0.1111" in text
    assert "stopped early" in text


def test_a_page_about_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    grid = tune.Tuner(lambda config: None, run_config=tune.RunConfig(verbose=0)).fit()
    grid.save_report(str(tmp_path / "report.html"))
    assert "No trial reported" in (tmp_path / "report.html").read_text()


def test_matplotlib_is_not_installed(
    analysis: tune.ExperimentAnalysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'skate\[tune\]'"):
        tune.save_learning_curves(analysis, tmp_path / "x.png")


def test_pandas_is_not_installed(
    analysis: tune.ExperimentAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'skate\[tune\]'"):
        analysis.dataframe()
