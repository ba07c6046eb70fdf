"""Rows as XGBoost takes them: features, and beside them labels, weights and so on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from skate.xgboost.data import tables

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: What a row has beside its features, by the names in ``xgboost.DMatrix``.
FIELDS = ("label", "weight", "base_margin", "qid", "label_lower_bound", "label_upper_bound")
#: Those that have no use in a prediction.
_NOT_FOR_PREDICTION = frozenset(FIELDS) - {"base_margin"}

#: Names of columns by field; several for labels and margins of more than one target.
FieldColumns: TypeAlias = "dict[str, str | list[str]]"


@dataclass(slots=True)
class Batch:
    """Some rows.

    Attributes:
        features: a table (see ``tables``).
        fields: arrays with one entry per row, by name.  Also ``weight`` of ranking data, which
            XGBoost wants by group: rows can be cut and put together without looking at groups.
    """

    features: Any
    fields: dict[str, npt.NDArray[Any]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return tables.row_count(self.features)

    def part(self, chosen: slice) -> Batch:
        """Return some of the rows, as views where that is possible."""
        return Batch(
            tables.rows(self.features, chosen),
            {name: values[chosen] for name, values in self.fields.items()},
        )

    def head(self) -> Batch:
        """Return none of the rows, in memory of their own: what kind of rows these are."""
        nothing = self.part(slice(0, 0))
        return Batch(
            tables.compact(nothing.features),
            {name: values.copy() for name, values in nothing.fields.items()},
        )

    def compact(self) -> Batch:
        """Return the same rows in memory of their own; see ``tables.compact``."""
        import numpy as np

        fields = {name: np.ascontiguousarray(values) for name, values in self.fields.items()}
        return Batch(tables.compact(self.features), fields)

    def arguments(self, *, predict: bool = False) -> dict[str, Any]:
        """Return arguments of ``xgboost.DMatrix``."""
        fields = dict(self.fields)
        if predict:
            for name in _NOT_FOR_PREDICTION & fields.keys():
                del fields[name]
        if "weight" in fields and "qid" in fields:
            fields["weight"] = fields["weight"][group_starts(fields["qid"])]
        return {"data": self.features, **fields}


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all batches as one."""
    import numpy as np

    if len(batches) == 1:
        return batches[0]
    return Batch(
        tables.concatenate([batch.features for batch in batches]),
        {
            name: np.concatenate([batch.fields[name] for batch in batches])
            for name in batches[0].fields
        },
    )


def whole_groups(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the same rows in batches that end where a query group does.

    XGBoost takes the end of a batch for the end of a group.
    """
    held: list[Batch] = []
    for batch in batches:
        if not batch.rows:
            continue
        qid = batch.fields["qid"]
        if held and held[-1].fields["qid"][-1] != qid[0]:
            yield concatenate(held)
            held = []
        last = int(group_starts(qid)[-1])
        if last:
            yield concatenate([*held, batch.part(slice(0, last))])
            held = []
        held.append(batch.part(slice(last, batch.rows)))
    if held:
        yield concatenate(held)


def group_starts(qid: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the first rows of the groups of consecutive equal ids.

    Raises:
        ValueError: the ids do not ascend, so that groups are scattered.
    """
    import numpy as np

    if not len(qid):
        return np.zeros(0, dtype=np.intp)
    steps = np.flatnonzero(qid[1:] != qid[:-1])
    if (qid[1:] < qid[:-1]).any():
        raise ValueError("qid has to be sorted: rows of a query group have to be consecutive")
    starts: npt.NDArray[np.intp] = np.concatenate(([0], steps + 1)).astype(np.intp)
    return starts


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a table is what.

    Attributes:
        fields: columns that are no features.
        features: the features in their order; None for tables without names.
    """

    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    features: Sequence[Any] | None = None

    @property
    def needed(self) -> list[Any] | None:
        """All columns that are read; None: all there are."""
        if self.features is None:
            return None
        return list(dict.fromkeys([*self.features, *flat(self.fields.values())]))

    def take(self, table: Any) -> Batch:
        """Return the rows of a table.

        Raises:
            KeyError: a column is missing.
            TypeError: a column cannot be what it should be.
        """
        import numpy as np

        fields: dict[str, npt.NDArray[Any]] = {}
        for name, columns in self.fields.items():
            if isinstance(columns, str):
                fields[name] = tables.column(table, columns)
            else:
                fields[name] = np.column_stack([tables.column(table, each) for each in columns])
        features = table if self.features is None else tables.select(table, self.features)
        return Batch(features, fields)


def flat(names: Iterable[str | list[str]]) -> list[str]:
    """Return names and lists of names as one list."""
    found: list[str] = []
    for each in names:
        found.extend([each] if isinstance(each, str) else each)
    return found


def existing(names: Sequence[Any] | None, wanted: Sequence[str], argument: str) -> None:
    """Refuse names of columns that do not exist.

    Raises:
        TypeError: the data has no names.
        ValueError: there is no such column.
    """
    if wanted and names is None:
        raise TypeError(f"{argument}={wanted[-1]!r} names a column, but the data has no names")
    for name in wanted:
        if name not in (names or ()):
            shown = ", ".join(map(str, (names or [])[:20]))
            raise ValueError(f"{argument}: there is no column {name!r}, only {shown}")
