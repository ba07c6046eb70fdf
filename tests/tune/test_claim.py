"""Two runs and one folder."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune import execute
from skate.tune.claim import LOG_FILE, claim, claim_new
from skate.tune.storage import open_storage


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """Call a function from several threads at the same time; return what came of it."""
    barrier, found = threading.Barrier(count), []

    def work() -> None:
        barrier.wait(30)
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == count
    return found


def test_folders_that_are_made_at_once_are_different_ones(tmp_path: Path) -> None:
    claims = at_once(8, lambda: claim_new(tmp_path / "all", "train"))
    names = sorted(each.path.name for each in claims)
    assert names == ["train", *(f"train_{number}" for number in range(1, 8))]
    for each in claims:
        each.__exit__()


def test_of_those_who_name_the_same_folder_one_gets_it(tmp_path: Path) -> None:
    found = at_once(8, lambda: claim(tmp_path, "train"))
    refused = [each for each in found if isinstance(each, tune.TuneError)]
    assert len(refused) == 7
    assert re.fullmatch(r"another run goes on in .*train; give .*", str(refused[0]))
    (won,) = (each for each in found if each not in refused)
    won.__exit__()
    with claim(tmp_path, "train"), pytest.raises(tune.TuneError, match="another run goes on"):
        claim(tmp_path, "train")


def test_who_asks_whether_a_run_goes_on_keeps_none_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(tmp_path, "run"):
        pass
    reader = os.open(tmp_path / "run" / LOG_FILE, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    whole = fcntl.flock
    tried = []

    def lock(descriptor: int, how: int) -> None:
        tried.append(how)
        if len(tried) == 4:
            whole(reader, fcntl.LOCK_UN)  # it has seen what it wanted to
        whole(descriptor, how)

    monkeypatch.setattr("fcntl.flock", lock)
    with claim(tmp_path, "run"):
        assert len(tried) >= 4
    os.close(reader)


def test_a_log_is_fetched_without_losing_the_claim(tmp_path: Path) -> None:
    storage = open_storage("memory://claimed/run")
    storage.write(LOG_FILE, b"of the bucket\n")
    with claim(tmp_path, "run") as claimed:
        os.write(claimed.descriptor, b"older, and longer than that\n")
        claimed.fetch_log(storage)
        os.write(claimed.descriptor, b"new\n")
        assert (tmp_path / "run" / LOG_FILE).read_text() == "of the bucket\nnew\n"
        with pytest.raises(tune.TuneError, match="another run goes on"):
            claim(tmp_path, "run")


@pytest.mark.usefixtures("engine")
def test_runs_that_start_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute.time, "strftime", lambda *_: "now")

    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0)

    analyses = at_once(3, lambda: tune.run(train, storage_path=tmp_path, verbose=0))
    names = sorted(Path(each.experiment_path).name for each in analyses)
    assert names == ["train_now", "train_now_1", "train_now_2"]
    for each in analyses:
        assert len(tune.ExperimentAnalysis(each.experiment_path).trials) == 1
    restored = tune.Tuner.restore(tmp_path / "train_now_1", train).fit()
    assert len(restored) == 1


@pytest.mark.usefixtures("inline")
def test_runs_with_the_same_name_at_a_url_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute.time, "strftime", lambda *_: "now")
    paths = set()
    for machine in ("one", "other"):
        monkeypatch.setenv("SKATE_RESULTS_DIR", str(tmp_path / machine))
        analysis = tune.run(
            lambda config: {"loss": 1}, storage_path="memory://same_time", verbose=0
        )
        paths.add(analysis.experiment_path)
    assert len(paths) == 2


@pytest.mark.usefixtures("inline")
def test_a_run_that_goes_on_cannot_be_resumed_meanwhile(tmp_path: Path) -> None:
    """It would delete checkpoints that are newer than the state."""
    found = []

    class Another(tune.Callback):
        def on_trial_result(self, *args: Any, **info: Any) -> None:
            try:
                tune.Tuner.restore(tmp_path / "run", train).fit()
            except tune.TuneError as error:
                found.append(str(error))

    def train(config: dict[str, Any]) -> None:
        saved = tune.Checkpoint.from_dict({"a": 1})
        tune.report({"loss": 1.0}, checkpoint=saved)

    analysis = tune.run(train, name="run", storage_path=tmp_path, callbacks=[Another()], verbose=0)
    assert len(found) == 1
    assert found[0].startswith("another run goes on in")
    assert analysis.trials[0].checkpoint is not None
    assert Path(analysis.trials[0].checkpoint.path or "").is_dir()
