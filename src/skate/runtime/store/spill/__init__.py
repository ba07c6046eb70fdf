"""Where objects go when memory is full: the contract, and one file per kind of place."""

from __future__ import annotations

from skate.runtime.store.spill._base import Record, SpillError, SpillStorage

__all__ = ["Record", "SpillError", "SpillStorage", "open_storage"]


def open_storage(uri: str) -> SpillStorage:
    """Return the storage at ``uri``: a directory, or a URL of fsspec.

    Nothing is opened before the first object.

    Raises:
        SpillError: the package is missing that such a URL needs.
    """
    from skate.runtime.store.spill.local import LocalStorage

    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStorage(uri)
    if scheme in ("file", "local"):
        return LocalStorage(rest)
    from skate.runtime.store.spill.remote import RemoteStorage

    return RemoteStorage(uri)
