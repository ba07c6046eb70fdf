"""``skate stack``: where the processes of a session are in their code."""

from __future__ import annotations

import os
import shutil
import subprocess

import click

from skate import state
from skate.cli.options import address_option, timeout_option
from skate.state import ProcessStack, WorkerState

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
        workers = state.list_workers(address, limit=10_000)
        for pid in asked or []:
            if pid not in {worker.pid for worker in workers}:
                raise click.UsageError(f"the session has no process with pid {pid}")
        # On another machine the pid may be that of anybody here.
        here = {
            node.node_id for node in state.list_nodes(address) if os.path.isdir(node.session_dir)
        }
        wanted = [worker for worker in workers if asked is None or worker.pid in asked]
        left = [
            worker.pid
            for worker in wanted
            if worker.node_id not in here or not _py_spy(program, worker)
        ]
        if not left:
            return
    try:
        # Of those that nobody has named some may have ended since they were listed.
        found = state.get_stacks(left if asked else None, address=address, timeout=timeout)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for process in found:
        if left is None or process.pid in left:
            _print(process)
    if asked and len(found) < len(left or []):
        raise click.exceptions.Exit(1)


def _py_spy(program: str, worker: WorkerState) -> bool:
    """Print what py-spy sees; False if it may not look, or sees nothing."""
    # A process that is stopped cannot be paused once more to be looked at.
    for further in ([], ["--nonblocking"]):
        try:
            done = subprocess.run(
                [program, "dump", "--pid", str(worker.pid), *further],
                capture_output=True,
                text=True,
                timeout=PY_SPY_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            # Its first line has the command, which is the same for all workers.
            rest = done.stdout.partition("\n")[2]
            click.echo(f"Process {worker.pid}: {_holder(worker)} (by py-spy)\n{rest}")
            return True
    return False


def _holder(worker: WorkerState) -> str:
    return f"actor {worker.actor_id}" if worker.actor_id else worker.worker_type.lower()


def _print(process: ProcessStack) -> None:
    click.echo(f"Process {process.pid}: {process.holder}")
    for thread in process.threads:
        runs = f" runs {thread.task_name} (task {thread.task_id})" if thread.task_name else ""
        click.echo(f"  Thread {thread.thread}{runs}")
        for line in thread.stack.rstrip("\n").splitlines():
            click.echo(f"  {line}")
    click.echo("")
