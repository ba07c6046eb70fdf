"""Whether objects can be spilled to where ``init(spill_uri=...)`` says.

A wrong place is found out now, not hours later when memory is full for the first time.  Nothing is
made or connected to: that needs a first object.
"""

from __future__ import annotations

import importlib.util
import os

from skate.api.checks import nearest

_LOCAL = ("", "file", "local")


def check_spill_uri(value: object) -> str:
    """Return the place; "" for None.

    Raises:
        TypeError: It is no string, or an empty one.
        ValueError: It is no directory in which this user may write, and none that can be made; or a
            URL of a kind that fsspec does not know.
        ImportError: The package for such URLs is not installed.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise TypeError(f"spill_uri must be a directory or a URL, not {value!r}")
    scheme, separator, rest = value.partition("://")
    if not separator or scheme in _LOCAL:
        _check_directory(value, rest if separator else value)
    else:
        _check_url(value, scheme)
    return value


def _check_directory(value: str, path: str) -> None:
    place = os.path.abspath(os.path.expanduser(path))
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise ValueError(f"spill_uri={value!r} is no directory: {place} is something else")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"spill_uri={value!r}: this process may not write in {place}")


def _check_url(value: str, scheme: str) -> None:
    if importlib.util.find_spec("fsspec") is None:
        raise ImportError(
            f"spill_uri={value!r}: spilling to URLs needs fsspec: pip install 'skate[spill]'"
        )
    from fsspec.registry import known_implementations, registry

    # "simplecache::s3://..." goes through both.
    for protocol in scheme.split("::"):
        if protocol in registry:
            continue
        known = known_implementations.get(protocol)
        if known is None:
            hint = nearest(protocol, [*known_implementations])
            raise ValueError(f"spill_uri={value!r}: fsspec knows no {protocol}:// URLs.{hint}")
        package = known["class"].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"spill_uri={value!r} needs a package that is not installed:"
                f" {known.get('err', f'pip install {package}')}"
            )
