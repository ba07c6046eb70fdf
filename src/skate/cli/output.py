"""How commands write tables, JSON and YAML.

On a terminal tables fit its width: long cells are folded, never cut off, so that an id can always
be copied.  Piped they are plain text in columns as wide as it takes, without colours, for ``grep``
and ``awk``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wider than any row: a pipe has no width.
_UNLIMITED = 100_000

#: Columns of text are folded at this width rather than left out.
_FOLDED = 24

_COLOURS = {
    "RUNNING": "green",
    "ALIVE": "green",
    "FAILED": "red",
    "DEAD": "red",
    "leased": "green",
    "actor": "green",
    "blocked": "yellow",
}


def console() -> Console:
    """Return where to print: as wide as the terminal, or without limit."""
    made = Console(highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made = Console(highlight=False, width=_UNLIMITED, no_color=True)
    return made


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], format_: str) -> None:
    """Write rows in one of the formats."""
    plain = [{name: row[name] for name in columns} for row in rows]
    if format_ == "json":
        click.echo(json.dumps(plain, indent=2, default=str))
    elif format_ == "yaml":
        click.echo(as_yaml(plain), nl=False)
    else:
        print_table(columns, [[row[name] for name in columns] for row in plain])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table.  On a terminal, columns at the end that do not fit are left out, and named."""
    out = console()
    wide = not out.is_terminal
    cells = [[cell(value) for value in row] for row in rows]
    shown = len(columns) if wide else _fitting(columns, cells, out.width)
    table = Table(
        box=None if wide else box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2 if wide else 1, 0, 0),
    )
    for index, name in enumerate(columns[:shown]):
        whole = wide or any(_is_id(row[index].plain) for row in cells)
        table.add_column(name.upper(), overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row[:shown])
    if not wide:
        out.print(table)
        if shown < len(columns):
            left_out = ", ".join(columns[shown:])
            click.echo(f"(no room for {left_out}: --format json has them)", err=True)
        return
    # rich pads every line to the width of the table.
    with out.capture() as capture:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> int:
    """Return how many of the first columns fit, long texts folded but ids in one piece."""
    used = 0
    for index, name in enumerate(columns):
        texts = [row[index].plain for row in rows]
        longest = max(map(len, [name, *texts]))
        used += (longest if any(map(_is_id, texts)) else min(longest, _FOLDED)) + 2
        if used > width and index:
            return index
    return len(columns)


def _is_id(text: str) -> bool:
    return len(text) in (16, 32) and all(letter in "0123456789abcdef" for letter in text)


def cell(value: object) -> Text:
    """Return a value as a table shows it."""
    if value is None or value == "":
        return Text("-")
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {_number(amount)}" for name, amount in value.items())
        return Text(text or "-")
    if isinstance(value, list | tuple):
        return Text(", ".join(map(str, value)) or "-")
    text = _number(value)
    return Text(text, style=_COLOURS.get(text, ""))


def _number(value: object) -> str:
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else f"{value:.3f}".rstrip("0")
    return str(value)


def as_yaml(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as YAML: JSON is part of it, so the values are written as that."""
    if not rows:
        return "[]\n"
    lines: list[str] = []
    for row in rows:
        for index, (name, value) in enumerate(row.items()):
            dash = "- " if index == 0 else "  "
            lines.append(f"{dash}{name}: {json.dumps(value, default=str)}")
    return "\n".join(lines) + "\n"


def size(count: float) -> str:
    """Return bytes for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return seconds for people: ``1h 02m``."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def clock(milliseconds: float) -> str:
    """Return a Unix time in milliseconds as local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(milliseconds / 1000))
