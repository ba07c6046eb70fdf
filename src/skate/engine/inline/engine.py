"""The engine itself; see the package."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from skate.engine.base import (
    STREAMING,
    ActorOptions,
    CallOptions,
    Code,
    Context,
    SessionConfig,
    Strategy,
    TaskOptions,
)
from skate.engine.inline.objects import InlineObjects
from skate.engine.inline.placement import InlinePlacementGroups
from skate.engine.inline.records import Actor, ActorCell, Cell, Running, current
from skate.engine.inline.running import (
    actor_died,
    call_function,
    deeper,
    dump_error,
    exit_code,
    failure_of,
    find_method,
    may_retry,
    ready_arguments,
    refuse_environment,
    timed_out,
)
from skate.engine.inline.streams import InlineStream
from skate.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorPlacementGroupRemovedError,
    NotSupportedError,
    TaskError,
    TaskPlacementGroupRemovedError,
    WorkerCrashedError,
)
from skate.generators import ObjectRefGenerator
from skate.refs import ObjectRef
from skate.serialization import (
    deserialize,
    loads_code,
)

if TYPE_CHECKING:
    from typing import TypeGuard

logger = logging.getLogger("skate")


class InlineEngine(InlineObjects):
    """See ``Engine``."""

    session_dir = ""

    def __init__(self, config: SessionConfig) -> None:
        refuse_environment(config.runtime_env)
        super().__init__()
        self._config = config
        self._names: dict[tuple[str, str], Actor] = {}
        self._functions: dict[bytes, Any] = {}
        self.placement_groups = InlinePlacementGroups(
            self, self._process_id, config.resources, config.namespace, self._new_id
        )

    # ------------------------------------------------------------------ tasks

    def submit_task(
        self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        """Run the function now; retry it if it raises and the options say so."""
        refuse_environment(options.runtime_env)
        arguments = self._pack(args, kwargs)
        _ = code.payload  # what cannot be pickled is the caller's error, at once
        name = options.name or code.name
        self._warn_if_too_much(name, options.resources)
        strategy = _placed(options.strategy, options.resources)
        cells = self.new_cells(1 if options.num_returns < 0 else options.num_returns)
        refused = self.placement_groups.refusal(strategy.group_id) if _in_group(strategy) else ""
        if refused:
            self.fail(cells, dump_error(TaskPlacementGroupRemovedError(f"{name}(): {refused}")))
            return [ObjectRef(cell) for cell in cells]
        if options.num_returns < 0:
            stream = InlineStream(
                self,
                cells[0],
                lambda attempt: (
                    self._begin(name, options.resources, None, attempt, strategy),
                    lambda: call_function(self._load(code), *ready_arguments(arguments)),
                ),
                options.max_retries,
                options.retry_exceptions,
                options.timeout_s,
            )
            return self._open(stream, cells[0], options.num_returns, arguments)
        if isinstance(arguments, Cell):
            self.fail(cells, arguments.data)
            return [ObjectRef(cell) for cell in cells]
        for attempt in itertools.count():
            running = self._begin(name, options.resources, None, attempt, strategy)
            started = time.perf_counter()
            error = self._execute(
                running, cells, lambda: call_function(self._load(code), *arguments())
            )
            seconds = time.perf_counter() - started
            error = timed_out(name, options.timeout_s, seconds) or error
            if error is None:
                break
            if isinstance(error, SystemExit):
                failure: Exception = WorkerCrashedError(
                    f"{name}() ended its process: exited with code {exit_code(error)}"
                )
            else:
                failure = failure_of(name, error, self.node)
            left = options.max_retries - attempt if options.max_retries >= 0 else 1
            if left <= 0 or not may_retry(error, options.retry_exceptions):
                self.fail(cells, dump_error(failure))
                break
        return [ObjectRef(cell) for cell in cells]

    def _open(
        self, stream: InlineStream, cell: Cell, num_returns: int, arguments: object
    ) -> list[Any]:
        """Return what the call of a generator returns."""
        if isinstance(arguments, Cell):
            stream.fail(arguments.data)
        if num_returns == STREAMING:
            return [ObjectRefGenerator(stream)]
        if not isinstance(arguments, Cell):
            stream.dynamic()
        return [ObjectRef(cell)]

    def _execute(
        self, running: Running, cells: list[Cell], call: Callable[[], Any]
    ) -> BaseException | None:
        """Run user code and fill the cells with what it returns; return what it raises instead."""
        return self.run(running, lambda: self._fill(cells, call(), running.name))

    def run(self, running: Running, step: Callable[[], None]) -> BaseException | None:
        """Run user code as ``running`` and return what it raises."""
        token = current.set(running)
        try:
            with deeper(running.level):
                step()
        except KeyboardInterrupt:
            raise  # it is the driver's: there is no other process to interrupt
        except BaseException as error:
            return error
        finally:
            current.reset(token)
        return None

    def _begin(
        self,
        name: str,
        resources: dict[str, float],
        actor: Actor | None,
        attempt: int = 0,
        strategy: Strategy | None = None,
    ) -> Running:
        outer = current.get()
        level = outer.level + 1 if outer is not None else 1
        if actor is not None:
            strategy = actor.options.strategy
        return Running(self._new_id(), name, resources, actor, level, attempt, strategy)

    # ------------------------------------------------------------------ actors

    def create_actor(
        self,
        code: Code,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        handle: bytes,
    ) -> Any:
        """Make the instance now."""
        refuse_environment(options.runtime_env)
        namespace = options.namespace or self._config.namespace
        if options.name and (namespace, options.name) in self._names:
            raise ActorAlreadyExistsError(
                f"an actor named {options.name!r} exists in the namespace {namespace!r}"
            )
        arguments = self._pack(args, kwargs)
        _ = code.payload  # what cannot be pickled is the caller's error, at once
        self._warn_if_too_much(code.name, options.resources)
        options = replace(options, strategy=_placed(options.strategy, options.resources))
        actor = Actor(self._new_id(), options, namespace, handle)
        actor.class_name = code.name
        cell = ActorCell(self, actor.actor_id, keeps=not options.detached)
        self._cells[actor.actor_id] = cell
        self._actors[actor.actor_id] = actor
        if options.name:
            self._names[namespace, options.name] = actor
        if isinstance(arguments, Cell):
            cause = deserialize(arguments.data)
            died = ActorDiedError(
                f"{code.name} could not be created, an argument has failed: {cause}",
                actor_id=actor.actor_id.hex(),
            )
            died.__cause__ = cause
            self._bury(actor, died)
            return cell
        strategy = options.strategy
        refused = self.placement_groups.refusal(strategy.group_id) if _in_group(strategy) else ""
        if refused:
            text = f"{code.name} could not be created: {refused}"
            actor_id = actor.actor_id.hex()
            self._bury(actor, ActorPlacementGroupRemovedError(text, actor_id=actor_id))
            return cell
        if options.asynchronous:
            from skate.engine.inline.loops import CallLoop  # it imports asyncio: 35 ms

            actor.loop = CallLoop(code.name)
        ready = arguments
        actor.make = lambda: call_function(self._load(code), *ready())
        self._start(actor)
        return cell

    def _start(self, actor: Actor) -> None:
        name = f"{actor.class_name}.__init__"
        made: list[Any] = []
        running = self._begin(name, actor.options.resources, actor)
        error = self._execute(running, [], lambda: made.append(actor.run(actor.make)))
        if error is None:
            actor.instance = made[0]
            return
        failure = TaskError.from_exception(name, error, os.getpid(), self.node)
        self._bury(
            actor,
            ActorDiedError.in_constructor(actor.class_name, failure, actor_id=actor.actor_id.hex()),
        )

    def submit_call(
        self,
        actor: Any,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> list[Any]:
        """Call the method now."""
        self._check_cell(actor)
        arguments = self._pack(args, kwargs)
        if options.num_returns < 0:
            return self._stream_call(actor.object_id, method, arguments, options)
        cells = self.new_cells(options.num_returns)
        refs: list[ObjectRef[Any]] = [ObjectRef(cell) for cell in cells]
        target = self._actors.get(actor.object_id)
        if target is None or target.death is not None:
            died = target.death if target is not None else None
            self.fail(cells, dump_error(died or actor_died(actor.object_id, "it is dead")))
            return refs
        if isinstance(arguments, Cell):
            self.fail(cells, arguments.data)
            return refs
        ready = arguments
        name = options.name or f"{target.class_name}.{method}"
        retries = options.max_task_retries
        if retries is None:
            retries = target.options.max_task_retries
        for attempt in itertools.count():
            started = time.perf_counter()
            with target.lock:
                running = self._begin(name, target.options.resources, target, attempt)
                error = self._execute(
                    running,
                    cells,
                    lambda: target.run(
                        lambda: call_function(find_method(target.instance, method), *ready())
                    ),
                )
            seconds = time.perf_counter() - started
            error = timed_out(name, options.timeout_s, seconds) or error
            if error is None or isinstance(error, SystemExit):
                break
            if 0 <= retries <= attempt or not may_retry(error, options.retry_exceptions):
                break
        if isinstance(error, SystemExit):
            code = exit_code(error)
            died = actor_died(
                target.actor_id, f"{name}() ended its process: exited with code {code}"
            )
            self._bury(target, died)
            self.fail(cells, dump_error(died))
        elif error is not None:
            self.fail(cells, dump_error(failure_of(name, error, self.node)))
        return refs

    def _stream_call(
        self, actor_id: bytes, method: str, arguments: Any, options: CallOptions
    ) -> list[Any]:
        """Call a method that is a generator."""
        completed = self.new_cells(1)[0]
        target = self._actors.get(actor_id)
        if target is None or target.death is not None:
            died = target.death if target is not None else None
            lost = self.new_cells(1)[0]
            self.fail([lost], dump_error(died or actor_died(actor_id, "it is dead")))
            arguments = lost
        name = options.name or f"{target.class_name if target is not None else ''}.{method}"

        def start(attempt: int) -> tuple[Running, Callable[[], Any]]:
            assert target is not None
            return (
                self._begin(name, target.options.resources, target, attempt),
                lambda: target.items(
                    target.run(
                        lambda: call_function(
                            find_method(target.instance, method), *ready_arguments(arguments)
                        )
                    )
                ),
            )

        retries = options.max_task_retries
        if retries is None:
            retries = target.options.max_task_retries if target is not None else 0
        stream = InlineStream(
            self, completed, start, retries, options.retry_exceptions, options.timeout_s
        )
        return self._open(stream, completed, options.num_returns, arguments)

    def find_actor(self, name: str, namespace: str | None) -> tuple[Any, bytes] | None:
        """Return a cell that does not keep the actor alive."""
        actor = self._names.get((namespace or self._config.namespace, name))
        if actor is None:
            return None
        return ActorCell(self, actor.actor_id, keeps=False), actor.handle

    def own_actor(self) -> tuple[Any, bytes] | None:
        """Return the actor whose method runs."""
        running = current.get()
        if running is None or running.actor is None:
            return None
        return ActorCell(self, running.actor.actor_id, keeps=False), running.actor.handle

    def kill_actor(self, actor: Any, no_restart: bool) -> None:
        """Drop the instance; make a new one if it is to be restarted."""
        self._check_cell(actor)
        target = self._actors.get(actor.object_id)
        if target is None or target.death is not None:
            return
        allowed = target.options.max_restarts
        if not no_restart and (allowed < 0 or target.restarts < allowed):
            target.restarts += 1
            self._start(target)
            return
        self._bury(target, actor_died(target.actor_id, "killed by skate.kill"))

    def end_actor(self, actor_id: bytes, cause: str) -> None:
        """End an actor, if it lives."""
        actor = self._actors.get(actor_id)
        if actor is not None and actor.death is None:
            self._bury(actor, actor_died(actor_id, cause))

    def end_actors_in(self, group_id: bytes, died: Callable[[str], ActorDiedError]) -> None:
        """End the actors in a placement group."""
        for actor in list(self._actors.values()):
            strategy = actor.options.strategy
            if actor.death is None and strategy is not None and strategy.group_id == group_id:
                self._bury(actor, died(actor.actor_id.hex()))

    def _bury(self, actor: Actor, died: ActorDiedError) -> None:
        actor.death = died
        actor.instance = None
        if actor.loop is not None:
            actor.loop.close()
        actor.make = lambda: None
        self._names.pop((actor.namespace, actor.options.name), None)

    # ------------------------------------------------------------------ state

    def cancel(self, ref: Any, force: bool, recursive: bool) -> None:
        """End a generator; every other task has finished: there is nothing to stop."""
        if isinstance(ref, ObjectRefGenerator):
            stream: Any = ref._cell
            stream.cancel()
        else:
            self._check_cell(ref._cell)

    def inspect(self, what: str, *_others: object, **_more: object) -> Any:
        """There is nothing to ask: whoever could has everything in its own process."""
        raise NotSupportedError(
            f"the inline engine keeps no {what}: it has run every task when remote() returns;"
            ' init(engine="native") has processes to look into'
        )

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return rows as the daemon would."""
        if what in ("cluster_resources", "available_resources"):
            return [dict(self._config.resources)]
        if what == "nodes":
            return [
                {
                    "NodeID": self.node,
                    "Alive": True,
                    "NodeManagerHostname": socket.gethostname(),
                    "NodeManagerAddress": "127.0.0.1",
                    "Resources": dict(self._config.resources),
                }
            ]
        if what == "actors":
            return [
                {
                    "actor_id": actor.actor_id.hex(),
                    "state": "alive" if actor.death is None else "dead",
                    "class_name": actor.class_name,
                    "name": actor.options.name,
                    "namespace": actor.namespace,
                    "pid": os.getpid(),
                    "restarts": actor.restarts,
                }
                for actor in self._actors.values()
            ]
        return []

    def context(self) -> Context:
        """Return what runs in this thread."""
        running = current.get()
        where = (self._process_id, self._process_id, self._process_id.hex(), self._config.namespace)
        if running is None:
            return Context(*where)
        actor = running.actor
        gpus = running.resources.get("GPU", 0.0)
        return Context(
            *where,
            task_id=running.task_id,
            task_name=running.name,
            actor_id=actor.actor_id if actor is not None else b"",
            actor_name=actor.options.name if actor is not None else "",
            restarts=actor.restarts if actor is not None else 0,
            attempt=running.attempt,
            assigned_resources=running.resources,
            # A part of a GPU is on one.
            gpu_ids=range(-int(-gpus // 1)),
            is_driver=False,
            strategy=running.strategy,
        )

    def portable(self, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as it is: nothing leaves this process."""
        return dict(runtime_env)

    def shutdown(self) -> None:
        """Forget everything."""
        for actor in list(self._actors.values()):
            self.end_actor(actor.actor_id, "the session has ended")
        self._pinned.clear()
        self._functions.clear()

    # ------------------------------------------------------------------ inside

    def _load(self, code: Code) -> Any:
        """Return the function or class as another process would have it: a copy."""
        function = self._functions.get(code.code_id)
        if function is None:
            function = self._functions[code.code_id] = loads_code(code.payload)
        return function

    def _warn_if_too_much(self, name: str, resources: dict[str, float]) -> None:
        have = self._config.resources
        for kind, wanted in resources.items():
            if wanted > have.get(kind, 0.0):
                logger.warning(
                    "%s asks for %g %s, but there are only %g; the inline engine runs it all the"
                    " same, others would wait",
                    name,
                    wanted,
                    kind,
                    have.get(kind, 0.0),
                )


def _placed(strategy: Strategy | None, resources: dict[str, float]) -> Strategy | None:
    """Return where a task or actor runs: where it says, or with a caller that captures it."""
    if strategy is None:
        outer = current.get()
        if outer is not None and outer.strategy is not None:
            strategy = outer.strategy.inherited()
    if strategy is not None:
        strategy.check_fits(resources)
    return strategy


def _in_group(strategy: Strategy | None) -> TypeGuard[Strategy]:
    return strategy is not None and bool(strategy.group_id)
