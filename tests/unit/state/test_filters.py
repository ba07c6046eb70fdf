"""Filters: how they are written, checked, and what they let through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.wire.filters import compare
from skate.state.filters import checked, parse, select
from skate.state.rows import TaskState


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state=RUNNING", ("state", "=", "RUNNING")),
        ("state != RUNNING", ("state", "!=", "RUNNING")),
        ("pid>=3", ("pid", ">=", "3")),
        ("pid<3", ("pid", "<", "3")),
        ("name=a=b", ("name", "=", "a=b")),
        ("name=", ("name", "=", "")),
        ("name!=a>b", ("name", "!=", "a>b")),
    ],
)
def test_parse(text: str, expected: tuple[str, str, str]) -> None:
    assert parse(text) == expected


def test_parse_refuses_what_is_no_filter() -> None:
    with pytest.raises(ValueError, match="'RUNNING' is no filter"):
        parse("RUNNING")


@pytest.mark.parametrize(
    ("value", "operator", "wanted", "expected"),
    [
        ("RUNNING", "=", "running", True),
        ("RUNNING", "!=", "running", False),
        (3, "=", "3", True),
        (3, "<", 4, True),
        (3.5, ">=", "3.5", True),
        (3, "=", "three", False),
        (3, "!=", "three", True),
        (True, "=", "true", True),
        (True, "=", "False", False),
        (False, "=", False, True),
        (None, "=", "", True),
        (None, "=", None, True),
        (None, "=", "x", False),
        (None, "!=", "x", True),
        (None, "<", 3, False),
        ("b", ">", "a", True),
        (["a", "b"], "=", "b", True),
        (["a", "b"], "!=", "c", True),
        (["a", "b"], "<", "c", False),
        ({"CPU": 1.0}, "=", "{'CPU': 1.0}", True),
        ("a", "?", "a", False),
    ],
)
def test_compare(value: object, operator: str, wanted: object, expected: bool) -> None:
    assert compare(value, operator, wanted) is expected


@given(
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(),
        st.floats(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.floats()),
    ),
    operator=st.one_of(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.text()),
    wanted=st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats()),
)
def test_any_value_can_be_compared_with_any_other(value: Any, operator: str, wanted: Any) -> None:
    assert compare(value, operator, wanted) in (True, False)


def test_select_stops_at_the_limit() -> None:
    rows = [TaskState(task_id=str(n), attempt_number=n) for n in range(10)]
    filters = checked([("attempt_number", ">", 2), ("attempt_number", "!=", 5)], TaskState)
    assert [row.task_id for row in select(rows, filters, 3)] == ["3", "4", "6"]
