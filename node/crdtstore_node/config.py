"""The configuration of a node: one TOML file, overridden by the environment, validated once.

The question: what may an operator get wrong without noticing? A misspelt field, a limit in the wrong unit, a listener open to the world.
Hence unknown fields are refused, every limit carries its unit and bounds, and a listener elsewhere than on loopback needs
``insecure = true`` beside it, because nothing here is encrypted yet. Each error names the file, the field and what was expected.

Environment: CRDTSTORE_NODE, CRDTSTORE_DATA, CRDTSTORE_API, CRDTSTORE_GOSSIP, CRDTSTORE_GOSSIP_ADVERTISE, CRDTSTORE_CLUSTER_FILE,
CRDTSTORE_REGION, CRDTSTORE_JOIN (with commas between), CRDTSTORE_IDENTITY_WAIT_MS, CRDTSTORE_INSECURE, and for the tables
CRDTSTORE_ENGINE_…, CRDTSTORE_LOG_…, CRDTSTORE_STATE_…, CRDTSTORE_LINKS_…, CRDTSTORE_HTTP_… . Relative paths in the file are relative
to the file, those in the environment to the working directory.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct, ValidationError, convert

from crdtstore.causal import NAME, ReplicaId, node_of, parse_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.options import Options
from crdtstore.errors import UsageError
from crdtstore.storage.log import SEGMENT_BYTES
from crdtstore_node.identity import Joining

__all__ = [
    "UNSAVED_BYTES",
    "Address",
    "Http",
    "Links",
    "Log",
    "NodeConfig",
    "State",
    "load",
    "load_cluster",
    "parse_address",
]

UNSAVED_BYTES = 1 << 30
_PREFIX = "CRDTSTORE_"
_PLAIN = (
    "node",
    "data",
    "api",
    "gossip",
    "gossip_advertise",
    "cluster_file",
    "region",
    "join",
    "identity_wait_ms",
    "insecure",
)
_Ms = Annotated[int, Meta(ge=1, le=3_600_000)]
_Bytes = Annotated[int, Meta(ge=1024, le=1 << 32)]


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The commit log."""

    segment_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 32)] = SEGMENT_BYTES
    """What one file of the log holds."""


