"""``skate top``: the processes of a session, live."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from dataclasses import dataclass

import click
import psutil
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skate import state
from skate.cli.options import address_option
from skate.cli.output import cell, console, duration, print_table, size

#: Seconds over which ``--once`` measures the use of CPUs.
SAMPLE_SECONDS = 0.2

_COLUMNS = ["pid", "kind", "state", "cpu%", "rss", "runs", "since"]
#: The last one, where there are several nodes.
_NODE = "node"


@dataclass(slots=True)
class _Process:
    pid: int
    kind: str
    state: str
    #: None: it is on another machine.
    cpu: float | None
    rss: int | None
    runs: str
    since: str
    node_id: str

    def cells(self, columns: list[str]) -> list[str]:
        cells = [
            str(self.pid),
            self.kind,
            self.state,
            "" if self.cpu is None else f"{self.cpu:.0f}",
            "" if self.rss is None else size(self.rss),
            self.runs,
            self.since,
        ]
        return [*cells, self.node_id] if _NODE in columns else cells


class _Sampler:
    """Asks the session who is there, and the kernel what they use."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._processes: dict[int, psutil.Process] = {}
        #: The nodes of this machine: elsewhere a pid means another process.
        self._here: set[str] = set()
        self.columns = _COLUMNS

    def sample(self) -> list[_Process]:
        address = self._address
        with warnings.catch_warnings():
            # A process that does not answer has a line all the same.
            warnings.simplefilter("ignore", state.MissingStateWarning)
            running = state.list_tasks(
                address, [("state", "=", "RUNNING")], limit=10_000, timeout=2
            )
        actors = {
            actor.actor_id: actor.name or actor.class_name
            for actor in state.list_actors(address, [("state", "=", "ALIVE")], limit=10_000)
        }
        by_worker: dict[str | None, list[state.TaskState]] = {}
        for task in running:
            by_worker.setdefault(task.worker_id, []).append(task)
        nodes = state.list_nodes(address, [("state", "=", "ALIVE")], limit=10_000)
        self._here = {node.node_id for node in nodes if os.path.isdir(node.session_dir)}
        self.columns = [*_COLUMNS, _NODE] if len(nodes) > 1 else _COLUMNS
        found = [
            self._process(node.daemon_pid, "node daemon", "", [], "", node.node_id)
            for node in nodes
        ]
        for worker in state.list_workers(address, limit=10_000):
            kind = worker.worker_type.lower()
            if worker.actor_id is not None:
                kind = f"actor {actors.get(worker.actor_id, '')}".strip()
            tasks = by_worker.get(worker.worker_id, [])
            found.append(
                self._process(
                    worker.pid,
                    kind,
                    "" if kind == "driver" else worker.state,
                    tasks,
                    _since(tasks),
                    worker.node_id,
                )
            )
        gone = set(self._processes) - {process.pid for process in found}
        for pid in gone:
            del self._processes[pid]
        return sorted(found, key=lambda process: (-round(process.cpu or 0.0), process.pid))

    def _process(
        self,
        pid: int,
        kind: str,
        status: str,
        tasks: list[state.TaskState],
        since: str,
        node_id: str,
    ) -> _Process:
        names = [task.name + (" (waits)" if task.blocked else "") for task in tasks]
        runs = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else ""
        if node_id not in self._here:
            return _Process(pid, kind, status, None, None, runs, since, node_id)
        cpu, rss = 0.0, 0
        with contextlib.suppress(psutil.Error):
            process = self._processes.get(pid)
            if process is None:
                process = self._processes[pid] = psutil.Process(pid)
            cpu, rss = process.cpu_percent(), process.memory_info().rss
            if process.status() == psutil.STATUS_STOPPED:
                status = "stopped"
        return _Process(pid, kind, status, cpu, rss, runs, since, node_id)


def _since(tasks: list[state.TaskState]) -> str:
    started = [task.start_time_ms for task in tasks if task.start_time_ms is not None]
    return duration(max(time.time() - min(started) / 1000, 0.0)) if started else ""


@click.command()
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@address_option
def top(once: bool, interval: float, address: str | None) -> None:
    """Show the processes of a session: what they run, their CPU and memory.  Ends with Ctrl-C."""
    sampler = _Sampler(address)
    sampler.sample()
    out = console()
    if once or not out.is_terminal:
        time.sleep(SAMPLE_SECONDS)
        processes = sampler.sample()
        print_table(sampler.columns, [process.cells(sampler.columns) for process in processes])
        return
    with contextlib.suppress(KeyboardInterrupt), Live(console=out, screen=True) as live:
        while True:
            processes = sampler.sample()
            live.update(_screen(processes, sampler.columns, state.session_status(address)))
            time.sleep(interval)


def _screen(processes: list[_Process], columns: list[str], status: state.SessionStatus) -> Group:
    used = ", ".join(
        f"{status.resources_used.get(name, 0.0):g}/{total:g} {name}"
        for name, total in status.resources_total.items()
        if name not in ("memory", "object_store_memory")
    )
    waiting = sum(demand.count for demand in status.demands)
    header = Text(
        f"up {duration(status.uptime)}   {used}   store {size(status.store_used)}"
        f"/{size(status.store_limit)}   {waiting} waiting for a worker   Ctrl-C ends",
        style="bold",
    )
    table = Table(box=None, pad_edge=False, header_style="reverse", expand=True)
    for name in columns:
        right = name in ("pid", "cpu%", "rss", "since")
        table.add_column(name.upper(), justify="right" if right else "left", overflow="ellipsis")
    for process in processes:
        table.add_row(*[cell(value) for value in process.cells(columns)])
    return Group(header, table)
