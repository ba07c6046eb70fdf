"""``skate start``: nodes that outlive drivers, and drivers that join and leave."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_fakes import is_running, processes_of, wait_until

from skate.runtime.node import standing

pytestmark = pytest.mark.timeout(180)


class Standing:
    """A head node started by the command, and programs that join it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "TMPDIR": str(directory)}
        self.environment.pop("SKATE_ENGINE", None)
        text = self.command("start", "--head", "--num-cpus", "2")
        match = re.search(r"SKATE_ADDRESS=(\S+)", text)
        assert match is not None, text
        self.address = match[1]
        self.environment["SKATE_ADDRESS"] = self.address

    def command(self, *arguments: str) -> str:
        """Run the command line tool."""
        return self._run(["-c", "from skate.cli import main; main()", *arguments])

    def program(self, code: str, name: str = "program.py") -> str:
        """Run a driver to its end; return what it printed."""
        return self._run([str(self.write(code, name))])

    def write(self, code: str, name: str) -> Path:
        path = self.directory / name
        path.write_text(textwrap.dedent(code))
        return path

    def _run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def nodes(self) -> list[standing.StandingNode]:
        """The cluster's nodes."""
        os.environ["TMPDIR"] = str(self.directory)
        return [n for n in standing.standing_nodes() if n.head_address == self.address]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    # Unix socket paths are short: pytest's directories are not.
    directory = Path("/tmp") / f"skt-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    made = Standing(directory)
    pids = [pid for node in made.nodes() for pid in processes_of(node.paths.directory)]
    assert len(pids) >= 2
    yield made
    pids = [pid for node in made.nodes() for pid in processes_of(node.paths.directory)]
    assert made.address in made.command("stop", "--address", made.address)
    assert made.nodes() == []
    wait_until(lambda: not any(map(is_running, pids)), "its processes are gone")
    left = [
        path
        for path in directory.rglob("*")
        if not path.is_dir()
        and "skate-logs" not in str(path)
        and "pytest-of" not in str(path)
        and path.suffix != ".py"
        and path.suffix != ".pyc"
    ]
    assert left == []
    subprocess.run(["rm", "-r", str(directory)], check=True)


JOIN = """
import os
import skate

skate.init(namespace="shared")
"""


def test_drivers_come_and_go(cluster: Standing) -> None:
    cluster.write("def value():\n    return 42\n", "beside_the_script.py")
    first = cluster.program(
        JOIN
        + """
import beside_the_script

@skate.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += beside_the_script.value()
        return self.count

lasting = Counter.options(name="lasting", lifetime="detached").remote()
mortal = Counter.options(name="mortal").remote()
elsewhere = Counter.options(name="lasting", namespace="other", lifetime="detached").remote()
print(skate.get([lasting.add.remote(), mortal.add.remote(), elsewhere.add.remote()]))
print(skate.get_runtime_context().namespace)
"""
    )
    assert first.splitlines() == ["[42, 42, 42]", "shared"]
    second = cluster.program(
        JOIN
        + """
lasting = skate.get_actor("lasting")
print(skate.get(lasting.add.remote()))
try:
    skate.get_actor("mortal")
except ValueError:
    print("mortal is gone")

@skate.remote
def add_there():
    # Tasks live in the namespace of their driver.
    return skate.get(skate.get_actor("lasting").add.remote())

print(skate.get(add_there.remote()))
skate.kill(skate.get_actor("lasting", namespace="other"))
"""
    )
    assert second.splitlines() == ["84", "mortal is gone", "126"]


def test_a_driver_that_is_killed(cluster: Standing) -> None:
    script = cluster.write(
        JOIN
        + """
import time

@skate.remote
class Lives:
    def pid(self):
        return os.getpid()

@skate.remote
def hang():
    time.sleep(1000)

actor = Lives.options(name="it", num_cpus=1).remote()
detached = Lives.options(name="detached", lifetime="detached").remote()
refs = [hang.remote(), hang.remote()]
print(skate.get(actor.pid.remote()), skate.get(detached.pid.remote()), flush=True)
time.sleep(1000)
""",
        "killed.py",
    )
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    mortal, lasting = map(int, process.stdout.readline().split())
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not is_running(mortal), "its actor ends")
    assert is_running(lasting)
    text = cluster.program(
        JOIN
        + """
import time

while skate.available_resources().get("CPU") != 2.0:
    time.sleep(0.01)
print(skate.get(skate.get_actor("detached").pid.remote()))
"""
    )
    assert text.split() == [str(lasting)]


