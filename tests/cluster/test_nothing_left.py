"""A ``Cluster`` ends with the process that made it, however that ends, and leaves nothing."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts import Script

pytestmark = pytest.mark.timeout(180)

PROGRAM = """
import time

import numpy as np
import skate
from skate.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    cluster.add_node(num_cpus=1, resources={"there": 1})
skate.init(cluster.address)

@skate.remote
class Holder:
    def hold(self, refs):
        self.value = skate.get(refs[0])
        return int(self.value[0])

@skate.remote(resources={"there": 1})
def sleep():
    time.sleep(1000)

ref = skate.put(np.ones(5_000_000))
holders = [Holder.options(lifetime="detached").remote() for _ in range(3)]
assert skate.get([h.hold.remote([ref]) for h in holders]) == [1, 1, 1]
sleeping = [sleep.remote() for _ in range(4)]
skate.wait(sleeping, timeout=0.5)
print("ready", flush=True)
"""


@pytest.fixture
def script() -> Iterator[Callable[[str], Script]]:
    """Run code as a script that is cleaned up after."""
    running: list[Script] = []

    def start(code: str) -> Script:
        # Unix socket paths are short: pytest's directories are not.
        directory = Path("/tmp") / f"skt-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        running.append(Script(directory, code))
        return running[-1]

    yield start
    for one in running:
        one.close()
        shutil.rmtree(one.tmp.parent)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_is_killed(script: Callable[[str], Script], number: int) -> None:
    program = script(PROGRAM + "time.sleep(1000)\n")
    program.wait_for_line("ready")
    assert len(program.descendants()) >= 1 + 3 * 3
    program.process.send_signal(number)
    program.process.wait(30)
    program.assert_nothing_left(30)


def test_the_program_just_ends(script: Callable[[str], Script]) -> None:
    program = script(PROGRAM)
    program.finish(60)
    assert program.process.returncode == 0
    program.assert_nothing_left(30)


def test_the_program_shuts_down(script: Callable[[str], Script]) -> None:
    program = script(PROGRAM + "skate.shutdown()\ncluster.shutdown()\nprint('down', flush=True)\n")
    program.wait_for_line("down")
    program.finish(60)
    assert program.process.returncode == 0
    program.assert_nothing_left(30)
