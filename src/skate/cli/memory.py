"""``skate memory``: which objects there are, and who holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from skate import state
from skate.cli.options import address_option, format_option, timeout_option
from skate.cli.output import print_rows, print_table, size
from skate.state import ObjectState

_GROUPS: dict[str, Callable[[ObjectState], str]] = {
    "holder": lambda row: f"{row.holder} (pid {row.pid})",
    "call-site": lambda row: row.call_site or "(not known)",
    "reference": lambda row: row.reference_type,
    "location": lambda row: row.location,
}
_COLUMNS = [
    "object_id",
    "object_size",
    "location",
    "reference_type",
    "holder",
    "pid",
    "call_site",
    "local_references",
    "pending_tasks",
    "captured_in",
    "borrowers",
]


@click.command()
@click.option(
    "--group-by",
    type=click.Choice(sorted(_GROUPS)),
    help="Sums, rather than a row for each object and process.",
)
@click.option(
    "--sort-by",
    type=click.Choice(["size", "pid", "reference"]),
    default="size",
    show_default=True,
    help="What comes first.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--all", "all_", is_flag=True, help="Handles of actors and pending objects too.")
@format_option
@address_option
@timeout_option
def memory(
    group_by: str | None,
    sort_by: str,
    limit: int,
    all_: bool,
    format_: str,
    address: str | None,
    timeout: float,
) -> None:
    """Show objects, where they are, and why each process holds them."""
    rows = state.list_objects(address=address, limit=10_000, timeout=timeout)
    if not all_:
        rows = [row for row in rows if row.object_size is not None]
    orders: dict[str, Callable[[ObjectState], Any]] = {
        "size": lambda row: (-(row.object_size or 0), row.object_id),
        "pid": lambda row: (row.pid, -(row.object_size or 0)),
        "reference": lambda row: (row.reference_type, -(row.object_size or 0)),
    }
    rows.sort(key=orders[sort_by])
    if group_by is not None:
        _print_groups(rows, group_by)
        return
    if format_ != "table":
        print_rows(rows[:limit], _COLUMNS, format_)  # type: ignore[arg-type]  # read like mappings
        return
    if not rows:
        click.echo("no objects")
        return
    print_table(
        ["object", "size", "held by", "why", "where", "made at"],
        [_cells(row) for row in rows[:limit]],
    )
    click.echo(_total(rows))
    if len(rows) > limit:
        click.echo(f"(the first {limit} of {len(rows)} rows; more with --limit)", err=True)


def _cells(row: ObjectState) -> list[str]:
    return [
        row.object_id,
        size(row.object_size) if row.object_size is not None else "",
        f"{row.holder} (pid {row.pid})" + ("" if row.owned else ", borrowed"),
        _why(row),
        row.location,
        row.call_site,
    ]


def _why(row: ObjectState) -> str:
    parts = []
    if row.local_references:
        parts.append(f"{row.local_references} refs" if row.local_references > 1 else "a ref")
    if row.reference_type == "PINNED_IN_MEMORY":
        parts.append("views of it")
    if row.pending_tasks:
        parts.append(f"argument of {row.pending_tasks} pending tasks")
    if row.captured_in:
        parts.append(f"inside {row.captured_in} objects")
    if row.borrowers:
        parts.append("lent to " + ", ".join(row.borrowers))
    if row.pinned_forever:
        parts.append("a ref was pickled by something else than Skate: kept for good")
    if row.reference_type == "ACTOR_HANDLE":
        parts.append("handle of an actor")
    return "; ".join(parts)


def _print_groups(rows: list[ObjectState], group_by: str) -> None:
    groups: dict[str, list[ObjectState]] = {}
    for row in rows:
        groups.setdefault(_GROUPS[group_by](row), []).append(row)
    sizes = {name: _sizes(group) for name, group in groups.items()}
    totals = {name: sum(found.values()) for name, found in sizes.items()}
    print_table(
        [group_by, "objects", "size"],
        [
            [name, len(sizes[name]), size(totals[name])]
            for name in sorted(totals, key=lambda name: -totals[name])
        ],
    )
    click.echo(_total(rows))


def _sizes(rows: list[ObjectState]) -> dict[str, int]:
    return {row.object_id: row.object_size or 0 for row in rows}


def _total(rows: list[ObjectState]) -> str:
    sizes = _sizes(rows)
    shared = {row.object_id for row in rows if row.location in ("MEMORY", "SPILLED")}
    in_memory = sum(sizes[object_id] for object_id in shared)
    return (
        f"{len(sizes)} object{'' if len(sizes) == 1 else 's'}, {size(sum(sizes.values()))}"
        f" ({size(in_memory)} of it in shared memory or spilled)"
    )
