"""Runtime environments: what the checks say on every engine, and what variables do."""

from __future__ import annotations

import os
from typing import Any

import pytest

import skate
from skate.exceptions import NotSupportedError
from skate.runtime_env import RuntimeEnv

INLINE = pytest.mark.differs("inline", reason="it has the environment of the calling process")


@skate.remote
def variable(name: str) -> str | None:
    return os.environ.get(name)


@skate.remote
def nested(name: str, **options: Any) -> str | None:
    value: str | None = skate.get(variable.options(**options).remote(name))
    return value


@skate.remote
class Keeper:
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def of_a_task(self, name: str) -> str | None:
        value: str | None = skate.get(variable.remote(name))
        return value


@INLINE
def test_variables_of_tasks_and_actors(session: str) -> None:
    runtime_env = {"env_vars": {"SKATE_TEST_COLOUR": "red"}}
    assert skate.get(variable.options(runtime_env=runtime_env).remote("SKATE_TEST_COLOUR")) == "red"
    keeper = Keeper.options(runtime_env=RuntimeEnv(**runtime_env)).remote()
    assert skate.get(keeper.variable.remote("SKATE_TEST_COLOUR")) == "red"
    decorated = skate.remote(runtime_env=runtime_env)(lambda name: os.environ.get(name))
    assert skate.get(decorated.remote("SKATE_TEST_COLOUR")) == "red"


@INLINE
def test_variables_stay_in_their_environment(session: str) -> None:
    for colour in ("red", "green", None, "red", None):
        runtime_env = {"env_vars": {"SKATE_TEST_COLOUR": colour}} if colour else {}
        refs = [
            variable.options(runtime_env=runtime_env).remote("SKATE_TEST_COLOUR") for _ in range(8)
        ]
        assert skate.get(refs) == [colour] * 8


@INLINE
def test_children_inherit_and_override(session: str) -> None:
    outer = nested.options(runtime_env={"env_vars": {"SKATE_TEST_A": "1", "SKATE_TEST_B": "1"}})
    inner = {"env_vars": {"SKATE_TEST_B": "2"}}
    assert skate.get(outer.remote("SKATE_TEST_A")) == "1"
    assert skate.get(outer.remote("SKATE_TEST_A", runtime_env=inner)) == "1"
    assert skate.get(outer.remote("SKATE_TEST_B", runtime_env=inner)) == "2"
    keeper = Keeper.options(runtime_env=inner).remote()
    assert skate.get(keeper.of_a_task.remote("SKATE_TEST_B")) == "2"


@INLINE
def test_the_environment_of_the_session(no_session: str) -> None:
    skate.init(num_cpus=2, runtime_env={"env_vars": {"SKATE_TEST_A": "1", "SKATE_TEST_B": "1"}})
    changed = variable.options(runtime_env={"env_vars": {"SKATE_TEST_B": "2"}})
    assert skate.get([variable.remote("SKATE_TEST_A"), changed.remote("SKATE_TEST_A")]) == ["1"] * 2
    assert skate.get(changed.remote("SKATE_TEST_B")) == "2"
    assert skate.get(Keeper.remote().variable.remote("SKATE_TEST_B")) == "1"
    assert os.environ.get("SKATE_TEST_A") is None


@INLINE
def test_a_value_may_refer_to_what_was_there(session: str) -> None:
    runtime_env = {"env_vars": {"PATH": "/somewhere:${PATH}", "SKATE_TEST_A": "[${SKATE_NOT_SET}]"}}
    path = skate.get(variable.options(runtime_env=runtime_env).remote("PATH"))
    assert path == f"/somewhere:{os.environ['PATH']}"
    assert skate.get(variable.options(runtime_env=runtime_env).remote("SKATE_TEST_A")) == "[]"


@INLINE
def test_variables_that_count_when_a_process_starts(session: str) -> None:
    @skate.remote
    def hash_seed() -> tuple[str | None, int]:
        return os.environ.get("PYTHONHASHSEED"), hash("skate")

    runtime_env = {"env_vars": {"PYTHONHASHSEED": "7"}}
    first = skate.get(hash_seed.options(runtime_env=runtime_env).remote())
    other = {"env_vars": {"PYTHONHASHSEED": "7", "SKATE_TEST_A": "1"}}
    assert first == skate.get(hash_seed.options(runtime_env=other).remote())
    assert first[0] == "7"


@INLINE
def test_the_context_tells(session: str) -> None:
    @skate.remote
    def context() -> tuple[dict[str, Any], str]:
        here = skate.get_runtime_context()
        return here.runtime_env.to_dict(), here.get_runtime_env_string()

    runtime_env = {"env_vars": {"SKATE_TEST_A": "1"}}
    fields, text = skate.get(context.options(runtime_env=runtime_env).remote())
    assert fields == runtime_env
    assert text == '{"env_vars": {"SKATE_TEST_A": "1"}}'
    assert skate.get(context.remote())[0] == {}
    assert skate.get_runtime_context().runtime_env == {}


@INLINE
def test_a_remote_function_takes_its_environment_along(session: str) -> None:
    configured = variable.options(runtime_env={"env_vars": {"SKATE_TEST_A": "1"}})

    @skate.remote
    def call() -> str | None:
        value: str | None = skate.get(configured.remote("SKATE_TEST_A"))
        return value

    assert skate.get(call.remote()) == "1"


@INLINE
def test_an_actor_that_is_restarted_is_in_its_environment(session: str) -> None:
    @skate.remote(max_restarts=1, max_task_retries=1)
    class Fragile:
        def __init__(self) -> None:
            self.colour = os.environ.get("SKATE_TEST_COLOUR")

        def die_once(self) -> str | None:
            if not skate.get_runtime_context().was_current_actor_reconstructed:
                os._exit(1)
            return self.colour

    runtime_env = {"env_vars": {"SKATE_TEST_COLOUR": "red"}}
    fragile = Fragile.options(runtime_env=runtime_env).remote()
    assert skate.get(fragile.die_once.remote()) == "red"


def test_an_empty_environment_is_none(session: str) -> None:
    assert skate.get(variable.options(runtime_env={}).remote("SKATE_TEST_A")) is None
    assert skate.get(variable.options(runtime_env=None).remote("SKATE_TEST_A")) is None


def test_mistakes_are_refused_when_they_are_written(session: str) -> None:
    with pytest.raises(ValueError, match=r"no field 'env_var'\. Did you mean 'env_vars'\?"):
        variable.options(runtime_env={"env_var": {}})
    with pytest.raises(TypeError, match="must be a string, not 1: say '1'"):
        skate.remote(runtime_env={"env_vars": {"A": 1}})(os.getpid)
    with pytest.raises(TypeError, match="runtime_env must be a dict"):
        Keeper.options(runtime_env="env_vars")
    with pytest.raises(ValueError, match="there is no /no/such/directory"):
        Keeper.options(runtime_env={"working_dir": "/no/such/directory"})


def test_the_inline_engine_refuses(no_session: str) -> None:
    if no_session != "inline":
        pytest.skip("about the inline engine")
    with pytest.raises(NotSupportedError, match="env_vars"):
        skate.init(runtime_env={"env_vars": {"A": "1"}})
    with pytest.raises(NotSupportedError, match="use the native engine"):
        variable.options(runtime_env={"env_vars": {"A": "1"}}).remote("A")
    with pytest.raises(NotSupportedError, match="use the native engine"):
        Keeper.options(runtime_env={"env_vars": {"A": "1"}}).remote()
