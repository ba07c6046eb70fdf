"""Runtime environments on the wire: what one consists of, and the messages about packages.

An environment travels encoded, as opaque ``bytes`` in ``RequestLease`` and ``CreateActor``; empty
ones mean: nothing special.  Equal environments have equal bytes, which therefore name them.
"""

from __future__ import annotations

import msgspec

from skate.runtime.wire.parts import Message

#: Where files that the session has already got are named by their content.
PACKAGE_SCHEME = "package://"


class Installation(msgspec.Struct, array_like=True, frozen=True):
    """Python packages to install into a virtual environment."""

    #: "pip" or "uv".
    installer: str
    #: Lines of a requirements file, normalised and sorted.
    requirements: list[str]
    #: Further options for the installer's ``install``.
    options: list[str] = []
    #: Have the installer check that all requirements fit together.
    check: bool = False
    #: Which version of the installer, e.g. ``==24.0``; "" for the one that is there.
    version: str = ""
    #: Digest of the local files that requirements name, so that changed ones are installed anew.
    files: str = ""


class Environment(msgspec.Struct, array_like=True, frozen=True):
    """What tasks and actors find around them."""

    env_vars: dict[str, str] = {}
    #: Digest of a package; "" for the directory that workers are started in.
    working_dir: str = ""
    #: Digests of packages, in the order in which they are searched.
    py_modules: list[str] = []
    installation: Installation | None = None
    #: Most seconds that preparing it on a node may take; 0 for no limit.
    setup_timeout_seconds: float = 600.0


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Environment)

#: Nothing special, whatever the limits of preparing it are.
_PLAIN = Environment()


def encode(environment: Environment) -> bytes:
    """Return the bytes that name an environment; none for one that has nothing special."""
    if (
        environment == _PLAIN
        or msgspec.structs.replace(environment, setup_timeout_seconds=_PLAIN.setup_timeout_seconds)
        == _PLAIN
    ):
        return b""
    return _encoder.encode(environment)


def decode(data: bytes) -> Environment:
    """Return what ``encode`` was given.

    Raises:
        msgspec.MsgspecError: the bytes name no environment.
    """
    return _decoder.decode(data) if data else _PLAIN


def describe(data: bytes) -> str:
    """Return an environment as JSON for people, without the values of variables: secrets."""
    environment = decode(data)
    parts: dict[str, object] = {
        "env_vars": sorted(environment.env_vars),
        "working_dir": environment.working_dir,
        "py_modules": environment.py_modules,
        "installation": environment.installation,
    }
    return msgspec.json.encode({name: part for name, part in parts.items() if part}).decode()


class PrepareEnvironment(Message, tag=200):
    """To the daemon: work in this environment is about to come, prepare it now."""

    environment: bytes


class FindPackages(Message, tag=201):
    """To the daemon: which of these packages does the node not have?"""

    request_id: int
    package_ids: list[str]


class PackagesMissing(Message, tag=202):
    """Answer to ``FindPackages``."""

    request_id: int
    package_ids: list[str]


class StorePackage(Message, tag=203):
    """To the daemon: a piece of a package, pieces in order; the answer asks for the next."""

    request_id: int
    package_id: str
    offset: int
    data: bytes
    last: bool


class PackageStored(Message, tag=204):
    """Answer to ``StorePackage``; ``error`` is empty if the piece was stored."""

    request_id: int
    error: str


class ReadPackage(Message, tag=205):
    """To a daemon: send a piece of a package that you have."""

    request_id: int
    package_id: str
    offset: int


class PackageData(Message, tag=206):
    """Answer to ``ReadPackage``: up to ``PIECE`` bytes, and the size of the whole package."""

    request_id: int
    data: bytes
    size: int
    error: str = ""


#: Bytes of a package in one message.
PIECE = 4 << 20
