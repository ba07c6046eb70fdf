"""The command ``skate`` on sessions with real processes: in another process, and through click."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import yaml
from terminal import Terminal

import skate
from skate import state
from skate.cli import main

pytestmark = pytest.mark.timeout(180)

Until = Callable[[Callable[[], Any]], Any]

SKATE = [sys.executable, "-c", "from skate.cli import main; main(prog_name='skate')"]


@skate.remote
def double(x: int) -> int:
    return 2 * x


@skate.remote
def wait_for(path: str) -> None:
    print("I wait")
    with open(path):  # a pipe: until somebody writes to it
        pass


@skate.remote
def refuse() -> None:
    raise ValueError("no good")


@skate.remote
class Counter:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, refs: list[Any]) -> int:
        self.kept += refs
        print(f"kept {len(self.kept)}")
        return os.getpid()


@pytest.fixture
def busy(session: None, tmp_path: Path, until: Until) -> dict[str, Any]:
    """A session in which something runs, waits, has ended and is held."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    skate.get([double.remote(i) for i in range(5)])
    with pytest.raises(ValueError, match="no good"):
        skate.get(refuse.remote())
    big = skate.put(np.zeros(1 << 18))
    counter = Counter.options(name="tally").remote()
    pid = skate.get(counter.keep.remote([big]))
    refs = [wait_for.remote(path) for _ in range(3)]
    until(lambda: len(state.list_tasks(filters=[("state", "=", "RUNNING")])) == 2)
    return {"refs": refs, "big": big, "counter": counter, "actor_pid": pid}


def run(*arguments: str) -> click.testing.Result:
    """Run a command in this process."""
    return click.testing.CliRunner().invoke(main, list(arguments))


