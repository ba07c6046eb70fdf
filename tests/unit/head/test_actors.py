"""The actor directory: states, restarts, names and watchers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.engine.base import Strategy
from skate.runtime.head import actors as module
from skate.runtime.head.actors import (
    ActorDirectory,
    Dequeue,
    Effect,
    KillWorker,
    Notify,
    Queue,
    StopWorker,
)
from skate.runtime.wire.messages import ActorState, CreateActor

OWNER, OTHER, WORKER, SECOND = b"owner", b"other", b"worker-1", b"worker-2"
ACTOR, TWIN = b"actor-1", b"actor-2"
#: A process id and an id that it has drawn.
OWNER_ID = b"12345678"
OWNER_ACTOR = OWNER_ID + b"\0\0\0\0\0\0\0\1"


def spec(
    actor_id: bytes = ACTOR,
    name: str = "",
    namespace: str = "",
    max_restarts: int = 0,
    detached: bool = False,
) -> CreateActor:
    return CreateActor(
        actor_id, "Keeper", name, namespace, {}, max_restarts, 1, b"spec", b"handle", detached, 0
    )


def states(effects: list[Effect]) -> list[ActorState]:
    return [effect.state for effect in effects if isinstance(effect, Notify)]


def only_state(effects: list[Effect]) -> ActorState:
    [state] = states(effects)
    return state


def alive(directory: ActorDirectory, actor_id: bytes = ACTOR, worker: bytes = WORKER) -> None:
    """Take a pending actor to life."""
    assert directory.granted(actor_id, worker, "address", 7, 0.0) is not None
    assert only_state(directory.started(worker, actor_id, None)).state == "alive"


def living(**options: object) -> ActorDirectory:
    """A directory with one actor, alive in WORKER."""
    directory = ActorDirectory("session")
    directory.create(spec(**options), OWNER)  # type: ignore[arg-type]  # options of spec
    alive(directory)
    return directory


# --------------------------------------------------------------------------- life


def test_from_pending_to_alive() -> None:
    directory = ActorDirectory("session")
    effects = directory.create(spec(), OWNER)
    assert effects[0] == Queue(ACTOR)
    assert only_state(effects).state == "pending"
    actor = directory.granted(ACTOR, WORKER, "address", 7, 0.0)
    assert actor is not None
    assert actor.state_message().state == "pending"
    [effect] = directory.started(WORKER, ACTOR, None)
    assert isinstance(effect, Notify)
    assert effect.processes == {OWNER}
    assert effect.state == ActorState(ACTOR, "alive", WORKER, "address", 7, 0, "", None)


def test_a_constructor_that_raises() -> None:
    directory = ActorDirectory("session")
    directory.create(spec(max_restarts=5), OWNER)
    directory.granted(ACTOR, WORKER, "address", 7, 0.0)
    effects = directory.started(WORKER, ACTOR, b"pickled")
    state = only_state(effects)
    assert (state.state, state.error) == ("dead", b"pickled")
    assert effects[-1] == StopWorker(WORKER)
    # Its worker ends then, which is no crash of the actor.
    assert directory.worker_died(WORKER, "exited with code 0", 1.0) == []


def test_a_crash_without_restarts() -> None:
    directory = living()
    state = only_state(directory.worker_died(WORKER, "killed by SIGSEGV", 100.0))
    assert (state.state, state.cause) == ("dead", "killed by SIGSEGV")
    # Who asks later is told as well.
    assert only_state(directory.watch(ACTOR, OTHER)).cause == "killed by SIGSEGV"


def test_restarts_are_counted_and_end() -> None:
    directory = living(max_restarts=1)
    effects = directory.worker_died(WORKER, "killed by SIGKILL", 100.0)
    assert only_state(effects).state == "restarting"
    assert Queue(ACTOR) in effects
    assert directory.granted(ACTOR, SECOND, "address-2", 8, 100.0) is not None
    assert only_state(directory.watch(ACTOR, OTHER)).state == "restarting"
    state = only_state(directory.started(SECOND, ACTOR, None))
    assert (state.state, state.restarts, state.worker_id) == ("alive", 1, SECOND)
    assert only_state(directory.worker_died(SECOND, "killed by SIGKILL", 200.0)).state == "dead"


def test_restarts_without_limit_slow_down_while_they_fail() -> None:
    directory = living(max_restarts=-1)
    delays = []
    now, worker = 0.0, WORKER
    for number in range(12):
        effects = directory.worker_died(worker, "killed by SIGKILL", now)
        [queue] = [effect for effect in effects if isinstance(effect, Queue)]
        delays.append(queue.delay)
        worker = b"worker-%d" % number
        assert directory.granted(ACTOR, worker, "address", 7, now) is not None
    assert delays[0] == 0.0
    assert delays == sorted(delays)
    assert delays[-1] == module.LAST_DELAY_SECONDS
    now = module.SHORT_LIFE_SECONDS + 1
    effects = directory.worker_died(worker, "killed by SIGKILL", now)
    assert Queue(ACTOR, 0.0) in effects


def test_an_answer_of_a_worker_that_is_no_longer_the_actors_is_ignored() -> None:
    directory = living(max_restarts=1)
    assert directory.started(OTHER, ACTOR, None) == []
    assert directory.started(WORKER, TWIN, None) == []
    assert directory.started(WORKER, ACTOR, None) == []
    assert directory.worker_died(OTHER, "killed by SIGKILL", 0.0) == []


# --------------------------------------------------------------------------- ends


def test_kill_for_good() -> None:
    directory = living(max_restarts=5)
    effects = directory.kill(ACTOR, no_restart=True, graceful=False)
    assert only_state(effects).cause == module.KILLED
    assert effects[-1] == KillWorker(WORKER, module.KILLED)
    assert directory.worker_died(WORKER, module.KILLED, 1.0) == []
    assert directory.kill(ACTOR, no_restart=True, graceful=False) == []


def test_kill_with_restart() -> None:
    directory = living(max_restarts=1)
    assert directory.kill(ACTOR, no_restart=False, graceful=False) == [
        KillWorker(WORKER, module.KILLED)
    ]
    effects = directory.worker_died(WORKER, module.KILLED, 1.0)
    assert only_state(effects).state == "restarting"
    assert directory.kill(ACTOR, no_restart=False, graceful=False) == []


def test_kill_before_it_has_a_worker() -> None:
    directory = ActorDirectory("session")
    directory.create(spec(), OWNER)
    effects = directory.kill(ACTOR, no_restart=True, graceful=False)
    assert effects[0] == Dequeue(ACTOR)
    assert only_state(effects).state == "dead"
    assert directory.granted(ACTOR, WORKER, "address", 7, 0.0) is None


def test_the_last_handle_goes() -> None:
    directory = living(max_restarts=3)
    assert directory.kill(ACTOR, no_restart=True, graceful=True) == [StopWorker(WORKER)]
    state = only_state(directory.worker_died(WORKER, "exited with code 0", 1.0, " (pid 7)"))
    assert (state.state, state.cause) == ("dead", module.UNREACHABLE)


def test_the_placement_group_of_an_actor_ends() -> None:
    directory = ActorDirectory("session")
    placed = spec(name="name", max_restarts=-1)
    placed.strategy = Strategy(b"group", 0, False, ({"CPU": 1.0},))
    directory.create(placed, OWNER)
    alive(directory)
    assert directory.group_removed(b"another", "it was removed") == []
    state = only_state(directory.group_removed(b"group", "it was removed"))
    assert (state.state, state.kind) == ("dead", module.REMOVED_KIND)
    assert "it was removed" in state.cause
    assert directory.find("name", "") is None
    assert directory.worker_died(WORKER, "killed by SIGKILL", 1.0) == []
    assert directory.group_removed(b"group", "it was removed") == []


def test_a_crash_while_it_finishes_is_told_and_not_repaired() -> None:
    directory = living(max_restarts=3)
    directory.kill(ACTOR, no_restart=True, graceful=True)
    state = only_state(directory.worker_died(WORKER, "killed by SIGSEGV", 1.0, " (pid 7)"))
    assert (state.state, state.cause) == ("dead", "killed by SIGSEGV (pid 7)")


def test_the_last_handle_goes_while_it_waits() -> None:
    directory = ActorDirectory("session")
    directory.create(spec(), OWNER)
    effects = directory.kill(ACTOR, no_restart=True, graceful=True)
    assert effects[0] == Dequeue(ACTOR)
    assert only_state(effects).state == "dead"


def test_actors_end_with_their_owner_unless_detached() -> None:
    directory = living()
    directory.create(spec(TWIN, name="kept", detached=True), OWNER)
    alive(directory, TWIN, SECOND)
    directory.watch(ACTOR, OTHER)
    effects = directory.process_died(OWNER)
    assert KillWorker(WORKER, "its owner died") in effects
    [notify] = [effect for effect in effects if isinstance(effect, Notify)]
    assert notify.processes == {OTHER}
    found = directory.find("kept", "")
    assert found is not None
    assert found.state == "alive"


def test_no_worker_can_be_had() -> None:
    directory = ActorDirectory("session")
    directory.create(spec(), OWNER)
    assert only_state(directory.refused(ACTOR, "cannot fork")).cause == "cannot fork"
    assert directory.refused(ACTOR, "again") == []
    assert directory.refused(TWIN, "unknown") == []


# --------------------------------------------------------------------------- names and watchers


def test_names_count_within_a_namespace() -> None:
    directory = ActorDirectory("session")
    directory.create(spec(ACTOR, name="n"), OWNER)
    state = only_state(directory.create(spec(TWIN, name="n", namespace="session"), OTHER))
    assert (state.state, state.actor_id, state.error) == ("dead", TWIN, None)
    assert state.cause == "an actor named 'n' exists in namespace 'session'"
    assert (
        only_state(directory.create(spec(b"c", name="n", namespace="x"), OTHER)).state == "pending"
    )
    found = directory.find("n", "")
    assert found is not None
    assert found.actor_id == ACTOR
    assert directory.find("n", "y") is None


def test_a_name_is_free_after_death() -> None:
    directory = living(name="n")
    directory.kill(ACTOR, no_restart=True, graceful=False)
    assert directory.find("n", "") is None
    assert only_state(directory.create(spec(TWIN, name="n"), OWNER)).state == "pending"


def test_an_actor_is_not_made_twice() -> None:
    directory = living()
    [notify] = directory.create(spec(), OTHER)
    assert isinstance(notify, Notify)
    assert notify.state.state == "alive"


def test_watchers_are_told_until_they_die() -> None:
    directory = living()
    directory.watch(ACTOR, OTHER)
    directory.process_died(OTHER)
    [notify] = [
        e for e in directory.worker_died(WORKER, "killed by SIGKILL", 1.0) if isinstance(e, Notify)
    ]
    assert notify.processes == {OWNER}


def test_a_handle_may_be_faster_than_its_actor() -> None:
    directory = ActorDirectory("session")
    assert directory.watch(ACTOR, OTHER) == []
    [_, notify] = directory.create(spec(), OWNER)
    assert isinstance(notify, Notify)
    assert notify.processes == {OWNER, OTHER}


def test_an_actor_that_will_never_be_made() -> None:
    directory = ActorDirectory("session")
    directory.watch(OWNER_ACTOR, OTHER)
    state = only_state(directory.started(OWNER_ID, OWNER_ACTOR, b"pickled"))
    assert (state.state, state.error) == ("dead", b"pickled")
    # Nobody else can say so.
    assert directory.started(OTHER, OWNER_ACTOR[:-1] + b"9", b"pickled") == []


def test_watchers_of_an_actor_whose_creator_dies_first() -> None:
    directory = ActorDirectory("session")
    directory.watch(OWNER_ACTOR, OTHER)
    [notify] = directory.process_died(OWNER_ID)
    assert isinstance(notify, Notify)
    assert notify.processes == {OTHER}
    assert (notify.state.state, notify.state.cause) == ("dead", "its owner died")


def test_unknown_actors_of_a_dead_creator_are_dead() -> None:
    state = only_state(ActorDirectory("session").watch(ACTOR, OTHER, creator_lives=False))
    assert (state.state, state.cause) == ("dead", "no such actor")


def test_the_dead_leave_no_payload_and_are_forgotten_at_last() -> None:
    directory = ActorDirectory("session")
    for number in range(module.REMEMBERED + 5):
        made = spec(b"%d" % number)
        directory.create(made, OWNER)
        directory.kill(made.actor_id, no_restart=True, graceful=False)
        assert (made.spec, made.handle) == (b"", b"")
    assert len(directory.actors) == module.REMEMBERED


# --------------------------------------------------------------------------- all together

ids = st.sampled_from([b"a", b"b", b"c"])


class Lives(RuleBasedStateMachine):
    """Random events; the machine plays the daemon and carries the effects out."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = ActorDirectory("session")
        self.queued: set[bytes] = set()
        #: Worker -> actor that was put there.
        self.workers: dict[bytes, bytes] = {}
        self.number = 0
        #: What the owner was told last.
        self.told: dict[bytes, str] = {}

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Queue):
                assert effect.actor_id not in self.queued
                self.queued.add(effect.actor_id)
            elif isinstance(effect, Dequeue):
                self.queued.discard(effect.actor_id)
            elif isinstance(effect, Notify) and OWNER in effect.processes:
                assert (
                    self.told.get(effect.state.actor_id) != "dead" or effect.state.state == "dead"
                )
                self.told[effect.state.actor_id] = effect.state.state
            elif isinstance(effect, KillWorker):
                self.end(effect.worker_id, effect.cause)
            elif isinstance(effect, StopWorker):
                self.end(effect.worker_id, "exited with code 0")

    def end(self, worker: bytes, cause: str) -> None:
        if self.workers.pop(worker, None) is not None:
            self.apply(self.directory.worker_died(worker, cause, 0.0))

    @rule(kind=ids, restarts=st.integers(-1, 2), name=st.sampled_from(["", "x"]))
    def create(self, kind: bytes, restarts: int, name: str) -> None:
        self.number += 1
        actor_id = kind + b"%d" % self.number
        self.apply(self.directory.create(spec(actor_id, name, "", restarts), OWNER))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        actor_id = data.draw(st.sampled_from(sorted(self.queued)))
        self.queued.discard(actor_id)
        self.number += 1
        worker = b"w%d" % self.number
        assert self.directory.granted(actor_id, worker, "address", 7, 0.0) is not None
        self.workers[worker] = actor_id

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), error=st.sampled_from([None, None, b"error"]))
    def start(self, data: st.DataObject, error: bytes | None) -> None:
        worker = data.draw(st.sampled_from(sorted(self.workers)))
        self.apply(self.directory.started(worker, self.workers[worker], error))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.workers))), "killed by SIGKILL")

    @precondition(lambda self: self.directory.actors)
    @rule(data=st.data(), no_restart=st.booleans(), graceful=st.booleans())
    def kill(self, data: st.DataObject, no_restart: bool, graceful: bool) -> None:
        actor_id = data.draw(st.sampled_from(sorted(self.directory.actors)))
        self.apply(self.directory.kill(actor_id, no_restart, graceful))

    @rule()
    def the_owner_dies(self) -> None:
        self.apply(self.directory.process_died(OWNER))
        assert not self.workers
        assert not self.queued
        self.told.clear()

    @invariant()
    def everybody_has_a_worker_or_waits_or_is_dead(self) -> None:
        for actor in self.directory.actors.values():
            assert actor.waits == (actor.actor_id in self.queued)
            if actor.state in ("starting", "alive"):
                assert self.workers[actor.worker_id] == actor.actor_id
            if actor.max_restarts >= 0:
                assert actor.restarts <= actor.max_restarts
        occupied = [self.directory.actor_on(worker) for worker in self.workers]
        assert None not in occupied

    @invariant()
    def the_owner_knows(self) -> None:
        for actor_id, state in self.told.items():
            actor = self.directory.actors.get(actor_id)
            if actor is not None:
                assert actor.state_message().state == state

    @invariant()
    def a_name_has_one_living_bearer(self) -> None:
        bearers = [a for a in self.directory.actors.values() if a.spec.name and a.state != "dead"]
        assert len(bearers) <= 1
        assert self.directory.find("x", "") is (bearers[0] if bearers else None)


TestLives = Lives.TestCase
