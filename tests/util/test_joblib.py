"""The joblib backend."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pool_functions as functions
import pytest

import skate
from skate.util.joblib import register_skate

joblib = pytest.importorskip("joblib")
np = pytest.importorskip("numpy")

Parallel, delayed, parallel_config = joblib.Parallel, joblib.delayed, joblib.parallel_config

register_skate()


def squares(count: int, **options: Any) -> list[int]:
    return list(Parallel(**options)(delayed(functions.square)(x) for x in range(count)))


@pytest.mark.parametrize("name", ["skate", "ray"])
def test_parallel_config(session, name):
    with parallel_config(backend=name):
        assert squares(100, n_jobs=-1) == [x * x for x in range(100)]
        assert squares(100) == [x * x for x in range(100)]


def test_parallel_backend(session):
    with joblib.parallel_backend("skate", n_jobs=2):
        assert squares(20) == [x * x for x in range(20)]


def test_named_in_the_call(session):
    assert squares(20, backend="skate", n_jobs=2) == [x * x for x in range(20)]
    # One job is a plain loop, as with all backends.
    with parallel_config(backend="skate", n_jobs=1):
        assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    with pytest.raises(ValueError, match="no meaning"):
        squares(3, backend="skate", n_jobs=0)


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_generators(session, kind):
    results = Parallel(n_jobs=2, backend="skate", return_as=kind)(
        delayed(functions.square)(x) for x in range(20)
    )
    assert sorted(results) == [x * x for x in range(20)]


def test_errors(session):
    with pytest.raises(KeyError) as caught, parallel_config(backend="skate"):
        Parallel(n_jobs=2)(delayed(functions.fail_on_three)(x) for x in range(50))
    assert type(caught.value) is KeyError
    assert "fail_on_three" in str(caught.value.__cause__)
    # As good as before.
    assert squares(5, backend="skate", n_jobs=2) == [0, 1, 4, 9, 16]


def test_what_cannot_be_pickled(session):
    import threading

    with pytest.raises(Exception, match=r"(?i)pickle"):
        Parallel(n_jobs=2, backend="skate")([delayed(functions.square)(threading.Lock())] * 3)


def test_large_arrays_are_stored_once(session, monkeypatch):
    stored: list[Any] = []
    put = skate.put

    def counting(value: Any) -> Any:
        stored.append(value)
        return put(value)

    monkeypatch.setattr(skate, "put", counting)
    table, other = np.ones((500, 500)), np.zeros(300_000)

    def total(arrays: dict[str, Any], index: int) -> float:
        assert not arrays["table"].flags.writeable
        return float(arrays["table"].sum() + arrays["other"].sum() + index)

    calls = [delayed(total)({"table": table, "other": other}, index) for index in range(10)]
    results = Parallel(n_jobs=2, backend="skate", batch_size=1)(calls)
    assert results == [250_000 + index for index in range(10)]
    assert sum(1 for value in stored if value is table) == 1
    assert sum(1 for value in stored if value is other) == 1
    stored.clear()
    Parallel(n_jobs=2, backend="skate", max_nbytes=None)(
        delayed(np.sum)(array) for array in (table, other)
    )
    assert not [value for value in stored if value is table or value is other]


def test_refs_and_handles_travel(session):
    ref = skate.put([1, 2, 3])

    @skate.remote
    class Adder:
        def add(self, x: int) -> int:
            return x + 1

    adder = Adder.remote()

    def use(ref: Any, adder: Any, x: int) -> int:
        return sum(skate.get(ref)) + skate.get(adder.add.remote(x))

    calls = (delayed(use)(ref, adder, x) for x in range(4))
    assert Parallel(n_jobs=2, backend="skate")(calls) == [7, 8, 9, 10]


def test_not_more_than_n_jobs_at_once(tmp_path):
    skate.shutdown()
    skate.init(engine="native", num_cpus=4)
    try:

        def work(folder: Path, number: int) -> int:
            mark = folder / str(number)
            mark.touch()
            time.sleep(0.02)
            running = len(list(folder.iterdir()))
            mark.unlink()
            return running

        calls = (delayed(work)(tmp_path, number) for number in range(20))
        running = Parallel(n_jobs=2, backend="skate", batch_size=1)(calls)
        assert max(running) == 2
    finally:
        skate.shutdown()


def nested(depth: int) -> int:
    if depth == 0:
        return 1
    calls = (delayed(nested)(depth - 1) for _ in range(2))
    return sum(Parallel(n_jobs=2)(calls))


def test_nested_calls_on_one_cpu():
    # Every level waits for the one below and holds a CPU only while it does something.
    skate.shutdown()
    skate.init(engine="native", num_cpus=1)
    try:
        with parallel_config(backend="skate"):
            assert nested(3) == 8
    finally:
        skate.shutdown()


@pytest.mark.timeout(150)
def test_grid_search_gives_the_result_of_loky():
    sklearn = pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    assert sklearn
    skate.shutdown()
    skate.init(engine="native", num_cpus=2)
    try:
        x, y = load_iris(return_X_y=True)
        found = {}
        for backend in ("loky", "skate"):
            search = GridSearchCV(
                RandomForestClassifier(random_state=0, n_estimators=5, n_jobs=2),
                {"max_depth": [1, 3], "min_samples_leaf": [1, 5]},
                n_jobs=-1,
                cv=3,
            )
            with parallel_config(backend=backend):
                search.fit(x, y)
            found[backend] = search
        scores = [found[name].cv_results_["mean_test_score"] for name in ("loky", "skate")]
        assert scores[0].tolist() == scores[1].tolist()
        assert found["skate"].best_params_ == found["loky"].best_params_
    finally:
        skate.shutdown()


def test_without_joblib_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['joblib'] = None\n"
        "from skate.util.joblib import register_skate\n"
        "try: register_skate()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True
    )
    assert "pip install 'skate[joblib]'" in done.stdout
