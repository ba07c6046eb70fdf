"""The counting of refs between processes, on the real ``Ownership`` and a network that delays.

Several processes hand refs to each other, drop them and die, while every link delivers in its own
time (and in order).  An object has to be there as long as anybody may still reach it, and to be
gone when nobody can.
"""

from __future__ import annotations

import contextlib
from collections import deque
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skate.ids import IdSource, owner_of
from skate.runtime.wire.messages import AddBorrower, BorrowerAdded, RefGrant, ReleaseBorrow
from skate.runtime.worker.cells import FAILED, INLINE, Cell, Finalized
from skate.runtime.worker.ownership import Ownership

PROCESSES = 3
#: Few, so that much happens to each.
OBJECTS = 2


class _Links:
    def __init__(self, machine: Network, process_id: bytes) -> None:
        self._machine = machine
        self._process_id = process_id

    def peer(self, process_id: bytes, _address: str) -> Any:
        return SimpleNamespace(process_id=process_id, dead=process_id not in self._machine.living)

    def send(self, peer: Any, message: object) -> None:
        if peer.process_id in self._machine.living:
            self._machine.links[self._process_id, peer.process_id].append(message)

    def send_node(self, message: object) -> None:
        """Frees and ends of actors: not what is tested here."""


class Process:
    """The part of a core that ``Ownership`` sees."""

    def __init__(self, machine: Network, number: int) -> None:
        self.process_id = bytes([number + 1]) * 8
        self.address = f"process {number}"
        self.lock = contextlib.nullcontext()
        self.dead: dict[bytes, str] = {}
        self.finalized = Finalized()
        self.ids = IdSource(self.process_id)
        self.links = _Links(machine, self.process_id)
        self.objects = SimpleNamespace(fail=self._fail)
        self.actors = SimpleNamespace(forget=lambda _id: None)
        self.ownership = Ownership(self)  # type: ignore[arg-type]  # all of a core that it uses
        #: What the program in this process holds.
        self.held: list[Any] = []

    def error(self, error: Exception) -> bytes:
        return str(error).encode()

    def _fail(self, cell: Cell, error: bytes) -> None:
        cell.data = error
        cell.status = FAILED

    def handle(self, sender: bytes, message: Any) -> None:
        peer = SimpleNamespace(process_id=sender)
        if isinstance(message, RefGrant):
            cell = self.ownership.accept(message.object_id, message.owner_address)
            self.held.append(cell)
        elif isinstance(message, AddBorrower):
            self.ownership.on_add_borrower(peer, message)  # type: ignore[arg-type]
        elif isinstance(message, BorrowerAdded):
            self.ownership.on_borrower_added(peer, message)  # type: ignore[arg-type]
        elif isinstance(message, ReleaseBorrow):
            self.ownership.on_release(peer, message)  # type: ignore[arg-type]
        self.ownership.drain()


class Network(RuleBasedStateMachine):
    """Processes, and one queue in each direction between any two of them."""

    @initialize()
    def start(self) -> None:
        self.processes = {p.process_id: p for p in (Process(self, i) for i in range(PROCESSES))}
        self.living = set(self.processes)
        self.made = 0
        self.links: dict[tuple[bytes, bytes], deque[Any]] = {
            (a, b): deque() for a in self.living for b in self.living if a != b
        }

    def _pick(self, number: int) -> Process:
        return self.processes[sorted(self.living)[number % len(self.living)]]

    @precondition(lambda self: self.made < OBJECTS or not self._held())
    @rule(number=st.integers(0, 99))
    def put(self, number: int) -> None:
        process = self._pick(number)
        self.made += 1
        cell = Cell(process.ids.draw(), process.address)
        cell.status = INLINE
        process.held.append(cell)

    def _held(self) -> list[tuple[Process, int]]:
        """Return all refs that programs hold, as the process and the place in its list."""
        found = [self.processes[process_id] for process_id in sorted(self.living)]
        return [(process, index) for process in found for index in range(len(process.held))]

    @precondition(lambda self: self._held())
    @rule(number=st.integers(0, 999), to=st.integers(0, 99))
    def hand_on(self, number: int, to: int) -> None:
        held = self._held()
        sender, index = held[number % len(held)]
        others = sorted(self.living - {sender.process_id})
        receiver = others[to % len(others)]
        grant = sender.ownership.grant(sender.held[index], receiver)
        self.links[sender.process_id, receiver].append(grant)

    @precondition(lambda self: self._held())
    @rule(number=st.integers(0, 999))
    def drop(self, number: int) -> None:
        held = self._held()
        process, index = held[number % len(held)]
        del process.held[index]
        process.ownership.drain()

    @precondition(lambda self: any(self.links.values()))
    @rule(number=st.integers(0, 999))
    def deliver(self, number: int) -> None:
        waiting = sorted(pair for pair, queue in self.links.items() if queue)
        if waiting:
            self._deliver(waiting[number % len(waiting)])

    def _deliver(self, pair: tuple[bytes, bytes]) -> None:
        self.processes[pair[1]].handle(pair[0], self.links[pair].popleft())

    @precondition(lambda self: any(self.links.values()))
    @rule(many=st.integers(1, 5))
    def deliver_some(self, many: int) -> None:
        for number in range(many):
            self.deliver(number)

    @precondition(lambda self: len(self.living) > 2)
    @rule(number=st.integers(0, 99), unlikely=st.integers(0, 4))
    def kill(self, number: int, unlikely: int) -> None:
        if unlikely:
            return
        victim = self._pick(number)
        self.living.discard(victim.process_id)
        victim.held.clear()
        # What it has sent is still read before its death is announced; the rest is gone.
        for other in sorted(self.living):
            while self.links[victim.process_id, other]:
                self._deliver((victim.process_id, other))
            self.links[other, victim.process_id].clear()
        for other in sorted(self.living):
            process = self.processes[other]
            process.dead[victim.process_id] = "killed"
            process.ownership.on_process_died(victim.process_id)
            process.ownership.drain()

    @invariant()
    def whoever_may_be_reached_is_there(self) -> None:
        if not hasattr(self, "processes"):
            return
        reachable = {c.object_id for p in self.living for c in self.processes[p].held}
        for (sender, receiver), queue in self.links.items():
            if sender in self.living and receiver in self.living:
                reachable.update(m.object_id for m in queue if isinstance(m, RefGrant))
        for object_id in reachable:
            owner = owner_of(object_id)
            if owner in self.living:
                cell = self.processes[owner].ownership.known(object_id)
                held = [c for c in self.processes[owner].held if c.object_id == object_id]
                assert (cell is not None and cell.status == INLINE) or held

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes.values():
            process.held.clear()
        while True:
            for process_id in self.living:
                process = self.processes[process_id]
                process.held.clear()
                process.ownership.drain()
            waiting = [pair for pair, queue in self.links.items() if queue]
            if not waiting:
                break
            for pair in waiting:
                self._deliver(pair)
        for process_id in self.living:
            ownership = self.processes[process_id].ownership
            assert len(ownership.borrows) == 0
            assert ownership.all_known() == []


Network.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestNetwork = Network.TestCase
