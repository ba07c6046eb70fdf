"""``skate debug``: attach to a task or actor that stands at a breakpoint."""

from __future__ import annotations

import contextlib
import sys
import time

import click

from skate.util import rpdb

#: How often ``--wait`` looks for breakpoints, in seconds.
LOOK_SECONDS = 0.3


@click.command()
@click.argument("breakpoint_id", required=False)
@click.option(
    "--address",
    envvar="SKATE_ADDRESS",
    help="Directory of a session, or its last part. By default all sessions of this user.",
)
@click.option("--list", "only_list", is_flag=True, help="Only show which calls wait.")
@click.option("--wait", is_flag=True, help="Wait for breakpoints, one after the other.")
def debug(breakpoint_id: str | None, address: str | None, only_list: bool, wait: bool) -> None:
    """Attach a debugger (pdb) to a task or actor that waits at a breakpoint.

    Without BREAKPOINT_ID, the first characters of the id of one that waits, the sessions of this
    user are searched; if several calls wait, you are asked which one to take.
    """
    while True:
        waiting = rpdb.waiting(address)
        if only_list:
            _show(waiting)
            return
        chosen = _choose(waiting, breakpoint_id)
        if chosen is not None:
            _talk(chosen)
        if not wait:
            return
        if chosen is None:
            time.sleep(LOOK_SECONDS)


def _choose(waiting: list[rpdb.Breakpoint], wanted: str | None) -> rpdb.Breakpoint | None:
    if wanted is not None:
        found = [point for point in waiting if point.breakpoint_id.startswith(wanted)]
        if len(found) != 1:
            what = "no call waits" if not found else f"{len(found)} calls wait"
            raise click.ClickException(f"{what} at a breakpoint whose id begins with {wanted!r}")
        return found[0]
    if not waiting:
        click.echo("No task or actor waits at a breakpoint.", err=True)
        return None
    if len(waiting) == 1:
        return waiting[0]
    _show(waiting)
    number = click.prompt("Attach to", type=click.IntRange(1, len(waiting)), default=1)
    return waiting[number - 1]


def _show(waiting: list[rpdb.Breakpoint]) -> None:
    for number, point in enumerate(waiting, 1):
        click.echo(f"{number:3}  {point.breakpoint_id}  {_describe(point)}")


def _describe(point: rpdb.Breakpoint) -> str:
    text = f"{point.task_name or 'thread'} (pid {point.pid}) {point.file}:{point.line}"
    return f"{text}  raised {point.error}" if point.error else text


def _talk(point: rpdb.Breakpoint) -> None:
    client = rpdb.attach(point)
    click.echo(f"{_describe(point)}\n(continue: c, leave: detach or Ctrl-D, end the task: q)")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline

            found: list[str] = []

            def complete(text: str, number: int) -> str | None:
                if number == 0:
                    found[:] = client.complete(text)
                return found[number] if number < len(found) else None

            readline.set_completer_delims(" \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?")
            readline.set_completer(complete)
            readline.parse_and_bind("tab: complete")
    reason = client.talk(input, lambda text: click.echo(text, nl=False), interrupt=True)
    click.echo(f"({reason})")