def table(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


def attached(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, on the session of this process."""
    directory = state.list_nodes()[0].session_dir
    return subprocess.run(
        [*SKATE, *arguments],
        env={**os.environ, "SKATE_ADDRESS": directory, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_list_in_all_formats(busy: dict[str, Any]) -> None:
    ids = [task.task_id for task in state.list_tasks(filters=[("name", "=", "wait_for")])]
    done = attached("list", "tasks", "--filter", "name=wait_for")
    assert done.returncode == 0, done.stderr
    header, *rows = table(done.stdout)
    assert header[:4] == ["TASK_ID", "NAME", "STATE", "WORKER_PID"]
    assert [row[0] for row in rows] == ids
    assert {row[2] for row in rows} == {"RUNNING", "PENDING_NODE_ASSIGNMENT"}
    # Piped: no colours, nothing cut off.
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout

    arguments = ["list", "tasks", "-f", "name=wait_for", "--detail", "--format"]
    as_json = json.loads(run(*arguments, "json").output)
    assert [row["task_id"] for row in as_json] == ids
    assert as_json[0]["required_resources"] == {"CPU": 1.0}
    workers = ["list", "workers", "--detail", "--format"]
    as_json = json.loads(run(*workers, "json").output)
    assert yaml.safe_load(run(*workers, "yaml").output) == as_json


def test_every_kind_can_be_listed_and_got(busy: dict[str, Any]) -> None:
    for kind in ("actors", "jobs", "nodes", "objects", "tasks", "workers"):
        listed = run("list", kind, "--format", "json")
        assert listed.exit_code == 0, listed.output
        rows = json.loads(listed.output)
        assert rows, kind
        got = run("get", kind, next(iter(rows[0].values())), "--format", "json")
        assert got.exit_code == 0, got.output
        assert next(iter(json.loads(got.output)[0].values())) == next(iter(rows[0].values()))
    assert run("list", "placement-groups").output == "no placement-groups\n"
    assert run("list", "tasks", "-f", "name=none").output == "no tasks like that\n"


def test_limit_says_that_there_is_more(busy: dict[str, Any]) -> None:
    done = attached("list", "tasks", "--limit", "2")
    assert len(table(done.stdout)) == 3
    assert "more with --limit" in done.stderr


def test_wrong_use_ends_with_status_2(busy: dict[str, Any]) -> None:
    for arguments in (
        ["list", "tasks", "-f", "stat=RUNNING"],
        ["list", "tasks", "-f", "RUNNING"],
        ["list", "tasks", "--limit", "0"],
        ["list", "everything"],
        ["stack", "--no-py-spy", "1"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert "Error: " in result.output
    assert "did you mean 'state'" in run("list", "tasks", "-f", "stat=RUNNING").output
    missing = run("get", "tasks", "00")
    assert missing.exit_code == 1
    assert "there is none of the tasks with the id 00" in missing.output


def test_no_session(tmp_path: Path) -> None:
    # Directories of sockets are short: one that is too long would mean /tmp.
    done = subprocess.run(
        [*SKATE, "status", "--address", str(tmp_path / "s-00000000")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no session runs at" in done.stderr
    assert "Traceback" not in done.stderr


#: A program that has a session until its standard input is closed.
PROGRAM = """
import skate
print(skate.init(num_cpus=1)["session_dir"], flush=True)
input()
"""


@pytest.fixture
def two_sessions() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The directories of two sessions, the newest first, and the environment in which they are."""
    # Unix socket paths are short: pytest's directories are not.
    folder = Path(tempfile.mkdtemp(prefix="skt-", dir="/tmp"))
    environment = {**os.environ, "TMPDIR": str(folder)}
    for name in ("SKATE_ADDRESS", "SKATE_ENGINE"):
        environment.pop(name, None)
    programs: list[subprocess.Popen[str]] = []
    directories: list[str] = []
    try:
        for _ in range(2):
            program = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            programs.append(program)
            assert program.stdout is not None
            directories.insert(0, program.stdout.readline().strip())
        yield directories, environment
    finally:
        for program in programs:
            program.communicate("\n", timeout=60)
        shutil.rmtree(folder)


def test_several_sessions(two_sessions: tuple[list[str], dict[str, str]]) -> None:
    (younger, elder), environment = two_sessions

    def command(*arguments: str, **more: str) -> tuple[str, str]:
        done = subprocess.run(
            [*SKATE, *arguments],
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    names = [os.path.basename(directory) for directory in (younger, elder)]
    # Others of this user may lie in /tmp.
    for chosen in ([], ["--address", "auto"]):
        out, said = command("status", *chosen)
        assert out.startswith(f"Session {younger}\n")
        pattern = r"note: \d+ sessions are running; this is about {} \(since [-\d]+ [:\d]+\)\."
        pattern += r" With --address: {} \(since .*\n"
        assert re.fullmatch(pattern.format(*names), said), said
    # Standard output stays what others may read; the note comes once, however much is asked.
    out, said = command("list", "nodes", "--detail", "--format", "json")
    assert [row["session_dir"] for row in json.loads(out)] == [younger]
    assert said.count("note:") == 1
    assert command("stack", "--no-py-spy")[1].count("note:") == 1
    # Whoever chooses is told nothing.
    for name in (names[1], elder):
        assert command("status", "--address", name)[0].startswith(f"Session {elder}\n")
        assert command("status", "--address", name)[1] == ""
    out, said = command("status", SKATE_ADDRESS=elder)
    assert (out.splitlines()[0], said) == (f"Session {elder}", "")


def test_status(busy: dict[str, Any]) -> None:
    never = double.options(num_cpus=64).remote(1)
    text = attached("status").stdout
    assert "2 of 2 CPU" in text
    assert "Nodes: 1 alive" in text
    assert "2 leased" in text
    assert "1 alive" in text
    assert "task double: 64 CPU" in text
    assert "(no node has as much)" in text
    found = json.loads(run("status", "--format", "json").output)
    assert found["resources_used"]["CPU"] == 2.0
    assert {demand["name"] for demand in found["demands"]} >= {"double"}
    del never


def test_summary(busy: dict[str, Any]) -> None:
    rows = {row[0]: row for row in table(attached("summary", "tasks").stdout)}
    assert rows["double"] == ["double", "NORMAL_TASK", "5", "FINISHED: 5"]
    assert rows["refuse"][-1] == "FAILED: 1"
    assert "ALIVE: 1" in run("summary", "actors").output
    assert "PINNED" not in run("summary", "objects").output
    assert json.loads(run("summary", "tasks", "--format", "json").output)["cluster"]


def test_memory_says_who_holds_what(busy: dict[str, Any]) -> None:
    object_id = busy["big"].hex()
    lines = [line for line in attached("memory").stdout.splitlines() if object_id in line]
    assert len(lines) == 2
    [owner] = [line for line in lines if "driver" in line.split("lent to")[0]]
    [borrower] = [line for line in lines if line is not owner]
    assert "2.0 MiB" in owner
    assert "lent to actor tally" in owner
    assert f"actor tally (pid {busy['actor_pid']}), borrowed" in borrower
    grouped = run("memory", "--group-by", "location").output
    assert "MEMORY" in grouped
    rows = json.loads(run("memory", "--format", "json", "--all").output)
    assert {row["object_id"] for row in rows} >= {object_id, busy["refs"][0].hex()}


def test_stack_shows_the_code_of_the_user(busy: dict[str, Any]) -> None:
    pid = next(task.worker_pid for task in state.list_tasks(filters=[("state", "=", "RUNNING")]))
    done = attached("stack", "--no-py-spy", str(pid))
    assert done.returncode == 0, done.stderr
    assert f"Process {pid}: worker" in done.stdout
    assert "runs wait_for (task " in done.stdout
    assert "with open(path):" in done.stdout
    # Not what Skate does around it.
    assert "execute.py" not in done.stdout
    whole = attached("stack", "--no-py-spy").stdout
    assert "driver" in whole
    assert "actor tally" in whole
    assert "(waits for its next task)" in whole


def test_stack_asks_py_spy_where_it_may(busy: dict[str, Any]) -> None:
    pid = next(task.worker_pid for task in state.list_tasks(filters=[("state", "=", "RUNNING")]))
    assert pid is not None
    beside_python = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    spied = subprocess.run(
        ["py-spy", "dump", "--pid", str(pid)],
        env={**os.environ, "PATH": beside_python},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    done = attached("stack", str(pid), PATH=beside_python)
    assert done.returncode == 0, done.stderr
    # Where it may not look into other processes their own threads answer.
    assert ("(by py-spy)" in done.stdout) == (spied.returncode == 0), spied.stderr
    assert "wait_for" in done.stdout
    whole = attached("stack", PATH=beside_python)
    assert whole.returncode == 0, whole.stderr
    for worker in state.list_workers():
        assert f"Process {worker.pid}: " in whole.stdout
    if spied.returncode == 0:
        # One that cannot answer itself is seen as well.
        os.kill(pid, signal.SIGSTOP)
        try:
            stopped = attached("stack", str(pid), PATH=beside_python)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "wait_for" in stopped.stdout


@skate.remote
class Async:
    async def inner(self, event: Any) -> None:
        await event.wait()

    async def wait_long(self) -> None:
        import asyncio

        await self.inner(asyncio.Event())

    async def compute(self, path: str) -> None:
        with open(path):
            pass


def test_stacks_of_coroutines(session: None, tmp_path: Path, until: Until) -> None:
    actor = Async.remote()
    refs = [actor.wait_long.remote() for _ in range(3)]
    until(lambda: len(state.list_tasks(filters=[("state", "=", "RUNNING")])) == 3)
    [row] = state.list_actors()
    assert row.pid is not None
    [process] = state.get_stacks([row.pid])
    coroutines = [thread for thread in process.threads if thread.thread == "(coroutine)"]
    assert {thread.task_id for thread in coroutines} == {ref.hex() for ref in refs}
    for thread in coroutines:
        assert thread.task_name == "Async.wait_long"
        assert "await self.inner(asyncio.Event())" in thread.stack
        assert "await event.wait()" in thread.stack
    assert "waits for its next task" in process.threads[0].stack

    # One that computes keeps the loop, and is seen in its thread.
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    computing = actor.compute.remote(path)
    until(lambda: "with open(path):" in state.get_stacks([row.pid])[0].threads[0].stack)
    del computing, refs


def test_logs(busy: dict[str, Any], until: Until) -> None:
    actor = busy["counter"]
    [row] = state.list_actors()
    until(lambda: attached("logs", row.actor_id).stdout == "kept 1\n")
    skate.get(actor.keep.remote([1]))
    until(lambda: run("logs", str(row.pid)).output == "kept 1\nkept 2\n")
    assert run("logs", str(row.worker_id), "--tail", "1").output == "kept 2\n"
    assert run("logs", f"worker-{row.worker_id}.log").output == "kept 1\nkept 2\n"
    running = state.list_tasks(filters=[("state", "=", "RUNNING")])[0]
    until(lambda: run("logs", running.task_id).output == "I wait\n")
    assert f"worker-{row.worker_id}.log" in run("logs").output
    missing = run("logs", "nothing")
    assert missing.exit_code == 1
    assert "no log file, worker, actor, task or pid" in missing.output
    skate.kill(actor)


def test_following_a_log_to_the_end_of_its_session(busy: dict[str, Any]) -> None:
    actor = busy["counter"]
    [row] = state.list_actors()
    directory = state.list_nodes()[0].session_dir
    follower = subprocess.Popen(
        [*SKATE, "logs", "--follow", "--address", directory, row.actor_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "kept 1\n"
    skate.get(actor.keep.remote([1, 2]))
    assert follower.stdout.readline() == "kept 3\n"
    skate.shutdown()
    assert follower.stdout.read() == ""
    assert follower.wait(timeout=30) == 0


def test_top_once(busy: dict[str, Any]) -> None:
    rows = table(attached("top", "--once").stdout)
    assert rows[0] == ["PID", "KIND", "STATE", "CPU%", "RSS", "RUNS", "SINCE"]
    kinds = {row[1] for row in rows[1:]}
    assert {"driver", "node daemon", "worker", "actor tally"} <= kinds
    running = [row for row in rows[1:] if row[5] == "wait_for"]
    assert len(running) == 2
    assert all(row[4].endswith("iB") for row in rows[1:])


def test_top_on_a_terminal_goes_on(busy: dict[str, Any]) -> None:
    directory = state.list_nodes()[0].session_dir
    environment = {"SKATE_ADDRESS": directory, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    terminal = Terminal([*SKATE, "top", "--interval", "0.2"], environment)
    try:
        terminal.expect("2/2 CPU")
        terminal.expect("wait_for")
        # It looks again and again, and sees what comes and what goes.
        later = Counter.options(name="latecomer", num_cpus=0).remote()
        terminal.expect("actor latecomer")
        skate.kill(later)
        terminal.expect("Ctrl-C ends")
        deadline = time.monotonic() + 30
        while "latecomer" in (terminal.expect("up "), terminal.expect("Ctrl-C ends"))[0]:
            assert time.monotonic() < deadline
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.output
    finally:
        terminal.close()


def test_a_terminal_of_80_columns_shows_whole_ids(busy: dict[str, Any]) -> None:
    master, slave = pty.openpty()
    directory = state.list_nodes()[0].session_dir
    process = subprocess.Popen(
        [*SKATE, "list", "tasks", "--limit", "3", "--address", directory],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
    )
    os.close(slave)
    output = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        output += data
    os.close(master)
    _, errors = process.communicate(timeout=60)
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.decode())
    assert all(len(line.rstrip("\r")) <= 80 for line in text.splitlines())
    assert busy["refs"][0].hex() in text
    assert "no room for" in errors


def test_a_pipe_that_closes_early_is_no_error(busy: dict[str, Any]) -> None:
    directory = state.list_nodes()[0].session_dir
    skate.get([double.options(num_cpus=0).remote(i) for i in range(3000)])
    command = shlex.join([*SKATE, "list", "tasks", "--limit", "3000", "--address", directory])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("TASK_ID")
    assert "Traceback" not in done.stderr


def nested(events: list[dict[str, Any]]) -> bool:
    """Whether events of each line of the picture are inside or beside each other."""
    by_line: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            line = by_line.setdefault((event["pid"], event["tid"]), [])
            line.append((event["ts"], event["ts"] + event["dur"]))
    for spans in by_line.values():
        open_: list[float] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ and open_[-1] <= start:
                open_.pop()
            if open_ and open_[-1] < end - 0.5:
                return False
            open_.append(end)
    return True


def test_timeline(session: None, tmp_path: Path) -> None:
    @skate.remote
    def inner() -> None:
        time.sleep(0.01)

    @skate.remote
    def outer() -> None:
        skate.get([inner.remote() for _ in range(3)])

    @skate.remote(max_concurrency=4)
    class Threaded:
        def sleep(self) -> None:
            time.sleep(0.02)

    skate.get([outer.remote() for _ in range(3)])
    actor = Threaded.remote()
    skate.get([actor.sleep.remote() for _ in range(8)])
    with pytest.raises(ValueError, match="no good"):
        skate.get(refuse.remote())
    path = tmp_path / "trace.json"
    assert skate.timeline(str(path)) is None
    events = json.loads(path.read_text())
    complete = [event for event in events if event["ph"] == "X"]

    def named(suffix: str) -> list[dict[str, Any]]:
        return [event for event in complete if event["name"].endswith(suffix)]

    assert len([e for e in named("inner") if e["cat"] == "task"]) == 9
    assert len(named("Threaded.sleep")) == 8
    assert all(event["dur"] >= 10_000 for event in named("inner") if event["cat"] == "task")
    # A wait is drawn in the task that waits.
    waits = [event for event in complete if event["cat"] == "wait" and "outer" in event["name"]]
    assert len(waits) == 3
    tasks = {event["args"]["task_id"]: event for event in named("outer") if event["cat"] == "task"}
    for wait in waits:
        task = tasks[wait["args"]["task_id"]]
        assert (wait["pid"], wait["tid"]) == (task["pid"], task["tid"])
        assert task["ts"] <= wait["ts"]
        assert wait["ts"] + wait["dur"] <= task["ts"] + task["dur"]
    assert nested(events)
    # Calls at the same time are side by side.
    assert len({event["tid"] for event in named("Threaded.sleep")}) > 1
    [failed] = named("refuse")
    assert failed["args"]["error"] == "ValueError: no good"
    names = {e["args"]["name"].split(" (")[0] for e in events if e["name"] == "process_name"}
    assert {"driver", "worker", "actor Threaded"} <= names
    done = attached("timeline", "-o", str(tmp_path / "again.json"))
    assert "events in" in done.stdout
    again = json.loads((tmp_path / "again.json").read_text())
    assert {e["args"].get("task_id") for e in again} >= set(tasks)
    assert json.loads(attached("timeline", "-o", "-").stdout)
    assert attached("timeline", "-o", str(tmp_path / "no" / "dir")).returncode == 1


def test_a_running_task_ends_now_in_the_timeline(busy: dict[str, Any]) -> None:
    events = skate.timeline()
    assert events is not None
    running = [event for event in events if event.get("args", {}).get("running")]
    assert {event["name"] for event in running} == {"wait_for"}
    assert nested(events)


def test_help_names_every_command() -> None:
    text = run("--help").output
    for name in ("get", "list", "logs", "memory", "stack", "status", "summary", "timeline", "top"):
        assert re.search(rf"^  {name} +\w", text, re.M), name
        assert run(name, "--help").exit_code == 0


def test_a_thread_may_look_while_another_waits(session: None, until: Until) -> None:
    @skate.remote
    def slow() -> int:
        time.sleep(1)
        return 1

    ref = slow.remote()
    found: list[Any] = []
    looker = threading.Thread(target=lambda: found.extend(state.list_tasks()))
    looker.start()
    assert skate.get(ref) == 1
    looker.join(timeout=30)
    assert len(found) == 1
