"""Who waits for whom, put together from what all processes have answered.  Plain decisions.

A node of the graph is a call (running or not) or a thread.  It *needs* groups of others: so many of
each.  Calls that can go on are found first, those that wait for nobody; then those whose needs they
fulfil, and so on.  What is left waits for itself: every path from there leads into a circle.
Whatever is not known (an object whose owner has not answered, a call that waits for resources) is
taken for something that goes on, so nothing is reported that may yet end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable

import msgspec

from skate.runtime.wire.state import TaskRow
from skate.runtime.wire.waits import AWAIT, DEBUGGER, CallRow, MadeRow, QueueRow, WaitPage

#: Calls named in one explanation.
MOST_STEPS = 8

Key = Hashable


class Need(msgspec.Struct, frozen=True):
    """So many of these have to end; None stands for somebody who is not known."""

    targets: tuple[Key | None, ...]
    count: int


class _OpenNeed:
    """How much of a need is left, and who has it."""

    __slots__ = ("left", "need", "targets", "waiting")

    def __init__(self, need: Need, keys: set[Key]) -> None:
        #: Kept, so that nothing else gets its id.
        self.need = need
        self.targets = [target for target in need.targets if target in keys]
        self.left = need.count - (len(need.targets) - len(self.targets))
        self.waiting: list[Key] = []


class WaitGraph:
    """One look at all processes."""

    def __init__(self) -> None:
        self.calls: dict[Key, CallRow] = {}
        #: Which node a process belongs to, for each running call.
        self.node_of: dict[Key, bytes] = {}
        self._made: dict[Key, MadeRow] = {}
        self._makers: dict[bytes, Key] = {}
        self._running_in: dict[bytes, list[Key]] = defaultdict(list)
        #: For calls that a concurrent actor has not begun: why, and what that means.
        self._queued: dict[bytes, tuple[QueueRow, Need]] = {}
        #: What calls that were sent to other processes need.
        self._turns: dict[bytes, Need] = {}
        self._concurrent: set[bytes] = set()
        self._known: set[bytes] = set()

    def add(self, node_id: bytes, process_id: bytes, page: WaitPage) -> None:
        """Take in the answer of one process."""
        self._known.add(process_id)
        if page.concurrent:
            self._concurrent.add(process_id)
        for row in page.calls:
            key: Key = row.task.task_id or (process_id, row.thread)
            self.calls[key] = row
            self.node_of[key] = node_id
            if row.task.task_id:
                self._running_in[process_id].append(key)
        for made in page.made:
            self._made[made.task.task_id] = made
            for object_id in made.objects:
                self._makers[object_id] = made.task.task_id
        for queue in page.queues:
            need = Need(tuple(queue.running), 1)
            self._queued.update(dict.fromkeys(queue.queued, (queue, need)))

    # ------------------------------------------------------------------ needs

    def needs(self, key: Key) -> list[Need]:
        """Return what has to happen before a call or thread can go on."""
        row = self.calls.get(key)
        if row is not None:
            needs = [Need((row.below,), 1)] if row.below else []
            if row.kind and row.kind != DEBUGGER and not row.bounded and row.needed > 0:
                needs.append(Need(self._targets(row.objects), row.needed))
            return needs
        made = self._made.get(key)
        if made is None:
            return []
        if made.arguments:
            return [Need(self._targets(made.arguments), len(made.arguments))]
        task = made.task
        if task.worker_id:
            return self._turn(task)
        # The actor does not exist yet: its constructor is a call with the actor's own id.
        return [Need((task.actor_id,), 1)] if task.actor_id in self.calls else []

    def _turn(self, task: TaskRow) -> list[Need]:
        """A call that was sent to a process waits for its turn there."""
        if task.task_id in self._queued:
            return [self._queued[task.task_id][1]]
        worker_id = task.worker_id
        if worker_id in self._concurrent or worker_id not in self._running_in:
            # It is just about to begin.
            return []
        if worker_id not in self._turns:
            running = tuple(self._running_in[worker_id])
            self._turns[worker_id] = Need(running, len(running))
        return [self._turns[worker_id]]

    def _targets(self, objects: Iterable[bytes]) -> tuple[Key | None, ...]:
        return tuple(self._makers.get(object_id) for object_id in objects)

    # ------------------------------------------------------------------ who can go on

    def stuck(self) -> set[Key]:
        """Return the calls and threads that can never go on."""
        keys = {*self.calls, *self._made}
        #: Needs that are not fulfilled.  Thousands of calls in one queue share one.
        open_needs: dict[int, _OpenNeed] = {}
        #: How many of them each call or thread has.
        waiting: dict[Key, int] = {}
        dependents: dict[Key, list[_OpenNeed]] = defaultdict(list)
        free: deque[Key] = deque()
        for key in keys:
            count = 0
            for need in self.needs(key):
                known = open_needs.get(id(need))
                if known is None:
                    known = open_needs[id(need)] = _OpenNeed(need, keys)
                    for target in known.targets:
                        dependents[target].append(known)
                if known.left > 0:
                    known.waiting.append(key)
                    count += 1
            if count:
                waiting[key] = count
            else:
                free.append(key)
        while free:
            for known in dependents[free.popleft()]:
                known.left -= 1
                if known.left == 0:
                    for key in known.waiting:
                        waiting[key] -= 1
                        if not waiting[key]:
                            del waiting[key]
                            free.append(key)
        return set(waiting)

    def circles(self) -> list[list[Key]]:
        """Return circles of calls that wait for each other, each once."""
        stuck = self.stuck()
        found: dict[frozenset[Key], list[Key]] = {}
        seen: set[Key] = set()
        for start in sorted(stuck, key=repr):
            path: list[Key] = []
            on_path: dict[Key, int] = {}
            key: Key | None = start
            while key is not None and key not in on_path and key not in seen:
                on_path[key] = len(path)
                path.append(key)
                key = self._next_stuck(key, stuck)
            if key is not None and key in on_path:
                circle = path[on_path[key] :]
                found.setdefault(frozenset(circle), circle)
            seen.update(path)
        return list(found.values())

    def _next_stuck(self, key: Key, stuck: set[Key]) -> Key | None:
        # What it waits for by itself says more than the call that runs on top of it.
        for need in reversed(self.needs(key)):
            for target in need.targets:
                if target in stuck:
                    return target
        return None

    # ------------------------------------------------------------------ in words

    def name(self, key: Key) -> str:
        """Name a call and its process."""
        row = self.calls.get(key)
        task = row.task if row is not None else self._made[key].task
        name, pid = task.name, task.pid
        if row is None and task.actor_id and task.worker_id in self._running_in:
            # The caller knows the method; what runs there knows the class.
            other = self.calls[self._running_in[task.worker_id][0]].task
            name = f"{other.name.rpartition('.')[0] or 'actor'}.{name.rpartition('.')[2]}"
            pid = other.pid
        return f"{name} (pid {pid})" if pid else name

    def describe(self, key: Key) -> str:
        """Say what a call does, and where."""
        row = self.calls.get(key)
        if row is not None:
            where = f" at {row.place} in {row.function}()" if row.place else ""
            if row.kind == DEBUGGER:
                return f"stands at a breakpoint{where}: attach with skate debug"
            if row.kind:
                return f"waits in {row.kind}{'' if row.kind == AWAIT else '()'}{where}"
            if row.below:
                return f"waits{where} for a call that runs on top of it"
            return f"runs{where}"
        made = self._made[key]
        if made.arguments:
            return "waits for an argument"
        if made.task.worker_id:
            return self._describe_turn(made.task)
        if made.task.actor_id:
            return "waits for its actor to start"
        wanted = ", ".join(f"{name}: {amount:g}" for name, amount in made.task.resources.items())
        return f"waits for a worker with {{{wanted}}}"

    def _describe_turn(self, task: TaskRow) -> str:
        if task.task_id in self._queued:
            queue, need = self._queued[task.task_id]
            running = [key for key in need.targets if key in self.calls]
        else:
            queue, running = None, self._running_in.get(task.worker_id, [])
        if not running:
            return "was sent to its worker"
        names = ", ".join(self.name(other) for other in running[:3])
        if len(running) > 3:
            names += f" and {len(running) - 3} more"
        text = f"is queued behind {names}"
        if queue is not None and queue.limit:
            name, pid = self.calls[running[0]].task.name, self.calls[running[0]].task.pid
            actor = f"{name.rpartition('.')[0] or 'the actor'} (pid {pid})"
            if queue.group:
                text += f" ({actor} runs {queue.limit} at a time in the group {queue.group!r})"
            else:
                text += f" ({actor} has max_concurrency={queue.limit})"
        return text

    def has_limit(self, circle: list[Key]) -> bool:
        """Whether a call of this circle waits because an actor runs no more at the same time."""
        return any(key in self._queued and self._queued[key][0].limit for key in circle)

    def explain_circle(self, circle: list[Key]) -> str:
        """Say who waits for whom, a line for each call that runs."""
        start = next((n for n, key in enumerate(circle) if key in self.calls), 0)
        lines: list[str] = []
        for key in (*circle[start:], *circle[:start]):
            if key in self.calls or not lines:
                lines.append(f"  {self.name(key)} {self.describe(key)}")
            else:
                lines[-1] += f", for {self.name(key)}, which {self.describe(key)}"
        if len(lines) > MOST_STEPS:
            more = len(lines) - MOST_STEPS
            lines[MOST_STEPS - 1 : -1] = [f"  ... ({more} more)"]
        return "\n".join(lines)

    def explain(self, key: Key) -> str:
        """Say what a call waits for, and what that does, and so on."""
        lines: list[str] = []
        seen = {key}
        while len(lines) < MOST_STEPS:
            targets = [target for need in self.needs(key) for target in need.targets]
            known = (target for target in targets if target in self.calls or target in self._made)
            following = next((target for target in known if target not in seen), None)
            if following is None:
                break
            more = f" (one of {len(targets)})" if len(targets) > 1 else ""
            lines.append(f"  for {self.name(following)}{more}, which {self.describe(following)}")
            seen.add(following)
            key = following
        return "\n".join(lines) or "  for something that no process of this node makes"
