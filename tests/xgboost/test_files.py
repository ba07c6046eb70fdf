"""CSV and Parquet files: found, looked at, read by the actors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from s3_server import serving

import skate
from skate.xgboost import (
    RayDMatrix,
    RayParams,
    RayShardingMode,
    loading,
    predict,
    train,
)

pytest.importorskip("pyarrow")

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic"}
TWO = RayParams(num_actors=2)
BATCH, INTERLEAVED, FIXED = (
    RayShardingMode.BATCH,
    RayShardingMode.INTERLEAVED,
    RayShardingMode.FIXED,
)
NAMES = list("abcdef")


def frame_of(data: Data) -> pd.DataFrame:
    x, y = data
    return pd.DataFrame(x, columns=NAMES).assign(y=y, id=np.arange(len(y)))


def write(frame: pd.DataFrame, folder: Path, ends: list[int], kind: str) -> list[str]:
    """Write rows up to each of ``ends`` into files."""
    files = []
    for index, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        file = folder / f"part-{index:02}.{kind}"
        part = frame.iloc[start:stop]
        if kind == "parquet":
            part.to_parquet(file, row_group_size=100, index=False)
        else:
            part.to_csv(file, index=False)
        files.append(str(file))
    return files


def same_model(model: xgboost.Booster, data: Data) -> None:
    """The model is what XGBoost makes of all rows: there are few distinct values."""
    x, y = data
    matrix = xgboost.DMatrix(x, y, feature_names=NAMES)
    plain = xgboost.train(PARAMS, matrix, model.num_boosted_rounds())
    assert model.feature_names == NAMES
    assert np.allclose(model.predict(matrix), plain.predict(matrix), atol=1e-5)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("mode", [BATCH, INTERLEAVED, FIXED])
@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
@pytest.mark.parametrize("ends", [[2000], [500, 500, 1400, 2000]], ids=["one", "four"])
def test_the_model_is_that_of_all_rows(
    data: Data, tmp_path: Path, mode: RayShardingMode, kind: str, ends: list[int]
) -> None:
    files = write(frame_of(data), tmp_path, ends, kind)
    matrix = RayDMatrix(files, "y", ignore=["id"], sharding=mode)
    if len(files) == 1 and mode is FIXED:
        with pytest.raises(ValueError, match="2 actors cannot share 1 files, which"):
            train(PARAMS, matrix, 5, ray_params=TWO)
        return
    model = train(PARAMS, matrix, 5, ray_params=TWO)
    same_model(model, data)
    # In the order of the rows, whoever has predicted them.
    predicted = predict(model, matrix, TWO)
    plain = model.predict(xgboost.DMatrix(data[0], feature_names=NAMES))
    assert np.allclose(predicted, plain, atol=1e-6)
    assert matrix.shape == (2000, 6)


@pytest.mark.usefixtures("native")
def test_each_file_is_read_by_one_actor_and_parts_of_files_are_not_read_twice(
    data: Data, tmp_path: Path
) -> None:
    files = write(frame_of(data), tmp_path, [500, 1000, 1500, 2000], "parquet")
    matrix = RayDMatrix(files, "y", ignore=["id"])
    shards = matrix.shards(2)
    assert [[str(piece) for piece in shard.pieces] for shard in shards] == [
        [f"file {file}" for file in files[:2]],
        [f"file {file}" for file in files[2:]],
    ]
    loaded = loading.load(shards[1])
    assert loaded.rows == 1000
    # Of three actors some read the ends of files that others begin.
    rows = [loading.load(shard) for shard in matrix.shards(3)]
    assert [each.rows for each in rows] == [666, 667, 667]
    x = np.concatenate([batch.features.to_pandas() for each in rows for batch in each.batches])
    assert np.array_equal(x, data[0])


@pytest.mark.usefixtures("native")
def test_distributed_false_reads_here_and_now(data: Data, tmp_path: Path) -> None:
    files = write(frame_of(data), tmp_path, [700, 2000], "csv")
    matrix = RayDMatrix(files, "y", ignore=["id"], distributed=False)
    for file in files:
        os.remove(file)
    same_model(train(PARAMS, matrix, 5, ray_params=TWO), data)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("mode", [BATCH, FIXED])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_query_groups_in_files(tmp_path: Path, kind: str, mode: RayShardingMode) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 30, size=(400, 3)).astype(float), columns=list("abc"))
    frame = frame.assign(y=rng.integers(0, 3, size=400), q=np.repeat(np.arange(40), 10))
    # The second file begins in the middle of a group.
    files = write(frame, tmp_path, [105, 300, 400], kind)
    matrix = RayDMatrix(files, "y", qid="q", sharding=mode)
    params = {"objective": "rank:ndcg", "lambdarank_pair_method": "topk"}
    if mode is FIXED:
        with pytest.raises(ValueError, match=r"group 10 goes on .* use RayShardingMode\.BATCH"):
            train(params, matrix, 3, ray_params=TWO)
        return
    shards = [loading.load(shard) for shard in matrix.shards(3)]
    groups = [
        {int(each) for batch in shard.all() for each in batch.fields["qid"]} for shard in shards
    ]
    assert sum(map(len, groups)) == 40
    model = train(params, matrix, 3, ray_params=TWO)
    plain = xgboost.train(params, xgboost.DMatrix(frame[list("abc")], frame.y, qid=frame.q), 3)
    dmatrix = xgboost.DMatrix(frame[list("abc")])
    assert np.corrcoef(model.predict(dmatrix), plain.predict(dmatrix))[0, 1] > 0.9


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_categories_are_the_same_for_all_actors(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    color = rng.choice(["red", "green", "blue", "black"], size=600)
    color[:300] = rng.choice(["blue", "red"], size=300)
    y = (color == "red") ^ (rng.random(600) < 0.05)
    frame = pd.DataFrame({"color": color, "x": rng.integers(0, 9, 600), "y": y.astype(float)})
    options: dict[str, Any] = {}
    files = []
    for index, rows in enumerate((slice(0, 300), slice(300, 600))):
        # Each file has codes of its own.
        part = frame.iloc[rows]
        part = part.assign(color=part.color.astype("category"))
        files.append(str(tmp_path / f"{index}.{kind}"))
        if kind == "parquet":
            part.to_parquet(files[-1], index=False)
        else:
            part.to_csv(files[-1], index=False)
            options["dtype"] = {"color": "category"}
    matrix = RayDMatrix(files, "y", enable_categorical=True, **options)
    model = train(PARAMS, matrix, 5, ray_params=TWO)
    whole = frame.assign(color=frame.color.astype("category"))[["color", "x"]]
    plain = xgboost.train(PARAMS, xgboost.DMatrix(whole, y, enable_categorical=True), 5)
    reference = plain.predict(xgboost.DMatrix(whole, enable_categorical=True))
    assert np.allclose(predict(model, matrix, TWO), reference, atol=1e-5)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_on_an_s3_server(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with serving(tmp_path, "bucket", monkeypatch) as server:
        # Workers that exist do not know of it.
        skate.shutdown()
        skate.init(num_cpus=2, engine="native", preload=["xgboost"])
        import s3fs

        write(frame_of(data), tmp_path, [600, 2000], kind)
        filesystem = s3fs.S3FileSystem(endpoint_url=server.url)
        for file in tmp_path.glob(f"*.{kind}"):
            filesystem.put_file(str(file), f"bucket/some/{file.name}")
            file.unlink()
        for place in ("s3://bucket/some", f"s3://bucket/some/part-*.{kind}"):
            matrix = RayDMatrix(place, "y", ignore=["id"])
            same_model(train(PARAMS, matrix, 5, ray_params=TWO), data)
        with pytest.raises(FileNotFoundError, match="s3://bucket/none"):
            RayDMatrix("s3://bucket/none", "y")


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_more_actors_than_rows(data: Data, tmp_path: Path, kind: str) -> None:
    (file,) = write(frame_of(data), tmp_path, [2], kind)
    with pytest.raises(ValueError, match="3 actors cannot share 2 rows"):
        train(PARAMS, RayDMatrix(file, "y"), 3, ray_params=RayParams(num_actors=3))
    (file,) = write(frame_of(data), tmp_path, [0], kind)
    with pytest.raises(ValueError, match="1 actors cannot share 0 rows"):
        RayDMatrix(file, "y").check_actors(1)


@pytest.mark.usefixtures("native")
def test_text_after_the_first_rows_is_told_with_its_file(tmp_path: Path) -> None:
    for name in ("1.csv", "2.csv"):
        rows = [f"{row},{row % 2}" for row in range(300)]
        (tmp_path / name).write_text("\n".join(["x,y", *rows, "oops,1" if name == "2.csv" else ""]))
    with pytest.raises(TypeError, match=r"column 'x' of file .*2\.csv is of type"):
        train(PARAMS, RayDMatrix(str(tmp_path), "y"), 3, ray_params=TWO)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_has_gone_is_named(data: Data, tmp_path: Path, kind: str) -> None:
    files = write(frame_of(data), tmp_path, [500, 1000, 2000], kind)
    matrix = RayDMatrix(files, "y", ignore=["id"])
    model = xgboost.train(PARAMS, xgboost.DMatrix(*data), 1)
    Path(files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"part-01.{kind}"):
        train(PARAMS, matrix, 3, ray_params=TWO)
    with pytest.raises(FileNotFoundError, match=f"part-01.{kind}"):
        predict(model, matrix, TWO)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("rows", [1, 499, 501])
@pytest.mark.parametrize("num_actors", [1, 3])
def test_a_parquet_file_of_other_rows_than_before_is_named(
    data: Data, tmp_path: Path, rows: int, num_actors: int
) -> None:
    frame = frame_of(data)
    files = write(frame, tmp_path, [500, 1000, 1500], "parquet")
    matrix = RayDMatrix(files, ignore=["id", "y"])
    frame.iloc[:rows].to_parquet(files[1])
    model = xgboost.train(PARAMS, xgboost.DMatrix(data[0], data[1], feature_names=NAMES), 1)
    with pytest.raises(ValueError, match=rf"part-01.parquet has changed .* {rows} rows now"):
        predict(model, matrix, RayParams(num_actors=num_actors))
