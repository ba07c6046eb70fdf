"""Which files are found, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skate.xgboost import RayDMatrix, RayFileType, loading

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("inline")


@pytest.mark.parametrize(
    "name", [lambda folder: folder, lambda folder: folder / "*.csv", lambda folder: folder / "a"]
)
def test_folders_and_globs(tmp_path: Path, name: Callable[[Path], Path]) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for below in (tmp_path, folder):
        pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}).to_csv(below / "1.csv", index=False)
    (folder / "_SUCCESS").touch()
    (folder / ".1.csv.crc").touch()
    rows = {str(tmp_path): 4}.get(str(name(tmp_path)), 2)
    assert RayDMatrix(name(tmp_path), "y").num_row() == rows


def test_options_of_the_reader_and_the_type_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_text("x;y\n1,5;0\n2,5;1\n")
    matrix = RayDMatrix(str(file), "y", filetype=RayFileType.CSV, sep=";", decimal=",")
    (shard,) = matrix.shards(1)
    assert loading.load(shard).batches[0].features["x"].tolist() == [1.5, 2.5]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files, good and bad."""
    good = pd.DataFrame({"x": [1.0, 2.0], "y": [0.0, 1.0], "z": [1, 2]})
    good.to_csv(tmp_path / "good.csv", index=False)
    good.to_parquet(tmp_path / "good.parquet")
    good.drop(columns="y").to_csv(tmp_path / "no_y.csv", index=False)
    good.drop(columns="y").to_parquet(tmp_path / "no_y.parquet")
    good.assign(x=["a", "b"]).to_csv(tmp_path / "text.csv", index=False)
    good.assign(x=["a", "b"]).to_parquet(tmp_path / "text.parquet")
    good.iloc[:0].to_parquet(tmp_path / "none.parquet")
    (tmp_path / "void.csv").touch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "arguments", "error", "text"),
    [
        (["missing.csv"], {}, FileNotFoundError, "missing.csv"),
        (["empty"], {}, FileNotFoundError, "empty"),
        (["*.feather"], {}, FileNotFoundError, "feather"),
        (["good.csv", "good.parquet"], {}, ValueError, "two kinds"),
        (["good.csv", "no_y.csv"], {}, ValueError, "no_y.csv has other columns .* without 'y'"),
        (["good.parquet", "no_y.parquet"], {}, ValueError, "no_y.parquet has .* without 'y'"),
        (["no_y.parquet", "good.parquet"], {}, ValueError, "good.parquet has .* with 'y'"),
        (["good.csv"], {"label": "w"}, ValueError, "label: there is no column 'w', only x, y, z"),
        (["good.csv"], {"ignore": ["w"]}, ValueError, "ignore: there is no column 'w'"),
        (["good.csv"], {"label": [0, 1]}, TypeError, "label must be the name of a column"),
        (["good.csv", "text.csv"], {}, TypeError, "column 'x' of .*text.csv is of type"),
        (["good.parquet", "text.parquet"], {}, TypeError, "column 'x' of .*text.parquet is of"),
        (["void.csv"], {}, ValueError, "void.csv is empty"),
        (["broken.parquet"], {}, ValueError, "broken.parquet is no Parquet file"),
        (["good.parquet"], {"sep": ";"}, TypeError, "sep"),
        (["good.csv"], {"filetype": "csv"}, TypeError, "filetype must be a RayFileType"),
    ],
)
def test_what_is_refused(
    folder: Path,
    names: list[str],
    arguments: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    arguments = {"label": "y", **arguments}
    with pytest.raises(error, match=text):
        RayDMatrix([str(folder / name) for name in names], **arguments)
