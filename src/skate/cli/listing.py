"""``skate list`` and ``skate get``: rows of the state API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from skate import state
from skate.cli.options import address_option, format_option, timeout_option
from skate.cli.output import print_rows
from skate.state.filters import parse
from skate.state.rows import Row

#: What can be listed: the function, and the class of its rows.
_KINDS: dict[str, tuple[Callable[..., Sequence[Row]], type[Row]]] = {
    "actors": (state.list_actors, state.ActorState),
    "jobs": (state.list_jobs, state.JobState),
    "nodes": (state.list_nodes, state.NodeState),
    "objects": (state.list_objects, state.ObjectState),
    "placement-groups": (state.list_placement_groups, state.PlacementGroupState),
    "runtime-envs": (state.list_runtime_envs, state.RuntimeEnvState),
    "tasks": (state.list_tasks, state.TaskState),
    "workers": (state.list_workers, state.WorkerState),
}
#: Columns that are left to ``--detail`` where they say the same in every row.
_LEFT_OUT = {"job_id", "node_id", "ray_namespace", "attempt_number"}

_GETTERS: dict[str, Callable[..., Any]] = {
    "actors": state.get_actor,
    "jobs": state.get_job,
    "nodes": state.get_node,
    "objects": state.get_objects,
    "placement-groups": state.get_placement_group,
    "tasks": state.get_task,
    "workers": state.get_worker,
}


@click.command("list")
@click.argument("kind", type=click.Choice(sorted(_KINDS)))
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows with this value; also != < <= > >=. Several: all of them have to hold.",
)
@click.option(
    "--limit", type=int, default=100, show_default=True, help="Rows at most, up to 10,000."
)
@click.option("--detail", is_flag=True, help="All columns.")
@format_option
@address_option
@timeout_option
def list_(
    kind: str,
    filters: tuple[str, ...],
    limit: int,
    detail: bool,
    format_: str,
    address: str | None,
    timeout: float,
) -> None:
    """List what there is, e.g. `skate list tasks -f state=RUNNING`."""
    find, row = _KINDS[kind]
    try:
        rows = find(
            address=address,
            filters=[parse(text) for text in filters],
            limit=limit,
            timeout=timeout,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    columns = row.columns(detail)
    if format_ == "table" and not detail:
        first = columns[0]
        columns = [
            name
            for name in columns
            if name == first or name not in _LEFT_OUT or len({row[name] for row in rows}) > 1
        ]
    if not rows and format_ == "table":
        click.echo(f"no {kind}" + (" like that" if filters else ""))
        return
    print_rows(rows, columns, format_)  # type: ignore[arg-type]  # rows are read like mappings
    if len(rows) == limit:
        click.echo(f"(the first {limit}; more with --limit)", err=True)


@click.command()
@click.argument("kind", type=click.Choice(sorted(_GETTERS)))
@click.argument("id_", metavar="ID")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "yaml"]),
    default="yaml",
    show_default=True,
    help="How to write it.",
)
@address_option
@timeout_option
def get(kind: str, id_: str, format_: str, address: str | None, timeout: float) -> None:
    """Show all of one thing, e.g. `skate get tasks ID`."""
    found = _GETTERS[kind](id_, address=address, timeout=timeout)
    rows = found if isinstance(found, list) else [found] if found is not None else []
    if not rows:
        raise click.ClickException(f"there is none of the {kind} with the id {id_}")
    print_rows(rows, rows[0].keys(), format_)
