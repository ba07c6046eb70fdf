"""``skate status``: a session at a glance."""

from __future__ import annotations

import json

import click

from skate import state
from skate.cli.options import address_option
from skate.cli.output import console, duration, size
from skate.state import SessionStatus

#: Resources whose amounts are bytes.
_IN_BYTES = {"memory", "object_store_memory"}


@click.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to write it.",
)
@address_option
def status(format_: str, address: str | None) -> None:
    """Show nodes, resources, workers, and what waits for them."""
    found = state.session_status(address)
    if format_ == "json":
        plain = found.asdict()
        plain["nodes"] = [node.asdict() for node in found.nodes]
        plain["demands"] = [demand.asdict() for demand in found.demands]
        click.echo(json.dumps(plain, indent=2))
        return
    out = console()
    for line in _lines(found):
        out.print(line, soft_wrap=True, markup=False)


def _lines(found: SessionStatus) -> list[str]:
    drivers = ", ".join(map(str, found.drivers)) or "none"
    # Each driver has one of its own.
    namespace = f", namespace {found.namespace}" if len(found.drivers) == 1 else ""
    lines = [
        f"Session {found.session_dir}",
        f"  up {duration(found.uptime)}, driver pid {drivers}{namespace}",
        "",
        f"Nodes: {sum(node.state == 'ALIVE' for node in found.nodes)} alive",
    ]
    for node in found.nodes:
        head = ", head" if node.is_head_node else ""
        lines.append(
            f"  {node.node_id}  {node.node_name} ({node.node_ip}){head}, {node.state.lower()},"
            f" daemon pid {node.daemon_pid}"
        )
    lines += ["", "Resources (used of total)"]
    lines += [
        f"  {_amount(name, found.resources_used.get(name, 0.0))} of {_amount(name, total)} {name}"
        for name, total in found.resources_total.items()
    ]
    spilled = f", {size(found.store_spilled)} spilled" if found.store_spilled else ""
    lines += [
        "",
        f"Object store: {size(found.store_used)} of {size(found.store_limit)}{spilled}",
        f"Workers: {_counts(found.workers)}",
        f"Actors: {_counts(found.actors)}",
    ]
    if not found.demands:
        return [*lines, "Nothing waits for a worker."]
    lines += ["", "Waiting for a worker"]
    for demand in found.demands:
        wanted = ", ".join(f"{_amount(n, v)} {n}" for n, v in demand.resources.items())
        never = "" if demand.feasible else " (no node has as much)"
        lines.append(
            f"  {demand.count} x {demand.kind} {demand.name}: {wanted or 'nothing'},"
            f" for {duration(demand.waited)}{never}"
        )
    return lines


def _amount(name: str, value: float) -> str:
    return size(value) if name in _IN_BYTES else f"{value:g}"


def _counts(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())}" + (f" ({listed})" if listed else "")
