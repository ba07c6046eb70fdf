"""``skate summary``: how many of what."""

from __future__ import annotations

import json
from typing import Any

import click

from skate import state
from skate.cli.options import address_option, timeout_option
from skate.cli.output import print_table, size


@click.command()
@click.argument("kind", type=click.Choice(["actors", "objects", "tasks"]))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to write it.",
)
@address_option
@timeout_option
def summary(kind: str, format_: str, address: str | None, timeout: float) -> None:
    """Count tasks by name, actors by class, objects by where they were made."""
    summarize = {
        "actors": state.summarize_actors,
        "objects": state.summarize_objects,
        "tasks": state.summarize_tasks,
    }[kind]
    found = summarize(address=address, timeout=timeout)
    if format_ == "json":
        click.echo(json.dumps(found, indent=2))
        return
    cluster = found["cluster"]
    if not cluster["summary"]:
        click.echo(f"no {kind}")
    elif kind == "objects":
        _print_objects(cluster["summary"])
    else:
        _print_states(cluster["summary"])


def _print_states(entries: dict[str, dict[str, Any]]) -> None:
    typed = any("type" in entry for entry in entries.values())
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -_total(item[1])):
        kind = [entry["type"]] if typed else []
        rows.append([name, *kind, _total(entry), entry["state_counts"]])
    print_table(["name", *(["type"] if typed else []), "total", "states"], rows)


def _total(entry: dict[str, Any]) -> int:
    return sum(entry["state_counts"].values())


def _print_objects(entries: dict[str, dict[str, Any]]) -> None:
    rows = [
        [
            site,
            entry["total_objects"],
            size(entry["total_size_mb"] * 1e6),
            entry["total_num_workers"],
            entry["ref_type_counts"],
        ]
        for site, entry in sorted(entries.items(), key=lambda item: -item[1]["total_size_mb"])
    ]
    print_table(["made by", "objects", "size", "processes", "why held"], rows)
