"""Writing values to shared memory, and waiting while the store is full."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from skate.exceptions import ObjectStoreFullError
from skate.runtime.store.client import NoRoomError
from skate.runtime.wire.messages import RequestRoom

if TYPE_CHECKING:
    from skate.runtime.store.client import StoreClient
    from skate.runtime.wire.messages import Location
    from skate.runtime.worker.core import Core
    from skate.serialization import Serialized

#: How long a driver's ``put``, and a task, wait for room while nothing can be spilled, in seconds.
PUT_PATIENCE = 4.0
TASK_PATIENCE = 20.0
#: What to do when there is no room.
MAKE_ROOM = (
    "Drop arrays and refs that you no longer need, or give the store more memory:"
    " init(object_store_memory=...)"
)


class _Search:
    """The search for room for one object: asks patiently, and once more after collecting garbage.

    Tasks look at their arguments while they run: what fills the store is often gone soon.
    """

    def __init__(self, core: Core, object_id: bytes, size: int) -> None:
        core.drain()
        self._core = core
        self._object_id = object_id
        self._size = size
        self._wanted = 0
        self._collected = False

    def refused(self, error: NoRoomError) -> None:
        """There is no segment of so many bytes."""
        self._wanted = error.size

    def request(self, number: int) -> RequestRoom:
        """Return what to ask the daemon."""
        patience = PUT_PATIENCE if self._core.is_driver else TASK_PATIENCE
        return RequestRoom(
            number, self._wanted, 1.0 if self._collected else patience, self._collected
        )

    def answered(self, answer: Any) -> None:
        """Go on, or give up.

        Raises:
            ObjectStoreFullError: nothing has made room.
        """
        if not answer.error:
            return
        if self._collected:
            raise ObjectStoreFullError(
                f"no room for object {self._object_id.hex()} of {self._size} bytes:"
                f" {answer.error}\n{MAKE_ROOM}"
            )
        # Refs in cycles are looked for only now: it takes long.
        self._collected = True
        gc.collect()
        self._core.drain()


class Writing:
    """Writes this process's values."""

    def __init__(self, core: Core, store: StoreClient) -> None:
        self._core = core
        self._store = store

    def write(self, object_id: bytes, serialized: Serialized) -> Location:
        """Write to shared memory; wait while there is no room.

        Raises:
            ObjectStoreFullError: nothing has made room for some seconds.
        """
        search = _Search(self._core, object_id, serialized.size)
        while True:
            try:
                return self._store.write(object_id, serialized)
            except NoRoomError as error:
                search.refused(error)
            search.answered(self._core.ask_patiently(search.request, None))

    async def write_on_loop(self, object_id: bytes, serialized: Serialized) -> Location:
        """Do the same, but let the event loop go on while there is no room.

        What goes on may change what is being written, so a copy is made first.

        Raises:
            ObjectStoreFullError: nothing has made room for some seconds.
        """
        search = _Search(self._core, object_id, serialized.size)
        detached = False
        while True:
            try:
                return self._store.write(object_id, serialized)
            except NoRoomError as error:
                search.refused(error)
            if not detached:
                detached = True
                serialized.detach()
            search.answered(await self._core.awaiting.ask(search.request))
