"""Which worker of a pool does what: a state machine against a simple model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.util._assignment import Assignment, Run, Start, Stop


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.size = 3
        self.limit: int | None = 2
        self.assignment: Assignment[int] = Assignment(self.size, self.limit)
        self.alive: dict[int, int] = {}
        self.doing: dict[int, int] = {}
        self.added = 0
        self.begun: list[int] = []
        self.dropped: list[int] = []
        self.closed = False

    def carry_out(self, actions) -> None:
        for action in actions:
            if isinstance(action, Start):
                assert action.worker not in self.alive
                self.alive[action.worker] = 0
                assert len(self.alive) <= self.size
            elif isinstance(action, Run):
                assert action.worker not in self.doing
                assert self.alive[action.worker] < self.limit
                self.doing[action.worker] = action.work
                self.begun.append(action.work)
            else:
                assert isinstance(action, Stop)
                assert action.worker not in self.doing
                del self.alive[action.worker]

    @precondition(lambda self: not self.closed)
    @rule()
    def add(self) -> None:
        self.added += 1
        self.carry_out(self.assignment.add(self.added))

    @precondition(lambda self: not self.closed)
    @rule()
    def start_all(self) -> None:
        self.carry_out(self.assignment.start_all())
        assert len(self.alive) == self.size

    @precondition(lambda self: self.doing)
    @rule(data=st.data())
    def finish(self, data) -> None:
        worker = data.draw(st.sampled_from(sorted(self.doing)))
        del self.doing[worker]
        self.alive[worker] += 1
        self.carry_out(self.assignment.finished(worker))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def lose(self, data) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        del self.alive[worker]
        self.doing.pop(worker, None)
        self.carry_out(self.assignment.lost(worker))

    @rule()
    def drop(self) -> None:
        self.dropped += self.assignment.drop_waiting()

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.carry_out(self.assignment.close())

    @invariant()
    def nothing_is_lost_or_done_twice(self) -> None:
        waiting = self.added - len(self.begun) - len(self.dropped)
        assert self.assignment.waiting == waiting
        assert len({*self.begun, *self.dropped}) == len(self.begun) + len(self.dropped)
        assert self.begun == sorted(self.begun)

    @invariant()
    def nobody_idles_while_work_waits(self) -> None:
        if self.assignment.waiting:
            assert len(self.doing) == self.size

    @invariant()
    def workers_are_let_go_at_the_end(self) -> None:
        if self.closed and not self.doing:
            assert not self.alive
        assert sorted(self.assignment.workers) == sorted(self.alive)


TestAssignment = Machine.TestCase
