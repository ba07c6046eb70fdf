"""``skate stack``: where the processes of a session are in their code."""

from __future__ import annotations

import shutil
import subprocess

import click

from skate import state
from skate.cli.options import address_option, timeout_option
from skate.state import ProcessStack

#: Seconds that py-spy may take for one process.
PY_SPY_SECONDS = 20


@click.command()
@click.argument("pids", nargs=-1, type=int, metavar="[PID]...")
@click.option(
    "--py-spy/--no-py-spy",
    default=None,
    help="Use py-spy, which sees native and hung code too. By default where it is installed.",
)
@address_option
@timeout_option
def stack(pids: tuple[int, ...], py_spy: bool | None, address: str | None, timeout: float) -> None:
    """Print the stacks of all threads of the processes PID; by default of all of the session."""
    program = shutil.which("py-spy")
    if py_spy and program is None:
        raise click.ClickException("py-spy is not installed: pip install py-spy")
    asked = list(pids) or None
    left: list[int] | None = asked
    if program is not None and py_spy is not False:
        known = [worker.pid for worker in state.list_workers(address, limit=10_000)]
        for pid in asked or []:
            if pid not in known:
                raise click.UsageError(f"the session has no process with pid {pid}")
        left = [pid for pid in asked or known if not _py_spy(program, pid)]
        if not left:
            return
    try:
        found = state.get_stacks(left, address=address, timeout=timeout)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for process in found:
        _print(process)
    if asked and len(found) < len(left or []):
        raise click.exceptions.Exit(1)


def _py_spy(program: str, pid: int) -> bool:
    """Print what py-spy sees; False if it may not look, or sees nothing."""
    try:
        done = subprocess.run(
            [program, "dump", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=PY_SPY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode == 0:
        click.echo(done.stdout)
    return done.returncode == 0


def _print(process: ProcessStack) -> None:
    click.echo(f"Process {process.pid}: {process.holder}")
    for thread in process.threads:
        runs = f" runs {thread.task_name} (task {thread.task_id})" if thread.task_name else ""
        click.echo(f"  Thread {thread.thread}{runs}")
        for line in thread.stack.rstrip("\n").splitlines():
            click.echo(f"  {line}")
    click.echo("")
