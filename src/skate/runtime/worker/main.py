"""The life of a worker process, after the zygote has forked it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

from skate.runtime.worker.config import WorkerConfig
from skate.runtime.worker.execute import flush_output

# A worker is put together at the top layer, like a driver: user code in it calls the public API.
# Layers import downward only, so this one names the module; it is imported here, in the zygote,
# before any worker is forked.
_assembly = importlib.import_module("skate.api.worker_process")


def main(config: WorkerConfig) -> NoReturn:
    """Join the session, run what callers push until told to exit, then end the process."""
    status = 1
    try:
        _assembly.run(config)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush_output()
        # Not ``sys.exit``: that would unwind into the zygote's frames and wait for user threads.
        os._exit(status)
