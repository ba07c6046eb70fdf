"""CSV and Parquet files, read by the actors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from skate.xgboost import library
from skate.xgboost.data import places, tables
from skate.xgboost.data._base import ColumnPiece, Place
from skate.xgboost.data.batch import Batch, Columns, existing
from skate.xgboost.data.places import RayFileType

#: Files that are looked at, at a time: a remote one takes as long as its server takes to answer.
_LOOKERS = 16
#: Rows of a CSV file whose types stand for those of all: it is checked again when all are read.
_SAMPLE_ROWS = 100


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file without reading its rows.

    Attributes:
        rows: how many; None in CSV files that are not empty.
        size: in bytes, or rows where these are known.
        column_kinds: see ``tables``.
        head: the table without its rows.
    """

    rows: int | None
    size: float
    column_kinds: list[tables.ColumnKind]
    head: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePiece(ColumnPiece):
    """Rows of a file; ``path``: or URL."""

    path: str

    def __str__(self) -> str:
        return f"file {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetPiece(FilePiece):
    """Rows of a Parquet file, of which nothing else is read; ``chosen``: which rows, None: all."""

    chosen: slice | None = None

    def read(self) -> Batch:
        return self._take(self._table(self.columns.needed))

    def _table(self, columns: list[Any] | None) -> Any:
        parquet = _parquet()
        with places.opened(self.path) as file:
            content = parquet.ParquetFile(file)
            first, last = 0, content.metadata.num_rows
            if self.chosen is not None:
                first, last = self.chosen.start, self.chosen.stop
            there = content.metadata.num_rows
            if there < last or (self.chosen is None and there != self.rows):
                raise ValueError(
                    f"{self} has changed since the RayDMatrix was made: it has {there} rows now"
                )
            groups, skipped = _groups(content.metadata, first, last)
            table = content.read_row_groups(groups, columns=columns)
        return table.slice(first - skipped, last - first)

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        first = 0 if self.chosen is None else self.chosen.start
        return {"chosen": slice(first + start, first + stop)}

    def stream(self, rows: int) -> Iterator[Batch]:
        cuts = [*range(0, self.rows or 0, rows), self.rows or 0]
        for start, stop in itertools.pairwise(cuts):
            yield self.cut(start, stop).read()


def _groups(metadata: Any, first: int, last: int) -> tuple[list[int], int]:
    """Return which row groups have rows in a range, and how many rows lie before them."""
    groups: list[int] = []
    skipped = end = 0
    for index in range(metadata.num_row_groups):
        begin, end = end, end + metadata.row_group(index).num_rows
        if end <= first or begin >= last:
            continue
        if not groups:
            skipped = begin
        groups.append(index)
    return groups, skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvPiece(FilePiece):
    """A CSV file; ``options``: of ``pandas.read_csv``."""

    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> Batch:
        import pandas

        with places.opened(self.path) as file:
            return self._take(_typed(pandas.read_csv(file, **self._all_options())))

    def stream(self, rows: int) -> Iterator[Batch]:
        import pandas

        with places.opened(self.path) as file:
            for frame in pandas.read_csv(file, chunksize=rows, **self._all_options()):
                yield self._take(_typed(frame))

    def _all_options(self) -> dict[str, Any]:
        return {"usecols": self.columns.needed, **_compression(self.path), **self.options}

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        raise AssertionError("the number of rows is not known")


def _compression(path: str) -> dict[str, Any]:
    """Return how the file is packed: pandas looks at names, and is given an open file."""
    for ending, method in ((".gz", "gzip"), (".bz2", "bz2"), (".xz", "xz"), (".zst", "zstd")):
        if path.lower().endswith(ending):
            return {"compression": method}
    return {"compression": "zip"} if path.lower().endswith(".zip") else {}


def look(files: Sequence[str], kind: RayFileType, options: Mapping[str, Any]) -> list[FileInfo]:
    """Find out what is in files: all footers, or the first rows.

    Raises:
        ValueError: one is no such file, or has other columns than the first.
    """
    at: Callable[[str], FileInfo]
    if kind is RayFileType.PARQUET:
        unknown = [name for name in options if name != "columns"]
        if unknown:
            raise TypeError(
                f"there are no options for Parquet files but columns: {', '.join(unknown)}"
            )
        _parquet()

        def at(path: str) -> FileInfo:
            return _look_at_parquet(path, options.get("columns"))
    else:
        library.require_pandas("reading CSV files")

        def at(path: str) -> FileInfo:
            return _look_at_csv(path, options)

    with ThreadPoolExecutor(min(_LOOKERS, len(files))) as pool:
        infos = list(pool.map(at, files))
    names = [name for name, _, _ in infos[0].column_kinds]
    for file, info in zip(files, infos, strict=True):
        others = [name for name, _, _ in info.column_kinds]
        if set(others) != set(names):
            missing = [name for name in names if name not in others]
            more = [name for name in others if name not in names]
            raise ValueError(
                f"the file {file} has other columns than {files[0]}:"
                + (f" without {', '.join(map(repr, missing))}" if missing else "")
                + (f" with {', '.join(map(repr, more))}" if more else "")
            )
    return infos


def _look_at_parquet(path: str, columns: Sequence[str] | None) -> FileInfo:
    parquet = _parquet()
    arrow = library.pyarrow("Parquet")
    try:
        with places.opened(path) as file:
            content = parquet.ParquetFile(file)
            rows, schema = content.metadata.num_rows, content.schema_arrow
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error
    if columns is not None:
        existing(schema.names, columns, f"columns of {path}")
        schema = arrow.schema([schema.field(name) for name in columns])
    return FileInfo(rows, rows, tables.schema_kinds(schema), schema.empty_table())


def _look_at_csv(path: str, options: Mapping[str, Any]) -> FileInfo:
    import pandas

    size = places.byte_count(path)
    try:
        with places.opened(path) as file:
            sample = {**_compression(path), **options}
            sample["nrows"] = min(_SAMPLE_ROWS, sample.get("nrows") or _SAMPLE_ROWS)
            frame = _typed(pandas.read_csv(file, **sample))
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"the file {path} is empty: it has no columns") from error
    except (pandas.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from error
    rows = None if len(frame) else 0
    return FileInfo(rows, max(1, size), tables.column_kinds(frame) or [], frame.iloc[:0].copy())


def _typed(frame: Any) -> Any:
    """Return a frame whose columns are numbers if there are no rows that say what they are."""
    if len(frame):
        return frame
    return frame.astype(
        {name: "float64" for name, _, kind in tables.column_kinds(frame) or () if not kind}
    )


def _parquet() -> Any:
    library.pyarrow("reading Parquet files")
    from pyarrow import parquet

    return parquet


def pieces(
    files: Sequence[str],
    infos: Sequence[FileInfo],
    kind: RayFileType,
    columns: Columns,
    options: Mapping[str, Any],
    *,
    categorical: bool,
) -> list[ColumnPiece]:
    """Return one piece for each file."""
    made: list[ColumnPiece] = []
    end = 0
    for index, (path, info) in enumerate(zip(files, infos, strict=True)):
        if kind is RayFileType.CSV:
            made.append(
                CsvPiece(
                    place=Place(index, None),
                    rows=info.rows,
                    size=info.size,
                    path=path,
                    columns=columns,
                    categorical=categorical,
                    options=options,
                )
            )
            continue
        rows = info.rows or 0
        made.append(
            ParquetPiece(
                place=Place(index, slice(end, end + rows, 1)),
                rows=rows,
                size=rows,
                path=path,
                columns=columns,
                categorical=categorical,
            )
        )
        end += rows
    return made