class State(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state store; how often it is written, and how much of it is in memory, is set for the engine."""

    unsaved_bytes: Annotated[int, Meta(ge=1 << 10, le=1 << 40)] = UNSAVED_BYTES
    """While no checkpoint can be written, writes are taken until so much of the log is in none: all of that is in memory."""


class Links(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connections to other nodes."""

    heartbeat_ms: _Ms = 1_000
    """Every so often a ping measures round trip and clock offset."""
    silence_ms: _Ms = 5_000
    """A connection on which nothing was heard for so long is closed: a cut that keeps connections open must be noticed."""
    connect_timeout_ms: _Ms = 2_000
    """Connecting and the exchange of hellos take at most so long."""
    retry_least_ms: _Ms = 50
    """The first pause before a lost connection is tried again; it doubles, with jitter, up to ``retry_most_ms``."""
    retry_most_ms: _Ms = 1_000
    send_queue_bytes: _Bytes = 32 << 20
    """What waits to be sent to one peer; beyond it the connection is dropped, and progress starts again from the peer's row."""


class Http(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API listener."""

    body_bytes: _Bytes = 4 << 20
    """The largest request body."""
    connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Connections of clients; beyond it they are closed at once."""
    body_timeout_ms: _Ms = 30_000
    """A body that is announced arrives within so long."""
    keepalive_ms: _Ms = 75_000
    """An idle connection of a client is closed after so long."""
    shutdown_ms: _Ms = 5_000
    """How long requests in flight may take to end when the node stops."""


class NodeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator decides about one node."""

    node: str
    cluster_file: str
    data: str
    api: str
    gossip: str
    insecure: bool = False
    gossip_advertise: str = ""
    """Where others dial this node; empty: where it listens, or where the cluster file says."""
    region: str = ""
    """Where a node is that joins; founders have theirs in the cluster file."""
    join: Annotated[list[str], Meta(max_length=256)] | None = None
    """Whom a node asks to let it join under a new id; empty: the founders. None: it does not join."""
    identity_wait_ms: Annotated[int, Meta(ge=0, le=600_000)] = 5_000
    """So long a node that was restarted waits for a peer to contradict, when nothing proves that its data is its own; 0: no wait."""
    peers: dict[str, str] = {}
    """Where to dial these nodes instead of at the cluster file's addresses."""
    engine: Options = Options()
    log: Log = Log()
    state: State = State()
    links: Links = Links()
    http: Http = Http()

    @property
    def api_address(self) -> Address:
        return parse_address(self.api, "api")

    @property
    def gossip_address(self) -> Address:
        return parse_address(self.gossip, "gossip")

    @property
    def advertised(self) -> str:
        """Where others are told to dial this node, if no cluster file says it."""
        return self.gossip_advertise or self.gossip

    @property
    def joining(self) -> Joining | None:
        return None if self.join is None else Joining(self.region, self.advertised)

    @property
    def join_addresses(self) -> list[Address]:
        return [parse_address(text, "join") for text in self.join or ()]


_TABLES: dict[str, type[Struct]] = {"engine": Options, "log": Log, "state": State, "links": Links, "http": Http}


def load(path: Path, environ: Mapping[str, str]) -> NodeConfig:
    """The checked configuration.

    Raises:  UsageError naming file, field and what was expected; nothing changed.
    """
    document = _read_toml(path)
    for field in ("cluster_file", "data"):
        if isinstance(document.get(field), str):
            document[field] = str(path.absolute().parent / document[field])
    sources = _override(document, environ)
    try:
        config = convert(document, NodeConfig)
    except ValidationError as error:
        raise UsageError(f"{path}: {_where(error, sources)}. Nothing changed.") from None
    try:
        _check(config)
    except UsageError as error:
        raise UsageError(f"{path}: {error.detail}. Nothing changed.") from None
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a TOML file. Nothing changed.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}. Nothing changed.") from None


def _where(error: ValidationError, sources: Mapping[str, str]) -> str:
    """The sentence of msgspec with the field in our words, and the environment variable when it came from there."""
    sentence, _, at = str(error).partition(" - at ")
    field = at.strip("`").removeprefix("$.") or None
    if field is None:
        return sentence
    said = f" ({sources[field]})" if field in sources else ""
    return f"{field}{said}: {sentence[:1].lower()}{sentence[1:]}"


def _override(document: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Put what the environment says over the file; return which field came from which variable."""
    sources: dict[str, str] = {}
    for field in _PLAIN:
        name = _PREFIX + field.upper()
        if name in environ:
            document[field] = _PARSED.get(field, str)(environ[name])
            sources[field] = name
    for table, kind in _TABLES.items():
        start = f"{_PREFIX}{table.upper()}_"
        for name in sorted(name for name in environ if name.startswith(start)):
            field = name[len(start) :].lower()
            if field not in kind.__struct_fields__:
                known = ", ".join(kind.__struct_fields__)
                raise UsageError(f"{name}: there is no {table}.{field}; there are {known}. Nothing changed.")
            values = document.setdefault(table, {})
            if isinstance(values, dict):
                values[field] = _number(environ[name])
                sources[f"{table}.{field}"] = name
    return sources


def _truth(text: str) -> bool | str:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_PARSED: dict[str, Callable[[str], Any]] = {"insecure": _truth, "identity_wait_ms": _number, "join": _list}


def _check(config: NodeConfig) -> None:
    try:
        parse_replica_id(f"{config.node}.{'0' * 16}")
    except ValueError:
        raise UsageError(f"node: expected a name like us-1, got {config.node[:100]!r}") from None
    for field in ("api", "gossip"):
        address = parse_address(getattr(config, field), field)
        if not config.insecure and not _is_loopback(address.host):
            raise UsageError(
                f"{field}: {address} is not on loopback, and nothing there is encrypted; "
                "set insecure = true to listen there all the same"
            )
    for node, text in config.peers.items():
        parse_address(text, f"peers.{node}")
    if config.gossip_advertise:
        _check_dialable(config.gossip_advertise, "gossip_advertise")
    _check_join(config)


def _check_join(config: NodeConfig) -> None:
    if config.join is None:
        if config.region:
            raise UsageError(
                "region: only a node with join takes it from here; founders have theirs in the cluster file. Give both or none"
            )
        return
    if not NAME.fullmatch(config.region):
        raise UsageError(
            f"region: a node with join says here where it is: expected a name like us, got {config.region[:100]!r}"
        )
    for at, text in enumerate(config.join):
        _check_dialable(text, f"join[{at}]")
    if not config.gossip_advertise:
        try:
            _check_dialable(config.gossip, "gossip")
        except UsageError as error:
            raise UsageError(
                f"{error.detail}; a node with join tells others where it is: set gossip_advertise"
            ) from None


def _check_dialable(text: str, field: str) -> None:
    address = parse_address(text, field)
    try:
        is_place = not ipaddress.ip_address(address.host).is_unspecified
    except ValueError:
        is_place = True
    if not is_place or address.port == 0:
        raise UsageError(f"{field}: nobody can dial {address}; expected an address at which others reach a node")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str, field: str) -> Address:
    """``host:port``.

    Raises:  UsageError naming the field; nothing changed.
    """
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"{field}: expected host:port such as 127.0.0.1:7400, got {text[:100]!r}")
    return Address(host, int(port))


# --- the cluster file ---------------------------------------------------------------------------------------------------------------


class _Founder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node: str
    region: str
    replica: str
    gossip: str


class _ClusterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cluster: str
    nonce: str
    member: Annotated[list[_Founder], Meta(min_length=1, max_length=256)]


def load_cluster(path: Path) -> Cluster:
    """The founding members, from the file that all nodes share.

    Raises:  UsageError naming file, field and what was expected; nothing changed.
    """
    try:
        file = convert(_read_toml(path), _ClusterFile)
    except ValidationError as error:
        raise UsageError(f"{path}: {_where(error, {})}. Nothing changed.") from None
    try:
        return Cluster(file.cluster, _nonce(file.nonce), tuple(_member(founder) for founder in file.member))
    except UsageError as error:
        raise UsageError(f"{path}: {error.detail}. Nothing changed.") from None


def _nonce(text: str) -> bytes:
    if len(text) != 32 or any(char not in "0123456789abcdef" for char in text):
        raise UsageError(f"nonce: expected 32 hex digits in lower case, got {text[:100]!r}")
    return bytes.fromhex(text)


def _member(founder: _Founder) -> Member:
    try:
        parse_replica_id(founder.replica)
    except ValueError as error:
        raise UsageError(f"member {founder.node[:100]!r}: replica: {error}") from None
    if node_of(ReplicaId(founder.replica)) != founder.node:
        raise UsageError(f"member {founder.node[:100]!r}: replica: expected {founder.node[:100]}.<16 hex digits>")
    parse_address(founder.gossip, f"member {founder.node}: gossip")
    return Member(ReplicaId(founder.replica), founder.region, founder.gossip)
