"""Functions as tasks."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest

import skate
from skate.exceptions import GetTimeoutError, NotSupportedError

pytestmark = pytest.mark.usefixtures("session")

FACTOR = 3


def module_level_helper(x: int) -> int:
    return x * FACTOR


class ModuleLevelError(Exception):
    pass


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@skate.remote
def add(x: int, y: int = 10) -> int:
    return x + y


@skate.remote
def factorial(n: int) -> int:
    return 1 if n <= 1 else n * skate.get(factorial.remote(n - 1))


def test_call_and_get() -> None:
    assert skate.get(add.remote(1, 2)) == 3


def test_defaults_and_keywords() -> None:
    assert skate.get([add.remote(1), add.remote(x=1), add.remote(1, y=5)]) == [11, 11, 6]


def test_variable_arguments() -> None:
    @skate.remote
    def collect(first: int, *rest: int, **named: int) -> Any:
        return first, rest, named

    assert skate.get(collect.remote(1, 2, 3, a=4)) == (1, (2, 3), {"a": 4})


def test_positional_only_and_keyword_only() -> None:
    @skate.remote
    def f(a: int, /, *, b: int) -> int:
        return a - b

    assert skate.get(f.remote(5, b=3)) == 2
    with pytest.raises(TypeError, match="b"):
        f.remote(5)
    with pytest.raises(TypeError, match="a"):
        f.remote(a=5, b=3)


def test_keyword_arguments_called_like_our_own() -> None:
    @skate.remote
    def f(self: int, args: int, kwargs: int, options: int) -> int:
        return self + args + kwargs + options

    assert skate.get(f.remote(1, args=2, kwargs=3, options=4)) == 10


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**100,
        1.5,
        float("inf"),
        1j,
        "",
        "text \N{SNOWMAN}",
        b"bytes",
        (),
        [],
        {},
        set(),
        frozenset({1}),
        (1, [2, {"three": {4}}]),
        {(1, 2): None},
        range(5),
        b"x" * 1_000_000,
        "y" * 1_000_000,
        list(range(100_000)),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}",
)
def test_values_survive(value: object) -> None:
    @skate.remote
    def same(x: object) -> object:
        return x

    result = skate.get(same.remote(value))
    assert result == value
    assert type(result) is type(value)


def test_remote_function_that_returns_nothing() -> None:
    @skate.remote
    def nothing() -> None:
        pass

    assert skate.get(nothing.remote()) is None


def test_lambda_closure_partial_and_builtin() -> None:
    offset = 100
    assert skate.get(skate.remote(lambda x: x + offset).remote(1)) == 101
    assert skate.get(skate.remote(functools.partial(pow, 2)).remote(5)) == 32
    assert skate.get(skate.remote(len).remote([1, 2, 3])) == 3


def test_helpers_of_the_module_are_found() -> None:
    @skate.remote
    def f(x: int) -> int:
        return module_level_helper(x)

    assert skate.get(f.remote(2)) == 6


def test_instances_of_classes_of_the_module() -> None:
    @skate.remote
    def f(point: Point) -> Point:
        return Point(point.x + 1)

    result = skate.get(f.remote(Point(1)))
    assert isinstance(result, Point)
    assert result.x == 2


def test_exceptions_of_the_module() -> None:
    @skate.remote
    def f() -> None:
        raise ModuleLevelError("here")

    with pytest.raises(ModuleLevelError, match="here"):
        skate.get(f.remote())


def test_recursion() -> None:
    assert skate.get(factorial.remote(6)) == 720


def test_remote_function_inside_a_closure() -> None:
    @skate.remote
    def inner(x: int) -> int:
        return x + 1

    @skate.remote
    def outer(x: int) -> int:
        return skate.get(inner.remote(x)) * 10

    assert skate.get(outer.remote(1)) == 20


def test_remote_function_as_an_argument() -> None:
    @skate.remote
    def apply(f: Any, x: int) -> Any:
        return skate.get(f.remote(x))

    assert skate.get(apply.remote(add, 5)) == 15
    assert skate.get(apply.remote(factorial, 4)) == 24
    assert skate.get(apply.remote(add.options(num_returns=1), 1)) == 11


def test_task_that_returns_a_ref() -> None:
    @skate.remote
    def launch(x: int) -> Any:
        return add.remote(x)

    inner = skate.get(launch.remote(1))
    assert isinstance(inner, skate.ObjectRef)
    assert skate.get(inner) == 11


def test_refs_at_the_top_level_are_resolved() -> None:
    chained = add.remote(add.remote(1, 1), y=add.remote(2, 2))
    assert skate.get(chained) == 6


def test_refs_inside_values_stay_refs() -> None:
    @skate.remote
    def look(items: Any) -> Any:
        return [type(items[0]).__name__, skate.get(items[0]), skate.get(items[1]["deep"])]

    refs = [skate.put("a"), {"deep": add.remote(1, 1)}]
    assert skate.get(look.remote(refs)) == ["ObjectRef", "a", 2]


def test_same_ref_twice() -> None:
    ref = skate.put([1])
    assert skate.get(add.remote(ref, ref)) == [1, 1]


def test_graph_of_tasks() -> None:
    layer = [skate.put(i) for i in range(16)]
    while len(layer) > 1:
        layer = [add.remote(a, b) for a, b in zip(layer[::2], layer[1::2], strict=True)]
    assert skate.get(layer[0]) == sum(range(16))


def test_many_tasks() -> None:
    assert skate.get([add.remote(i, i) for i in range(2000)]) == [2 * i for i in range(2000)]


def test_fib_as_nested_tasks() -> None:
    @skate.remote
    def fib(n: int) -> int:
        if n < 2:
            return n
        return sum(skate.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert skate.get(fib.remote(8)) == 21


def test_tasks_nested_fifty_deep() -> None:
    @skate.remote
    def deep(n: int) -> int:
        return 0 if n == 0 else 1 + skate.get(deep.remote(n - 1))

    assert skate.get(deep.remote(50)) == 50


def test_twenty_tasks_that_each_await_another() -> None:
    @skate.remote
    def parent(i: int) -> int:
        return skate.get(add.remote(i, 1))

    assert skate.get([parent.remote(i) for i in range(20)]) == list(range(1, 21))


def test_num_returns() -> None:
    @skate.remote(num_returns=3)
    def three() -> Any:
        return 1, "two", [3]

    refs = three.remote()
    assert len(refs) == 3
    assert skate.get(refs) == [1, "two", [3]]
    assert skate.get(refs[1]) == "two"


def test_num_returns_of_options() -> None:
    @skate.remote
    def pair() -> Any:
        return [1, 2]

    assert skate.get(pair.remote()) == [1, 2]
    first, second = pair.options(num_returns=2).remote()
    assert skate.get([second, first]) == [2, 1]
    assert skate.get(pair.remote()) == [1, 2]


def test_num_returns_zero_runs_and_returns_none(tmp_path: Path) -> None:
    path = tmp_path / "ran"

    @skate.remote(num_returns=0)
    def write() -> None:
        path.write_text("yes")

    assert write.remote() is None
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, "the task never ran"
        time.sleep(0.005)


@pytest.mark.parametrize("result", [(1,), (1, 2, 3), 5, None])
def test_wrong_number_of_returns(result: object) -> None:
    @skate.remote(num_returns=2)
    def wrong() -> object:
        return result

    for ref in wrong.remote():
        with pytest.raises(ValueError, match="num_returns=2"):
            skate.get(ref)


def test_large_returns_side_by_side() -> None:
    @skate.remote(num_returns=2)
    def two() -> Any:
        return b"a" * 500_000, b"b" * 300_000

    a, b = skate.get(two.remote())
    assert (len(a), len(b)) == (500_000, 300_000)


def test_arguments_are_copies() -> None:
    @skate.remote
    def spoil(items: list[int]) -> list[int]:
        items.append(4)
        return items

    mine = [1, 2, 3]
    assert skate.get(spoil.remote(mine)) == [1, 2, 3, 4]
    assert mine == [1, 2, 3]


def test_arguments_are_taken_at_the_call() -> None:
    @skate.remote
    def same(x: list[int]) -> list[int]:
        return x

    items = [1]
    ref = same.remote(items)
    items.append(2)
    assert skate.get(ref) == [1]


def test_results_are_copies() -> None:
    ref = skate.put([1])
    skate.get(ref).append(2)
    assert skate.get(ref) == [1]


def test_globals_of_the_driver_are_not_changed() -> None:
    @skate.remote
    def change() -> int:
        global FACTOR
        FACTOR = 5
        return FACTOR

    assert skate.get(change.remote()) == 5
    assert FACTOR == 3


def test_large_argument_used_by_many_tasks() -> None:
    @skate.remote
    def size(data: bytes) -> int:
        return len(data)

    ref = skate.put(b"z" * 2_000_000)
    assert skate.get([size.remote(ref) for _ in range(20)]) == [2_000_000] * 20
    assert skate.get(size.remote(b"z" * 2_000_000)) == 2_000_000


def test_options_leave_the_original_alone() -> None:
    named = add.options(name="other", max_retries=0)
    assert skate.get([named.remote(1), add.remote(1)]) == [11, 11]


def test_task_retries_after_exceptions(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @skate.remote(max_retries=3, retry_exceptions=True)
    def flaky() -> int:
        with log.open("a") as file:
            file.write("x")
        tries = len(log.read_text())
        if tries < 3:
            raise OSError("not yet")
        return tries

    assert skate.get(flaky.remote()) == 3


def test_no_retries_after_exceptions_by_default(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @skate.remote
    def failing() -> None:
        with log.open("a") as file:
            file.write("x")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        skate.get(failing.remote())
    assert log.read_text() == "x"


def test_retry_exceptions_selects_by_class(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @skate.remote(max_retries=2, retry_exceptions=[ConnectionError])
    def failing(kind: type[Exception]) -> None:
        with log.open("a") as file:
            file.write("x")
        raise kind("no")

    with pytest.raises(ValueError, match="no"):
        skate.get(failing.remote(ValueError))
    assert log.read_text() == "x"
    with pytest.raises(ConnectionResetError, match="no"):
        skate.get(failing.remote(ConnectionResetError))
    assert log.read_text() == "xxxx"


def test_retry_exceptions_with_a_class_of_the_module(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @skate.remote(max_retries=1, retry_exceptions=[ModuleLevelError])
    def failing() -> None:
        with log.open("a") as file:
            file.write("x")
        raise ModuleLevelError

    with pytest.raises(ModuleLevelError):
        skate.get(failing.remote())
    assert log.read_text() == "xx"


def test_task_that_exits_is_an_error_and_ends_nothing_else() -> None:
    @skate.remote(max_retries=0)
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(skate.exceptions.SkateError):
        skate.get(leave.remote(), timeout=30)
    assert skate.get(add.remote(1)) == 11


def test_resources_of_tasks() -> None:
    @skate.remote(num_cpus=0.5, num_gpus=1, resources={"widget": 2})
    def f() -> Any:
        assigned = skate.get_runtime_context().get_assigned_resources()
        return assigned, skate.get_gpu_ids()

    assigned, gpus = skate.get(f.remote())
    assert assigned == {"CPU": 0.5, "GPU": 1.0, "widget": 2.0}
    assert gpus == [0]


def test_zero_cpus() -> None:
    assert skate.get(add.options(num_cpus=0).remote(1)) == 11


@pytest.mark.differs("inline", reason="nothing runs beside the caller, so nothing can wait")
def test_tasks_run_at_the_same_time(tmp_path: Path) -> None:
    @skate.remote
    def meet(me: str, other: str) -> bool:
        (tmp_path / me).touch()
        deadline = time.monotonic() + 20
        while not (tmp_path / other).exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    assert skate.get([meet.remote("a", "b"), meet.remote("b", "a")], timeout=50) == [True, True]


@pytest.mark.differs("inline", reason="a task has finished before get is called")
def test_get_times_out_and_the_task_goes_on() -> None:
    @skate.remote
    def slow() -> str:
        time.sleep(0.3)
        return "done"

    ref = slow.remote()
    started = time.monotonic()
    with pytest.raises(GetTimeoutError):
        skate.get(ref, timeout=0.02)
    with pytest.raises(TimeoutError):
        skate.get([ref], timeout=0)
    assert time.monotonic() - started < 0.25
    assert skate.get(ref, timeout=30) == "done"


@pytest.mark.differs(
    "inline", reason="it runs what asks for too much, with a warning: see next test"
)
def test_more_cpus_than_exist_waits_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ref = add.options(num_cpus=64, name="glutton").remote(1)
    with pytest.raises(GetTimeoutError):
        skate.get(ref, timeout=1)
    assert "glutton" in caplog.text
    assert "64" in caplog.text
    skate.cancel(ref)
    # Others are not held up.
    assert skate.get(add.remote(1), timeout=30) == 11


@pytest.mark.differs("native", reason="a task that asks for too much waits: see the test before")
def test_more_cpus_than_exist_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert skate.get(add.options(num_cpus=64, name="glutton").remote(1)) == 11
    assert "glutton" in caplog.text
    assert "64" in caplog.text


def test_calling_directly_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"add\.remote"):
        add(1, 2)


def test_wrong_arguments_fail_at_the_call() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        add.remote()
    with pytest.raises(TypeError, match="too many positional"):
        add.remote(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        add.remote(1, z=2)
    # A shape that was refused once is refused again.
    with pytest.raises(TypeError):
        add.remote(1, 2, 3)


def test_async_functions_are_refused() -> None:
    async def coroutine() -> None:
        pass

    with pytest.raises(NotSupportedError, match="async"):
        skate.remote(coroutine)
