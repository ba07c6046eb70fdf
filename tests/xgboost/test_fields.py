"""What rows have beside their features arrives with them, from data of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost

import skate
from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, loading, predict, train

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

Data = tuple[Any, Any]
Fields = dict[str, Any]
Make = Callable[..., RayDMatrix]

NAMES = list("abcdef")
TWO = RayParams(num_actors=2)
BATCH, INTERLEAVED, FIXED = (
    RayShardingMode.BATCH,
    RayShardingMode.INTERLEAVED,
    RayShardingMode.FIXED,
)


def named(x: Any, fields: Fields) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return one frame of features and fields, and what the columns of the fields are called."""
    frame = pd.DataFrame(x, columns=NAMES)
    columns: dict[str, Any] = {}
    for name, values in fields.items():
        if values.ndim == 1:
            columns[name] = f"the {name}"
            frame[columns[name]] = values
        else:
            columns[name] = [f"the {name} {index}" for index in range(values.shape[1])]
            for index, column in enumerate(columns[name]):
                frame[column] = values[:, index]
    return frame, columns


def in_columns(convert: Callable[[pd.DataFrame, Path], Any]) -> Make:
    def make(x: Any, fields: Fields, folder: Path, **options: Any) -> RayDMatrix:
        frame, columns = named(x, fields)
        return RayDMatrix(convert(frame, folder), **columns, **options)

    return make


def beside(convert: Callable[[Any], Any]) -> Make:
    def make(x: Any, fields: Fields, folder: Path, **options: Any) -> RayDMatrix:
        return RayDMatrix(convert(x), **fields, **options)

    return make


def split(frame: Any) -> list[Any]:
    return [frame.iloc[:700], frame.iloc[700:900], frame.iloc[900:]]


def parquet(frame: pd.DataFrame, folder: Path) -> str:
    for index, part in enumerate(split(frame)):
        part.to_parquet(folder / f"{index}.parquet", row_group_size=150, index=False)
    return f"{folder}/*.parquet"


def csv(frame: pd.DataFrame, folder: Path) -> list[str]:
    for index, part in enumerate(split(frame)):
        part.to_csv(folder / f"{index}.csv", index=False)
    return [str(folder / f"{index}.csv") for index in range(3)]


def one_parquet(frame: pd.DataFrame, folder: Path) -> str:
    frame.to_parquet(folder / "all.parquet", row_group_size=300, index=False)
    return f"file://{folder}/all.parquet"


def batches(frame: pd.DataFrame, _: Path) -> Iterator[Any]:
    return (pa.RecordBatch.from_pandas(part, preserve_index=False) for part in split(frame))