def test_detached_placement_groups_stay_and_others_end_with_their_driver(
    cluster: Standing,
) -> None:
    cluster.program(
        JOIN
        + """
from skate.util import placement_group

kept = placement_group([{"CPU": 1}], name="kept", lifetime="detached")
mine = placement_group([{"CPU": 1}], name="mine")
assert kept.wait(30) and mine.wait(30)
"""
    )
    text = cluster.program(
        JOIN
        + """
import time

from skate.util import get_placement_group, remove_placement_group
from skate.util.scheduling_strategies import PlacementGroupSchedulingStrategy

while skate.available_resources()["CPU"] != 1.0:
    time.sleep(0.01)
kept = get_placement_group("kept")

@skate.remote(num_cpus=1, scheduling_strategy=PlacementGroupSchedulingStrategy(kept))
def inside():
    return "inside"

print(skate.get(inside.remote()))
try:
    get_placement_group("mine")
except ValueError:
    print("mine is gone")
remove_placement_group(kept)
while skate.available_resources()["CPU"] != 2.0:
    time.sleep(0.01)
"""
    )
    assert text.splitlines() == ["inside", "mine is gone"]


def test_a_second_node(cluster: Standing) -> None:
    cluster.command(
        "start", f"--address={cluster.address}", "--num-cpus=1", '--resources={"widget": 2}'
    )
    assert len(cluster.nodes()) == 2
    text = cluster.program(
        JOIN
        + """
@skate.remote(resources={"widget": 1})
def there():
    print("output of a task")
    return skate.get_runtime_context().get_node_id()

nodes = {row["NodeID"]: row["Resources"] for row in skate.nodes()}
print(len(nodes), nodes[skate.get(there.remote())]["widget"])
"""
    )
    assert "2 2.0" in text
    assert "output of a task" in text


def test_sessions_of_their_own_stay_apart(cluster: Standing) -> None:
    text = cluster.program(
        """
        import skate

        context = skate.init("local", num_cpus=1)
        print(context.address_info["address"], skate.cluster_resources()["CPU"])
        """
    )
    assert text.split() == ["local", "1.0"]


def test_errors_say_what_to_do(cluster: Standing) -> None:
    text = cluster.program(
        """
        import skate

        for options in ({"address": "127.0.0.1:1"}, {"address": "nonsense"}, {"num_cpus": 3}):
            try:
                skate.init(**options)
            except (skate.exceptions.SessionError, ValueError) as error:
                print(type(error).__name__, error)
        """
    )
    lines = text.splitlines()
    assert "skate start --address=127.0.0.1:1" in lines[0]
    assert "no address of a cluster" in lines[1]
    assert lines[2].startswith("ValueError num_cpus cannot be given with address=")


def test_a_node_that_cannot_join_says_why(cluster: Standing, tmp_path: Path) -> None:
    token = next(Path(cluster.directory).glob("skate-*/s-*/token")).read_text().strip()
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("".join("0" if digit != "0" else "1" for digit in token))

    def fails(*arguments: str) -> str:
        with pytest.raises(AssertionError) as caught:
            cluster.command("start", *arguments)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    assert "--token-file" in fails(f"--address={nobody}")
    # One line with the reason, and no more than that but where the log is.
    text = fails(f"--address={nobody}", f"--token-file={wrong}")
    [line] = [line for line in text.splitlines() if "Error:" in line]
    found = re.search(
        f"could not be started: the head node at {nobody} cannot be reached: Connection refused"
        r" \(the node's log: (\S+)\)$",
        line,
    )
    assert found is not None, text
    assert "cannot be reached" in Path(found[1]).read_text()
    assert "WARNING" not in text
    text = fails(f"--address={cluster.address}", f"--token-file={wrong}")
    assert "has another token" in text
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        text = fails(f"--address={address}", f"--token-file={wrong}")
    assert f"what listens at {address} is no head node of this cluster, or hangs" in text
    assert "within 10 s" in text
    text = cluster.command("stop", f"--address=skate://{nobody}")
    assert f"no node of the cluster at {nobody}" in text
