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
from sessions import at_hand

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
def analysis(tmp_path_factory: pytest.TempPathFactory) -> tune.ExperimentAnalysis:
    at_hand(num_cpus=2, engine="inline")
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


def test_all_pictures(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = analysis.save_plots(tmp_path / "new")
    # Five trials reported a number: too few to say what matters.
    assert [path.name for path in paths] == [
        "learning_curves.png",
        "ends.png",
        "parallel_coordinates.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def trial(number: int, params: dict[str, Any], loss: float) -> tune.Trial:
    made = tune.Trial(f"t_{number}", params, params)
    made.record({"training_iteration": 1, "loss": loss})
    made.status, made.stop_reason = tune.Trial.TERMINATED, "completed"
    return made


def many(count: int = 40) -> list[tune.Trial]:
    """Return trials whose loss follows from ``lr`` and a little from ``kind``, not from ``no``."""
    trials = []
    for at in range(count):
        # Without pattern, and without chance: the golden ratio spreads them.
        params: dict[str, Any] = {"lr": 10 ** -(1 + 4 * (at * 0.618 % 1)), "no": at * 0.414 % 1}
        params["kind"] = "ab"[at % 2]
        if at % 3:
            params["sometimes"] = at % 5
        loss = -math.log10(params["lr"]) + (0.2 if at % 2 else 0.0)
        trials.append(trial(at, params, loss if at else 1e12))
    return trials


@pytest.mark.parametrize("library", [True, False])
def test_what_matters(library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from skate.tune.importance import importances

    if library:
        pytest.importorskip("sklearn")
    else:
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    found = importances(many(), "loss", "min")
    assert found is not None
    assert math.fsum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == {"lr", "no", "kind", "sometimes"}
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.7
    assert ("forest" in found.method) == library


def test_too_little_to_say_what_matters() -> None:
    from skate.tune.importance import importances

    assert importances(many(5), "loss", "min") is None
    assert importances([trial(at, {"x": at}, 1.0) for at in range(9)], "loss", "min") is None
    assert importances([trial(at, {"x": 1}, at) for at in range(9)], "loss", "min") is None


def test_ranks() -> None:
    from skate.tune.importance import ranks

    assert ranks([3.0, 1.0, 3.0, 2.0]) == [2.5, 0.0, 2.5, 1.0]
    assert ranks([]) == []


def test_kinds_of_parameters() -> None:
    from skate.tune.importance import parameters

    known = {parameter.name: parameter for parameter in parameters(many())}
    assert known["lr"].logarithmic
    assert not known["no"].logarithmic
    assert known["kind"].categories() == ["a", "b"]
    assert known["kind"].places()[:3] == [0.0, 1.0, 0.0]
    assert math.isnan(known["sometimes"].places()[0])


def test_parallel_coordinates() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    from skate.tune.parameter_plots import draw_parallel

    figure = figures.Figure()
    assert draw_parallel(figure, many(), "loss", "min", "title", None)
    axes = figure.axes[0]
    titles = [label.get_text() for label in axes.get_xticklabels()]
    assert titles == ["lr\n(log)", "no", "kind", "sometimes", "loss"]
    lines = axes.collections[0].get_segments()
    assert len(lines) == 40
    # The one that diverged does not press all others together.
    assert sum(line[-1][1] > 0.2 for line in lines) > 10
    assert not draw_parallel(figures.Figure(), many(1), "loss", "min", "title", None)


def test_where_trials_ended(analysis: tune.ExperimentAnalysis) -> None:
    pytest.importorskip("matplotlib")
    from skate.tune.plots import draw_ends

    axes = draw_ends(learning_curves(analysis.experiment), "title").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "9"]
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["ran to its end (2)", "stopped early (2)", "failed (1)"]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "2"]