def arrow(frame: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(frame, preserve_index=False)


KINDS: dict[str, Make] = {
    "numpy": beside(np.asarray),
    "csr": beside(scipy.sparse.csr_matrix),
    "refs of numpy": beside(lambda x: [skate.put(x[:700]), skate.put(x[700:])]),
    "pandas": in_columns(lambda frame, _: frame),
    "polars": in_columns(lambda frame, _: pl.from_arrow(arrow(frame))),
    "arrow": in_columns(lambda frame, _: arrow(frame)),
    "refs of pandas": in_columns(lambda frame, _: [skate.put(part) for part in split(frame)]),
    "generator of arrow": in_columns(batches),
    "one parquet": in_columns(one_parquet),
    "parquet": in_columns(parquet),
    "csv": in_columns(csv),
}


def loaded(matrix: RayDMatrix, actors: int) -> tuple[Any, Fields]:
    """Return features and fields as all actors together have them, in the order of the ranks."""
    parts = [
        batch
        for shard in matrix.shards(actors)
        for batch in loading.load(shard).all()
        if batch.rows
    ]
    features = []
    for part in parts:
        table = part.features
        table = table.toarray() if hasattr(table, "toarray") else table
        features.append(np.column_stack(table.columns) if hasattr(table, "schema") else table)
    names = parts[0].fields
    return np.concatenate(features), {
        name: np.concatenate([part.fields[name] for part in parts]) for name in names
    }


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actors", [1, 3])
def test_each_row_keeps_what_it_has(data: Data, tmp_path: Path, kind: str, actors: int) -> None:
    x, y = data
    number = np.arange(len(y), dtype=np.float64)
    fields = {
        "label": np.column_stack([y, 1 - y]),
        "weight": 1 + number,
        "base_margin": -number,
        "label_lower_bound": number / 2,
        "label_upper_bound": number * 2,
    }
    matrix = KINDS[kind](x, fields, tmp_path)
    assert matrix.shape == x.shape
    features, found = loaded(matrix, actors)
    assert np.array_equal(features, x)
    assert found.keys() == fields.keys()
    for name, values in fields.items():
        assert np.array_equal(found[name], values), name


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", KINDS)
def test_query_groups_stay_together(data: Data, tmp_path: Path, kind: str) -> None:
    x, y = data
    qid = np.repeat(np.arange(len(y) // 40), 40)
    matrix = KINDS[kind](x, {"label": y, "qid": qid}, tmp_path)
    features, found = loaded(matrix, 3)
    assert np.array_equal(features, x)
    assert np.array_equal(found["qid"], qid)
    groups = [
        {int(each) for batch in loading.load(shard).all() for each in batch.fields["qid"]}
        for shard in matrix.shards(3)
    ]
    assert sum(map(len, groups)) == len(y) // 40


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "csr"])
def test_missing_and_names(data: Data, tmp_path: Path, kind: str) -> None:
    x, y = data
    holed = x.copy()
    holed[::3, 0] = -1
    names = [f"feature {index}" for index in range(6)]
    matrix = KINDS[kind](holed, {"label": y}, tmp_path, missing=-1.0, feature_names=names)
    model = train({"max_depth": 4}, matrix, 5)
    assert model.feature_names == names
    plain = xgboost.train({"max_depth": 4}, xgboost.DMatrix(holed, y, missing=-1.0), 5)
    reference = plain.predict(xgboost.DMatrix(holed, missing=-1.0))
    assert np.allclose(predict(model, matrix), reference, atol=1e-5)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_query_groups(data: Data, tmp_path: Path, kind: str) -> None:
    x, y = data
    qid = np.repeat(np.arange(len(y) // 40), 40)
    weights = np.linspace(0.1, 3, len(y) // 40)
    # Arrays have one for each group, columns one for each row.
    by_row = kind not in ("numpy", "csr", "refs of numpy")
    fields = {"label": y, "qid": qid, "weight": np.repeat(weights, 40) if by_row else weights}
    params = {"objective": "rank:ndcg", "max_depth": 3}
    model = train(params, KINDS[kind](x, fields, tmp_path), 4)
    matrix = scipy.sparse.csr_matrix(x) if kind == "csr" else x
    plain = xgboost.train(params, xgboost.DMatrix(matrix, y, qid=qid, weight=weights), 4)
    found, reference = (
        each.predict(xgboost.DMatrix(matrix), validate_features=False) for each in (model, plain)
    )
    assert np.allclose(found, reference, atol=1e-5)
    unweighted = xgboost.train(params, xgboost.DMatrix(matrix, y, qid=qid), 4)
    assert not np.allclose(reference, unweighted.predict(xgboost.DMatrix(matrix)), atol=1e-3)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranked", [False, True])
def test_external_memory(data: Data, tmp_path: Path, kind: str, ranked: bool) -> None:
    x, y = data
    fields: Fields = {"label": y, "base_margin": x[:, 1] / 40}
    params: dict[str, Any] = {"max_depth": 3}
    if ranked:
        fields["qid"] = np.repeat(np.arange(len(y) // 40), 40)
        params["objective"] = "rank:ndcg"
    matrix = KINDS[kind](x, fields, tmp_path, external_memory=True)
    model = train(params, matrix, 4)
    reference = train(params, KINDS[kind](x, fields, tmp_path), 4)
    assert np.allclose(predict(model, matrix), predict(reference, matrix), atol=1e-5)
    assert model.num_boosted_rounds() == 4


@pytest.mark.usefixtures("native")
class TestTwoActors:
    """What it is good for arrives at XGBoost."""

    @pytest.mark.parametrize("sharding", [BATCH, INTERLEAVED])
    def test_bounds_of_labels(self, data: Data, sharding: RayShardingMode) -> None:
        x, y = data
        bounds = {"label_lower_bound": 1 + y, "label_upper_bound": np.where(y > 0, np.inf, 3.0)}
        params = {"objective": "survival:aft", "max_depth": 3}
        matrix = RayDMatrix(x, **bounds, sharding=sharding)
        assert matrix.has_label
        model = train(params, matrix, 5, ray_params=TWO)
        plain = xgboost.train(params, xgboost.DMatrix(x, **bounds), 5)
        reference = plain.predict(xgboost.DMatrix(x))
        assert np.allclose(predict(model, matrix, TWO), reference, rtol=1e-3)

    def test_feature_weights(self, data: Data) -> None:
        x, y = data
        params = {"colsample_bynode": 0.4, "max_depth": 4}
        weights = [0, 0, 0, 1, 1, 1]
        matrix = RayDMatrix(x, y, feature_weights=weights)
        used = train(params, matrix, 8, ray_params=TWO).get_score()
        assert used.keys() == {"f3", "f4", "f5"}
        without = train(params, RayDMatrix(x, y), 8, ray_params=TWO).get_score()
        assert len(without) == 6

    def test_types_of_the_features_of_an_array(self, data: Data) -> None:
        x, _ = data
        color = np.floor(x[:, 0] % 5)
        y = np.isin(color, (1, 4)).astype(float)
        table = np.column_stack([color, x[:, 1]])
        options: dict[str, Any] = {"feature_types": ["c", "float"], "enable_categorical": True}
        matrix = RayDMatrix(table, y, **options)
        model = train({"max_depth": 1}, matrix, 1, ray_params=TWO)
        assert model.feature_types == ["c", "float"]
        # No threshold divides these categories, a set does.
        assert ((predict(model, matrix, TWO) > 0.5) == y).all()

    def test_several_targets(self, data: Data) -> None:
        x, y = data
        targets = np.column_stack([y, x[:, 3]])
        matrix = RayDMatrix(x, targets)
        model = train({"max_depth": 4}, matrix, 5, ray_params=TWO)
        plain = xgboost.train({"max_depth": 4}, xgboost.DMatrix(x, targets), 5)
        predicted = predict(model, matrix, TWO)
        assert predicted.shape == targets.shape
        assert np.allclose(predicted, plain.predict(xgboost.DMatrix(x)), atol=1e-2)

    def test_margins_of_several_classes(self, data: Data) -> None:
        x, _ = data
        y = x[:, 0] // 14
        margins = np.column_stack([x[:, index] / 40 for index in (1, 2, 3)])
        params = {"objective": "multi:softprob", "num_class": 3}
        matrix = RayDMatrix(x, y, base_margin=margins, sharding=INTERLEAVED)
        model = train(params, matrix, 3, ray_params=TWO)
        plain = xgboost.train(params, xgboost.DMatrix(x, y, base_margin=margins), 3)
        reference = plain.predict(xgboost.DMatrix(x, base_margin=margins))
        assert np.allclose(predict(model, matrix, TWO), reference, atol=1e-3)
