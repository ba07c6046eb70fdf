"""GPUs as ``init`` sees them: how many, which kind, and what ``CUDA_VISIBLE_DEVICES`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from skate.api import options, session_config
from skate.runtime.worker.gpus import visible_gpus


def count(monkeypatch: pytest.MonkeyPatch, visible: str, **given: int) -> int:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not given:
        return session_config.available_gpus()
    return int(session_config._gpus(given["num_gpus"]))


@pytest.mark.parametrize(
    ("visible", "expected"), [("", 0), ("-1", 0), ("2, 5", 2), ("GPU-a,GPU-b,-1,3", 2)]
)
def test_what_is_visible_counts(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: int
) -> None:
    assert count(monkeypatch, visible) == expected


def test_more_gpus_than_are_visible_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(monkeypatch, "2,5", num_gpus=2) == 2
    with pytest.raises(ValueError, match="names only 2, 5"):
        count(monkeypatch, "2,5", num_gpus=3)
    # Where there are none at all, they are make-believe, for tests.
    assert count(monkeypatch, "", num_gpus=3) == 3


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
    ],
)
def test_the_kind_of_gpu_is_a_resource(tmp_path: Path, model: str, kind: str) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    information = f"Model: \t\t {model}\nIRQ:   \t\t 7\nGPU UUID: \t GPU-8932f937\n"
    (tmp_path / "0000:01:00.0" / "information").write_text(information)
    found = session_config.accelerator_types(str(tmp_path))
    assert found == {f"accelerator_type:{kind}": 1.0}
    assert options.task_options({"accelerator_type": kind}).resources == {
        "CPU": 1.0,
        f"accelerator_type:{kind}": 0.001,
    }


def test_instances_are_named_as_the_node_was_told() -> None:
    assert visible_gpus([0, 2], None) == [0, 2]
    assert visible_gpus([1, 0], "4, GPU-a") == ["GPU-a", 4]
    assert visible_gpus([], "4") == []
    assert visible_gpus([1], "") == [1]
