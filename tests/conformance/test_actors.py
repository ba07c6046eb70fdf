"""Classes as actors."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import Any

import pytest

import skate
from skate.exceptions import ActorDiedError

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
class Counter:
    STEP = 1

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[Any] = []

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def see(self, item: Any) -> None:
        self.seen.append(item)

    def all_seen(self) -> list[Any]:
        return self.seen

    def many(self) -> Any:
        return 1, 2

    @skate.method(num_returns=2)
    def pair(self) -> Any:
        return self.value, -self.value

    @staticmethod
    def double(x: int) -> int:
        return 2 * x

    @classmethod
    def made(cls) -> str:
        return cls.__name__

    @property
    def shown(self) -> int:
        return self.value

    def _private(self) -> str:
        return "private"

    def __len__(self) -> int:
        return self.value

    def __call__(self, x: int) -> int:
        return self.value + x


@skate.remote
def call_add(counter: Any, n: int) -> int:
    return skate.get(counter.add.remote(n))


def test_state() -> None:
    counter = Counter.remote(10)
    assert skate.get([counter.add.remote(), counter.add.remote(5)]) == [11, 16]


def test_actors_are_separate() -> None:
    a, b = Counter.remote(), Counter.remote(100)
    assert skate.get([a.add.remote(), b.add.remote(), a.add.remote()]) == [1, 101, 2]


def test_calls_run_in_their_order() -> None:
    counter = Counter.remote()
    for i in range(500):
        counter.see.remote(i)
    assert skate.get(counter.all_seen.remote()) == list(range(500))


def test_order_holds_while_an_argument_is_missing() -> None:
    @skate.remote
    def late() -> str:
        time.sleep(0.3)
        return "late"

    counter = Counter.remote()
    counter.see.remote(late.remote())
    counter.see.remote("next")
    assert skate.get(counter.all_seen.remote(), timeout=30) == ["late", "next"]


def test_refs_as_arguments() -> None:
    counter = Counter.remote(skate.put(7))
    assert skate.get(counter.add.remote(skate.put(3))) == 10
    nested = [skate.put(1)]
    counter.see.remote(nested)
    (found,) = skate.get(counter.all_seen.remote())
    assert skate.get(found) == [1]


def test_results_feed_other_calls() -> None:
    a, b = Counter.remote(1), Counter.remote(2)
    assert skate.get(b.add.remote(a.add.remote(b.add.remote(10)))) == 25


def test_handles_travel_to_tasks() -> None:
    counter = Counter.remote()
    refs = [call_add.remote(counter, 1) for _ in range(20)]
    assert sorted(skate.get(refs)) == list(range(1, 21))
    assert skate.get(counter.add.remote(0)) == 20


def test_handles_travel_to_actors_and_inside_values() -> None:
    @skate.remote
    class User:
        def __init__(self, box: dict[str, Any]) -> None:
            self.counter = box["counter"]

        def use(self) -> int:
            return skate.get(self.counter.add.remote())

    counter = Counter.remote()
    user = User.remote({"counter": counter})
    assert skate.get(user.use.remote()) == 1
    assert skate.get(skate.put([counter]))[0] == counter


def test_handle_returned_by_a_task_keeps_the_actor() -> None:
    @skate.remote
    def make() -> Any:
        return Counter.remote(5)

    counter = skate.get(make.remote())
    gc.collect()
    assert skate.get(counter.add.remote(), timeout=30) == 6


def test_handle_travels_before_its_actor_exists() -> None:
    @skate.remote
    def late(fail: bool) -> int:
        time.sleep(0.2)
        if fail:
            raise ValueError("never made")
        return 7

    # The constructor waits for its argument, the task does not.
    counter = Counter.remote(late.remote(False))
    assert skate.get(call_add.options(num_cpus=0).remote(counter, 1), timeout=30) == 8
    stillborn = Counter.remote(late.remote(True))
    with pytest.raises(skate.exceptions.SkateError, match="never made"):
        skate.get(call_add.options(num_cpus=0).remote(stillborn, 1), timeout=30)


def test_handles_travel_at_once() -> None:
    counters = [Counter.remote(i) for i in range(6)]
    refs = [call_add.remote(counter, 1) for counter in counters for _ in range(3)]
    assert sum(skate.get(refs, timeout=40)) == 6 * 6 + 3 * 15


def test_handles_in_closures() -> None:
    counter = Counter.remote()

    @skate.remote
    def f() -> int:
        return skate.get(counter.add.remote(3))

    assert skate.get(f.remote()) == 3


def test_methods_as_arguments() -> None:
    @skate.remote
    def apply(method: Any, n: int) -> Any:
        return skate.get(method.remote(n))

    counter = Counter.remote()
    assert skate.get(apply.remote(counter.add, 4)) == 4


def test_actor_that_calls_itself_through_another() -> None:
    @skate.remote
    class Ping:
        def __init__(self) -> None:
            self.depth = 0

        def start(self, me: Any, other: Any) -> int:
            return skate.get(other.back.remote(me))

        def enter(self) -> int:
            self.depth += 1
            return self.depth

    @skate.remote
    class Pong:
        def back(self, ping: Any) -> int:
            return skate.get(ping.enter.remote()) + 10

    ping, pong = Ping.remote(), Pong.remote()
    assert skate.get(ping.start.remote(ping, pong), timeout=30) == 11


def test_actor_that_calls_itself() -> None:
    @skate.remote
    class Selfish:
        def outer(self) -> int:
            me = skate.get_runtime_context().current_actor
            return skate.get(me.inner.remote()) + 1

        def inner(self) -> int:
            return 1

    assert skate.get(Selfish.remote().outer.remote(), timeout=30) == 2


def test_actors_that_make_actors() -> None:
    @skate.remote
    class Parent:
        def __init__(self) -> None:
            self.children = [Counter.remote(i) for i in range(3)]

        def total(self) -> int:
            return sum(skate.get([child.add.remote() for child in self.children]))

    assert skate.get(Parent.remote().total.remote(), timeout=30) == 6


def test_actors_that_start_tasks() -> None:
    @skate.remote
    def square(x: int) -> int:
        return x * x

    @skate.remote
    class Boss:
        def work(self) -> int:
            return sum(skate.get([square.remote(i) for i in range(5)]))

    assert skate.get(Boss.remote().work.remote(), timeout=30) == 30


def test_many_actors_hold_no_cpus() -> None:
    actors = [Counter.remote(i) for i in range(8)]
    assert skate.get([actor.add.remote() for actor in actors], timeout=50) == list(range(1, 9))
    assert skate.get(call_add.remote(actors[0], 1), timeout=30) == 2


def test_temporary_handle() -> None:
    assert skate.get(Counter.remote(1).add.remote(), timeout=30) == 2


def test_method_options() -> None:
    counter = Counter.remote(4)
    assert skate.get(counter.pair.remote()) == [4, -4]
    first, second = counter.many.options(num_returns=2).remote()
    assert skate.get([first, second]) == [1, 2]
    assert skate.get(counter.many.remote()) == (1, 2)
    assert counter.add.options(num_returns=0).remote() is None
    assert skate.get(counter.add.options(name="renamed").remote()) == 6


def test_static_class_private_and_special_methods() -> None:
    counter = Counter.remote(3)
    assert skate.get(counter.double.remote(4)) == 8
    assert skate.get(counter.made.remote()) == "Counter"
    assert skate.get(counter._private.remote()) == "private"
    assert skate.get(counter.__len__.remote()) == 3
    assert skate.get(counter.__call__.remote(4)) == 7
    assert skate.get(counter.__ray_ready__.remote()) is True


def test_attributes_of_the_class() -> None:
    assert Counter.STEP == 1
    assert Counter.double(4) == 8
    assert Counter.__name__ == "Counter"


def test_unknown_methods_fail_at_once() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="Did you mean 'add'"):
        counter.ad  # noqa: B018
    with pytest.raises(AttributeError, match="shown"):
        counter.shown  # noqa: B018
    with pytest.raises(AttributeError, match="value"):
        counter.value = 5


def test_wrong_arguments_fail_at_once() -> None:
    with pytest.raises(TypeError, match="Counter"):
        Counter.remote(1, 2)
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"Counter\.add"):
        counter.add.remote(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword"):
        counter.add.remote(m=1)
    with pytest.raises(TypeError, match=r"Counter\.double"):
        counter.double.remote()


def test_direct_use_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"Counter\.remote"):
        Counter()
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"handle\.add\.remote"):
        counter.add()


def test_inheritance() -> None:
    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

        def both(self) -> str:
            return "base"

        def base_only(self) -> int:
            return self.x

    @skate.remote
    class Derived(Base):
        def __init__(self, x: int) -> None:
            super().__init__(x * 2)

        def both(self) -> str:
            return "derived " + super().both()

    derived = Derived.remote(4)
    assert skate.get([derived.base_only.remote(), derived.both.remote()]) == [8, "derived base"]


def test_inheritance_from_an_actor_class() -> None:
    @skate.remote
    class More(Counter):  # type: ignore[misc]  # ActorClass.__mro_entries__ puts in the class
        def twice(self) -> int:
            self.add()
            return self.add()

    assert skate.get(More.remote(5).twice.remote()) == 7


def test_class_without_constructor() -> None:
    @skate.remote
    class Plain:
        def hello(self) -> str:
            return "hello"

    assert skate.get(Plain.remote().hello.remote()) == "hello"
    with pytest.raises(TypeError):
        Plain.remote(1)


def test_handles_are_equal_hashable_and_printable() -> None:
    a, b = Counter.remote(), Counter.remote()
    (again,) = skate.get(skate.put([a]))
    assert a == again
    assert a != b
    assert len({a, again, b}) == 2
    assert "Counter" in repr(a)
    assert isinstance(a, skate.actor.ActorHandle)
    assert "add" in dir(a)
    assert "__len__" not in dir(a)


# --------------------------------------------------------------------------- names


def test_named_actor() -> None:
    counter = Counter.options(name="named").remote(1)
    assert skate.get(skate.get_actor("named").add.remote()) == 2

    @skate.remote
    def elsewhere() -> int:
        return skate.get(skate.get_actor("named").add.remote())

    assert skate.get(elsewhere.remote()) == 3
    with pytest.raises(ValueError, match="named"):
        Counter.options(name="named").remote()
    assert skate.get(counter.add.remote()) == 4


def test_name_in_another_namespace() -> None:
    here = Counter.options(name="where").remote(1)
    there = Counter.options(name="where", namespace="other").remote(100)
    assert skate.get(skate.get_actor("where").add.remote()) == 2
    assert skate.get(skate.get_actor("where", namespace="other").add.remote()) == 101
    assert here != there


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="nobody"):
        skate.get_actor("nobody")
    with pytest.raises(ValueError, match="empty"):
        skate.get_actor("")
    with pytest.raises(TypeError):
        skate.get_actor(5)  # type: ignore[arg-type]


def test_get_if_exists() -> None:
    made = Counter.options(name="maybe", get_if_exists=True)
    a = made.remote(1)
    b = made.remote(50)
    assert a == b
    assert skate.get([a.add.remote(), b.add.remote()]) == [2, 3]


def test_name_is_free_after_death() -> None:
    counter = Counter.options(name="reused").remote()
    skate.get(counter.add.remote())
    skate.kill(counter)
    deadline = time.monotonic() + 20
    while True:
        try:
            again = Counter.options(name="reused").remote(10)
            break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert skate.get(again.add.remote(), timeout=30) == 11


def test_actor_ends_with_its_last_handle() -> None:
    counter = Counter.options(name="short-lived").remote()
    other = skate.get_actor("short-lived")
    assert skate.get(other.add.remote()) == 1
    del counter
    gc.collect()
    deadline = time.monotonic() + 20
    with contextlib.suppress(ActorDiedError):
        while time.monotonic() < deadline:
            skate.get(other.add.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        skate.get(other.add.remote(), timeout=30)
    with pytest.raises(ValueError, match="short-lived"):
        skate.get_actor("short-lived")


def test_detached_actor_lives_without_handles() -> None:
    counter = Counter.options(name="detached", lifetime="detached").remote(1)
    assert skate.get(counter.add.remote()) == 2
    del counter
    gc.collect()
    found = skate.get_actor("detached")
    assert skate.get(found.add.remote()) == 3
    skate.kill(found)


# --------------------------------------------------------------------------- death


def test_kill() -> None:
    counter = Counter.remote()
    assert skate.get(counter.add.remote()) == 1
    skate.kill(counter)
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="kill"):
            skate.get(counter.add.remote(), timeout=30)
    skate.kill(counter)


def test_result_outlives_the_actor() -> None:
    @skate.remote
    class Maker:
        def make(self, n: int) -> bytes:
            return b"m" * n

    maker = Maker.remote()
    small, large = maker.make.remote(10), maker.make.remote(1_000_000)
    skate.wait([small, large], num_returns=2, timeout=30)
    skate.kill(maker)
    assert len(skate.get(small, timeout=30)) == 10
    assert len(skate.get(large, timeout=30)) == 1_000_000


def test_kill_with_restart() -> None:
    @skate.remote(max_restarts=1, max_task_retries=-1)
    class Phoenix:
        def __init__(self) -> None:
            self.calls = 0

        def call(self) -> Any:
            self.calls += 1
            again = skate.get_runtime_context().was_current_actor_reconstructed
            return self.calls, again

    phoenix = Phoenix.remote()
    assert skate.get(phoenix.call.remote(), timeout=30) == (1, False)
    skate.kill(phoenix, no_restart=False)
    # A call may still reach the first life; the constructor of the second starts from nothing.
    answers = []
    deadline = time.monotonic() + 30
    while not (answers and answers[-1][1]):
        assert time.monotonic() < deadline
        answers.append(skate.get(phoenix.call.remote(), timeout=30))
    assert answers[-1] == (1, True)
    skate.kill(phoenix, no_restart=False)
    with contextlib.suppress(ActorDiedError):
        while time.monotonic() < deadline:
            skate.get(phoenix.call.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        skate.get(phoenix.call.remote(), timeout=30)


def test_kill_of_something_else() -> None:
    with pytest.raises(ValueError, match="handle"):
        skate.kill(skate.put(1))
    with pytest.raises(ValueError, match="handle"):
        skate.kill("counter")


def test_actor_that_exits() -> None:
    @skate.remote
    class Quitter:
        def leave(self, by_name: bool) -> None:
            if by_name:
                skate.actor.exit_actor()
            raise SystemExit(0)

        def stay(self) -> int:
            return 1

    for by_name in (True, False):
        quitter = Quitter.remote()
        assert skate.get(quitter.stay.remote(), timeout=30) == 1
        with pytest.raises(skate.exceptions.SkateError):
            skate.get(quitter.leave.remote(by_name), timeout=30)
        with pytest.raises(ActorDiedError):
            skate.get(quitter.stay.remote(), timeout=30)
    with pytest.raises(TypeError, match="actor"):
        skate.actor.exit_actor()


# --------------------------------------------------------------------------- resources and threads


def test_resources_of_actors() -> None:
    @skate.remote(num_gpus=1)
    class Trainer:
        def where(self) -> Any:
            context = skate.get_runtime_context()
            return (
                skate.get_gpu_ids(),
                context.get_accelerator_ids(),
                context.get_assigned_resources(),
            )

    gpus, accelerators, assigned = skate.get(Trainer.remote().where.remote(), timeout=30)
    assert gpus == [0]
    assert accelerators == {"GPU": ["0"]}
    assert assigned == {"GPU": 1.0}


@pytest.mark.differs("inline", reason="calls run one after the other in the caller's thread")
def test_calls_at_the_same_time() -> None:
    @skate.remote(max_concurrency=2)
    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(2)

        def meet(self) -> bool:
            self.barrier.wait(timeout=20)
            return True

    meeting = Meeting.remote()
    assert skate.get([meeting.meet.remote(), meeting.meet.remote()], timeout=30) == [True, True]


def test_driver_with_several_threads() -> None:
    counter = Counter.remote()
    results: list[int] = []

    def work() -> None:
        results.extend(skate.get([counter.add.remote() for _ in range(50)], timeout=30))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=40)
    assert sorted(results) == list(range(1, 201))
