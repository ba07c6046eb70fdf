"""``skate logs``: what the processes of a session have printed."""

from __future__ import annotations

import contextlib

import click

from skate import state
from skate.cli.options import address_option
from skate.cli.output import print_table, size


@click.command()
@click.argument("what", required=False)
@click.option("--follow", "-F", is_flag=True, help="Go on as more is printed, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many lines from the end.")
@address_option
def logs(what: str | None, follow: bool, tail: int | None, address: str | None) -> None:
    """Print a log: of the worker, actor, task or pid WHAT, or the file of that name.

    Without WHAT: list the files. A worker has one log for all tasks that it runs.
    """
    if what is None:
        files = state.list_logs(address)
        if not files:
            click.echo("no logs: nothing was printed")
            return
        print_table(
            ["file", "size", "of", "path"],
            [[log.name, size(log.size), log.kind, log.path] for log in files],
        )
        return
    path = state.find_log(what, address)
    with contextlib.suppress(KeyboardInterrupt):
        for text in state.read_log(path, tail, follow):
            click.echo(text, nl=False)
