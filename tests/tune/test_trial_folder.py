"""Trials in folders of their own: what they write, import and print there."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.config import output_files
from skate.tune.error import describe
from skate.tune.trial_folder import FolderUse
from skate.tune.trial_output import TrialOutput


def write(config: dict[str, Any]) -> None:
    Path("mine.txt").write_text(str(config["x"]))
    tune.report({"loss": config["x"], "cwd": os.getcwd(), "pid": os.getpid()})


def run(trainable: Any, **options: Any) -> list[tune.Trial]:
    settings = {"config": {"x": tune.grid_search([1, 2, 3])}, "verbose": 0, **options}
    return tune.run(trainable, **settings).trials


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("reuse", [True, False])
def test_relative_paths_are_those_of_the_trial(reuse: bool) -> None:
    before = os.getcwd()
    trials = run(write, reuse_actors=reuse, max_concurrent_trials=1)
    for trial in trials:
        assert trial.local_path is not None
        assert trial.last_result["cwd"] == trial.path
        assert (trial.local_path / "mine.txt").read_text() == str(trial.config["x"])
    assert len({trial.last_result["pid"] for trial in trials}) == (1 if reuse else 3)
    assert os.getcwd() == before


@pytest.mark.usefixtures("native")
def test_a_class_works_in_its_folder_from_setup_on() -> None:
    class Writes(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.begun_in = os.getcwd()

        def step(self) -> dict[str, Any]:
            Path(f"step{self.iteration}").touch()
            return {"loss": 1.0, "begun_in": self.begun_in, "logdir": self.logdir, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.begun_in = os.getcwd()
            return True

    for trial in run(Writes, max_concurrent_trials=1):
        assert trial.local_path is not None
        assert trial.last_result["begun_in"] == trial.last_result["logdir"] == trial.path
        assert (trial.local_path / "step0").exists()


@pytest.mark.usefixtures("native")
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKATE_CHDIR_TO_TRIAL_DIR", "0")

    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0, cwd=os.getcwd())

    assert {trial.last_result["cwd"] for trial in run(train)} == {os.getcwd()}


SCRIPT = """
import sys
sys.path[:] = ["", *(entry for entry in sys.path if entry)]
from skate import tune

def train(config):
    import beside                    # found where the driver was started
    from inside import below
    tune.report(loss=beside.VALUE + below.VALUE)

