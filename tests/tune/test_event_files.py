"""What runs write for TensorBoard, read by TensorBoard itself."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate import tune
from skate.tune import event_files
from skate.tune.logger import TBXLoggerCallback

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def events_of(folder: Path, *records: bytes) -> list[Event]:
    """Return the events in a file of these records; TensorBoard checks the checksums."""
    path = folder / "events.out.tfevents.1"
    path.write_bytes(b"".join(records))
    return [Event.FromString(each) for each in RawEventFileLoader(str(path)).Load()]


@given(
    st.floats(0, 1e10),
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.text(max_size=300), st.floats(), min_size=1, max_size=8),
)
def test_any_numbers(wall_time: float, step: int, values: dict[str, float]) -> None:
    record = event_files.scalars(wall_time, step, values)
    # What the fast way makes is what the plain one does.
    payload = record[12:-4]
    assert record == event_files._record(payload)
    event = Event.FromString(payload)
    assert (event.wall_time, event.step) == (wall_time, step)
    for read, (name, value) in zip(event.summary.value, values.items(), strict=True):
        assert read.tag == name
        limit = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
        if math.isfinite(value) and abs(value) > limit * (1 + 2**-25):
            assert read.simple_value == math.copysign(math.inf, value)
        else:
            assert read.simple_value == pytest.approx(value, rel=1e-6, abs=1e-44, nan_ok=True)


def test_records_as_tensorboard_reads_them(tmp_path: Path) -> None:
    events = events_of(
        tmp_path,
        event_files.file_header(1.5),
        event_files.scalars(2.5, 300, {"loss": 0.25, "größe": -1.0}),
        event_files.restart(3.5, 12),
        event_files.session_start(1.5, {"x": 3, "name": "text", "on": True, "odd": (1, 2)}),
        event_files.session_end(4.5, failed=True),
    )
    assert [event.wall_time for event in events] == [1.5, 2.5, 3.5, 1.5, 4.5]
    assert events[0].file_version == "brain.Event:2"
    assert events[1].step == 300
    assert {v.tag: v.simple_value for v in events[1].summary.value} == {"loss": 0.25, "größe": -1.0}
    assert (events[2].step, events[2].session_log.status) == (12, SessionLog.START)
    began, ended = (event.summary.value[0] for event in events[3:])
    assert began.tag == metadata.SESSION_START_INFO_TAG
    start = metadata.parse_session_start_info_plugin_data(began.metadata.plugin_data.content)
    assert start.start_time_secs == 1.5
    assert {name: value.WhichOneof("kind") for name, value in start.hparams.items()} == {
        "x": "number_value",
        "name": "string_value",
        "on": "bool_value",
        "odd": "string_value",
    }
    assert start.hparams["x"].number_value == 3
    assert start.hparams["odd"].string_value == "(1, 2)"
    assert ended.tag == metadata.SESSION_END_INFO_TAG
    content = HParamsPluginData.FromString(ended.metadata.plugin_data.content)
    assert (content.session_end_info.status, content.session_end_info.end_time_secs) == (2, 4.5)


# ------------------------------------------------------------------------------- whole runs


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 4):
        if step == 3 and config["x"] == 1 and begin == 0:
            # What was reported after the checkpoint is reported again, and differs.
            tune.report(loss=100.0)
            raise ValueError("once")
        tune.report(
            {"loss": config["x"] + 1 / step, "valid": {"acc": 0.5}, "text": "no curve"},
            checkpoint=tune.Checkpoint.from_dict({"step": step}),
        )
    if config["x"] == 2:
        raise ValueError("for good")


def run(folder: Path, *callbacks: tune.Callback) -> tune.ExperimentAnalysis:
    return tune.run(
        train,
        config={"x": tune.grid_search([0, 1, 2])},
        storage_path=folder,
        name="run",
        callbacks=callbacks,
        max_failures=1,
        raise_on_failed_trial=False,
        verbose=0,
    )


@pytest.mark.parametrize("callbacks", [[], [TBXLoggerCallback()]], ids=["by itself", "asked for"])
@pytest.mark.usefixtures("inline")
def test_every_trial_has_its_curves(tmp_path: Path, callbacks: list[tune.Callback]) -> None:
    for trial in run(tmp_path, *callbacks).trials:
        assert trial.local_path is not None
        assert len(list(trial.local_path.glob("events.out.tfevents.*"))) == 1
        read = EventAccumulator(str(trial.local_path))
        read.Reload()
        assert {"ray/tune/loss", "ray/tune/valid/acc"} <= set(read.Tags()["scalars"])
        assert "ray/tune/text" not in read.Tags()["scalars"]
        points = [(point.step, point.value) for point in read.Scalars("ray/tune/loss")]
        x = trial.config["x"]
        assert points == [(step, pytest.approx(x + 1 / step)) for step in (1, 2, 3)]
        hparams = read.PluginTagToContent("hparams")
        began = metadata.parse_session_start_info_plugin_data(
            hparams[metadata.SESSION_START_INFO_TAG]
        )
        assert began.hparams["x"].number_value == x
        ended = HParamsPluginData.FromString(hparams[metadata.SESSION_END_INFO_TAG])
        assert ended.session_end_info.status == (2 if x == 2 else 1)


@pytest.mark.usefixtures("inline")
def test_a_run_that_goes_on_begins_another_file(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
        for step in range(begin + 1, 5):
            if step == 4 and begin == 0:
                raise ValueError("once")
            saved = tune.Checkpoint.from_dict({"step": step}) if step < 3 else None
            tune.report({"loss": step + 10.0 * begin}, checkpoint=saved)

    settings = {"name": "run", "storage_path": tmp_path, "raise_on_failed_trial": False}
    first = tune.run(train, verbose=0, **settings).trials[0]
    assert first.local_path is not None
    (old,) = first.local_path.glob("events.out.tfevents.*")
    # Files are read in the order of their names, which have the second and the process.
    old.rename(old.with_name("events.out.tfevents.1000000000.before"))
    again = tune.run(train, verbose=0, resume="AUTO+ERRORED", **settings).trials[0]
    assert again.local_path == first.local_path
    assert len(list(first.local_path.glob("events.out.tfevents.*"))) == 2
    read = EventAccumulator(str(first.local_path))
    read.Reload()
    points = [(point.step, point.value) for point in read.Scalars("ray/tune/loss")]
    assert points == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]


@pytest.mark.usefixtures("inline")
def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKATE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    run(tmp_path)
    assert list(tmp_path.rglob("result.json"))
    assert not list(tmp_path.rglob("events.out.tfevents.*"))
