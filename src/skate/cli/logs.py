"""``skate logs``: what the processes of a session have printed."""

from __future__ import annotations

import contextlib

import click

from skate import state
from skate.cli.options import address_option, format_option
from skate.cli.output import print_rows, print_table, size


@click.command()
@click.argument("what", required=False)
@click.option("--follow", "-F", is_flag=True, help="Go on as more is printed, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many lines from the end.")
@click.option(
    "--node", metavar="ID", help="Only logs of this node; the beginning of its id will do."
)
@format_option
@address_option
def logs(
    what: str | None,
    follow: bool,
    tail: int | None,
    node: str | None,
    format_: str,
    address: str | None,
) -> None:
    """Print a log: of the worker, actor, task or pid WHAT, or the file of that name.

    Without WHAT: list the files of all nodes. A worker has one log for all tasks that it runs.
    """
    if what is None:
        if follow or tail is not None:
            raise click.UsageError("of which log? `skate logs` lists the files")
        files = state.list_logs(address, node_id=node)
        columns = ["name", "size", "kind", "node_id", "path"]
        if format_ != "table":
            print_rows([dict(log.items()) for log in files], columns, format_)
        elif not files:
            click.echo("no logs: nothing was printed")
        else:
            several = len({log.node_id for log in files}) > 1
            shown = columns if several else ["name", "size", "kind", "path"]
            rows = [
                [size(log.size) if name == "size" else log[name] for name in shown] for log in files
            ]
            print_table(shown, rows)
        return
    log = state.find_log(what, address, node)
    with contextlib.suppress(KeyboardInterrupt):
        for text in state.read_log(log, tail, follow, address):
            click.echo(text, nl=False)