trials = tune.run(train, num_samples=3, max_concurrent_trials=1, verbose=0).trials
print([trial.last_result["loss"] for trial in trials])
"""


def test_modules_beside_the_driver_are_still_found(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "below.py").write_text("VALUE = 2\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.strip() == "[3, 3, 3]", done.stdout + done.stderr


@pytest.mark.usefixtures("native")
def test_who_reads_a_file_of_the_driver_is_told_where_it_is(tmp_path: Path) -> None:
    name = os.path.relpath(__file__)

    def train(config: dict[str, Any]) -> None:
        if config["x"] == 1:
            # The way that scripts of Ray Tune have.
            name = os.path.join(os.environ["TUNE_ORIG_WORKING_DIR"], config["name"])
            tune.report(loss=float(os.path.getsize(name)))
        else:
            open(config["name"]).close()

    config = {"x": tune.grid_search([1, 2]), "name": name}
    trials = run(train, config=config, max_concurrent_trials=1, raise_on_failed_trial=False)
    assert trials[0].last_result["loss"] == os.path.getsize(__file__)
    told = f"it is in {os.getcwd()}, but trials work in their own folders"
    assert told in describe(trials[1].error)
    assert trials[1].local_path is not None
    assert told in (trials[1].local_path / "error.txt").read_text()
    # Of what is nowhere there is nothing to say.
    with pytest.raises(tune.TuneError, match=r"nowhere'$"):
        run(train, config={"x": 2, "name": "nowhere"})


@pytest.mark.usefixtures("native")
def test_a_trial_whose_output_has_no_file_works_in_its_folder_all_the_same() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0, cwd=os.getcwd())

    (trial,) = run(train, config={}, log_to_file="params.json/out")
    assert trial.last_result["cwd"] == trial.path


# ------------------------------------------------------------------------------- what they print


def talk(config: dict[str, Any]) -> None:
    print("out", config["x"])
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    print("err", config["x"], file=sys.stderr)
    tune.report(loss=1.0)
    print("after", config["x"])


def files_of(trial: tune.Trial, *names: str) -> list[str]:
    assert trial.local_path is not None
    return [(trial.local_path / name).read_text() for name in names]


@pytest.mark.usefixtures("native")
def test_what_trials_print_is_in_their_folders() -> None:
    for trial in run(talk, log_to_file=True):
        out, err = files_of(trial, "stdout", "stderr")
        x = trial.config["x"]
        assert out == f"out {x}\nfrom a thread\nafter {x}\n"
        assert err == f"err {x}\n"


@pytest.mark.usefixtures("native")
def test_two_names_and_a_trial_that_fails_once() -> None:
    def train(config: dict[str, Any]) -> None:
        print("begun")
        if tune.get_checkpoint() is None:
            tune.report(loss=1.0, checkpoint=tune.Checkpoint.from_dict({}))
            raise ValueError("once")
        print("to the end", file=sys.stderr)

    (trial,) = run(train, config={}, log_to_file=("a.txt", "b.txt"), max_failures=1)
    assert files_of(trial, "a.txt", "b.txt") == ["begun\nbegun\n", "to the end\n"]


def test_names_of_files() -> None:
    assert output_files(False) == output_files(None) == (None, None)
    assert output_files(True) == ("stdout", "stderr")
    assert output_files("all") == ("all", "all")
    assert output_files(["a", "b"]) == ("a", "b")
    for wrong in (3, ("a",), ("a", "b", "c"), ("a", 1), ("", "b")):
        with pytest.raises(ValueError, match="log_to_file wants True, the name of a file"):
            tune.RunConfig(log_to_file=wrong)  # type: ignore[arg-type]
    assert output_files("below/it") == ("below/it", "below/it")


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("x\0", "has a null character"),
        ("/tmp/x", "leads to another place"),
        ("../x", "leads to another place"),
        (".", "leads to another place"),
        ("\ud800", "has characters that names of files cannot have"),
        ("ä" * 200, "is longer than 255 bytes"),
        ("result.json", "is that of a file that every trial has"),
    ],
)
def test_what_can_be_no_file_of_a_trial(name: str, trouble: str) -> None:
    for names in (name, ("out", name), [name, "err"]):
        with pytest.raises(ValueError, match=f"log_to_file: .*{trouble}"):
            tune.run(lambda config: {"loss": 1}, log_to_file=names)
    if name != "result.json":
        with pytest.raises(ValueError, match=f"no name of a run: it {trouble}"):
            tune.RunConfig(name=name)


# ------------------------------------------------------------------------------- in the driver


def test_what_is_printed_as_the_trial_ends_disturbs_nobody(tmp_path: Path) -> None:
    """A thread that the trial leaves behind has found the file, and then that is closed."""
    output = TrialOutput(tmp_path, "out", None)
    output._files["stdout"].close()
    output.write("stdout", "late")
    assert (tmp_path / "out").read_text() == ""


STREAMS: list[Any] = []


def look_at_stdout(config: dict[str, Any]) -> None:
    STREAMS.append(weakref.ref(sys.stdout))
    tune.report(loss=1.0)


@pytest.mark.usefixtures("inline")
def test_the_process_of_the_driver_stays_where_it_is() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0, cwd=os.getcwd())

    assert {trial.last_result["cwd"] for trial in run(train)} == {os.getcwd()}


@pytest.mark.usefixtures("inline")
def test_a_folder_that_cannot_be_made_ends_no_trial(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = os.getcwd()
    use = FolderUse(enter=True)
    with pytest.warns(RuntimeWarning, match=r"cannot use its folder .*file/trial: Not a directory"):
        assert use.begin(str(tmp_path / "file" / "trial")) is None
    assert os.getcwd() == before


@pytest.mark.usefixtures("inline")
def test_a_file_for_output_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="prints is not written: .*: Is a directory"):
        assert FolderUse(stdout=".").begin(str(tmp_path)) is None


@pytest.mark.usefixtures("inline")
def test_trials_that_share_a_process_are_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0)  # only now the other one starts
        (tmp_path / str(config["x"])).touch()
        deadline = time.monotonic() + 30
        while not ((tmp_path / "1").exists() and (tmp_path / "2").exists()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for step in range(20):
            print(config["x"], step)

    stdout = sys.stdout
    trials = run(train, config={"x": tune.grid_search([1, 2])}, log_to_file="said/all.txt")
    for trial in trials:
        x = trial.config["x"]
        assert files_of(trial, "said/all.txt") == ["".join(f"{x} {step}\n" for step in range(20))]
    assert len(capsys.readouterr().out.splitlines()) == 40  # shown as always, too
    assert sys.stdout is stdout


@pytest.mark.usefixtures("inline")
def test_a_thread_that_a_trial_leaves_behind_prints_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``print`` has found the stream that copies before the trial ended, and uses it after."""
    run(look_at_stdout, config={}, log_to_file=True)
    gc.collect()
    stream = STREAMS.pop()()
    assert stream is not None
    print("late", file=stream)
    assert capsys.readouterr().out.endswith("late\n")
