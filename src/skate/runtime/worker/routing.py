"""Which part of a process each message is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.runtime.wire import messages as wire
from skate.runtime.worker.links import Peer

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


def peer_handlers(core: Core) -> dict[type, Callable[[Peer, Any], None]]:
    """What other processes say.  All are called with the lock held."""

    def ignore(_peer: Peer, _message: Any) -> None:
        """A message that this kind of process has no use for."""

    submitter, objects, executor = core.submitter, core.objects, core.executor
    leasing, streams = core.leasing, core.streams
    return {
        wire.Hello: ignore,
        wire.Reply: submitter.on_reply,
        wire.ReplyValues: submitter.on_reply_values,
        wire.TaskFailed: submitter.on_failed,
        wire.Returned: leasing.on_returned,
        wire.Unblocked: leasing.on_unblocked,
        wire.Retiring: leasing.on_retiring,
        wire.FetchObject: objects.on_fetch,
        wire.ObjectValue: objects.on_value,
        wire.AddBorrower: core.ownership.on_add_borrower,
        wire.BorrowerAdded: core.ownership.on_borrower_added,
        wire.ReleaseBorrow: core.ownership.on_release,
        wire.ReportLost: objects.on_report_lost,
        wire.BeginLease: executor.on_begin_lease if executor else ignore,
        wire.DefineFunction: executor.on_define if executor else ignore,
        wire.Task: executor.on_task if executor else ignore,
        wire.Steal: executor.on_steal if executor else ignore,
        wire.Cancel: executor.cancellation.on_cancel if executor else ignore,
        wire.StreamItems: streams.on_items,
        wire.StreamValues: streams.on_values,
        wire.StreamEnded: streams.on_ended,
        wire.TaskStarted: core.timeouts.on_started,
        wire.CancelObject: submitter.on_cancel_object,
        wire.StreamTaken: executor.producers.on_taken if executor else ignore,
        wire.StreamDropped: executor.cancellation.on_stream_dropped if executor else ignore,
    }


def node_handlers(core: Core) -> dict[type, Callable[[Any], None]]:
    """What the daemon says.  All are called with the lock held."""
    leasing, executor, callbacks = core.leasing, core.executor, core.pump.callbacks
    handlers: dict[type, Callable[[Any], None]] = {
        wire.Registered: core.on_registered,
        wire.ClusterResources: core.on_cluster_resources,
        wire.LeaseGranted: leasing.on_lease_granted,
        wire.LeaseRefused: leasing.on_lease_refused,
        wire.RecallLease: leasing.on_recall,
        wire.WorkerDied: core.deaths.on_worker_died,
        wire.ActorState: core.actors.on_state,
        wire.NamedActor: core.on_answer,
        wire.StateAnswer: core.on_answer,
        wire.Inspection: core.on_answer,
        wire.StateQuery: core.looking.on_query,
        wire.ObjectFreed: lambda message: core.ownership.free_own(message.location),
        wire.ObjectLocated: core.on_answer,
        wire.PackagesMissing: core.on_answer,
        wire.PackageStored: core.on_answer,
        wire.PlacementGroupsFound: core.on_answer,
        wire.PlacementGroupState: core.placement.on_state,
        wire.RoomAnswer: core.on_answer,
        wire.SegmentRetired: lambda message: core.objects.store.retire(message.segment_id),
        # The user's streams and logging handlers may do anything: not under the lock.
        wire.LogLines: lambda message: callbacks.append(lambda: core.on_log(message)),
        wire.Warn: lambda message: callbacks.append(lambda: core.on_warning(message.text)),
        wire.ShutdownDone: lambda message: core.shutdown_done.on_ready(),
    }
    if executor is not None:
        handlers[wire.StartActor] = executor.on_start_actor
        handlers[wire.ExitWorker] = lambda message: executor.on_exit()
    return handlers
