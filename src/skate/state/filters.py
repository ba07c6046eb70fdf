"""Filters of the state API: checked against the columns, applied to rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from skate.state.rows import Row

if TYPE_CHECKING:
    from skate.runtime.wire.state import Filter

R = TypeVar("R", bound=Row)

#: Spellings of the operators, for ``parse``: the longest first.
SPELLINGS = ("!=", "<=", ">=", "=", "<", ">")
#: Most rows that one call returns, as in Ray: nobody reads more, and answers stay small.
MOST_ROWS = 10_000


def checked(filters: object, row: type[Row]) -> list[Filter]:
    """Check ``[(column, operator, value), ...]``.

    Raises:
        ValueError: There is no such column or operator.
        TypeError: It is no list of triples.
    """
    if filters is None:
        return []
    if not isinstance(filters, list | tuple):
        raise TypeError(f"filters must be a list of (column, operator, value), not {filters!r}")
    result: list[Filter] = []
    for one in filters:
        if not isinstance(one, list | tuple) or len(one) != 3:
            raise TypeError(f"a filter is (column, operator, value), not {one!r}")
        column, operator, value = one
        columns = row.keys()
        if column not in columns:
            close = difflib.get_close_matches(str(column), columns, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"there is no column {column!r} to filter by, only {', '.join(columns)}{hint}"
            )
        if operator not in SPELLINGS:
            raise ValueError(
                f"there is no operator {operator!r} for filters, only {', '.join(SPELLINGS)}"
            )
        if value is not None and not isinstance(value, str | int | float | bool):
            raise TypeError(f"a filter compares with a string or a number, not with {value!r}")
        result.append((column, operator, value))
    return result


def parse(text: str) -> tuple[str, str, str]:
    """Read a filter as it is written on the command line, e.g. ``state=RUNNING``.

    Raises:
        ValueError: It has no operator.
    """
    positions = [(text.find(s), -len(s), s) for s in SPELLINGS if s in text]
    if not positions:
        raise ValueError(
            f"{text!r} is no filter: write COLUMN=VALUE, or with one of {', '.join(SPELLINGS)}"
        )
    position, _, operator = min(positions)
    return text[:position].strip(), operator, text[position + len(operator) :].strip()


def checked_limit(limit: object) -> int:
    """Check the largest number of rows.

    Raises:
        ValueError: It is not between 1 and 10,000.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_ROWS:
        raise ValueError(f"limit must be a whole number from 1 to {MOST_ROWS}, not {limit!r}")
    return limit


def select(rows: Iterable[R], filters: Sequence[Any], limit: int) -> list[R]:
    """Return the first ``limit`` rows that pass all filters."""
    from skate.runtime.wire.filters import matches

    chosen: list[R] = []
    for row in rows:
        if filters and not matches(row, filters):
            continue
        chosen.append(row)
        if len(chosen) == limit:
            break
    return chosen
