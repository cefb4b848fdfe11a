"""The configuration of a node: one TOML file, overridden by the environment, validated once.

The question: what may an operator get wrong without noticing? A misspelt field, a limit in the wrong unit, a listener open to the world.
Hence unknown fields are refused, every limit carries its unit and bounds, and a listener elsewhere than on loopback needs
``insecure = true`` beside it, because nothing here is encrypted yet. Each error names the file, the field and what was expected.

Environment: CRDTSTORE_NODE, CRDTSTORE_DATA, CRDTSTORE_API, CRDTSTORE_GOSSIP, CRDTSTORE_GOSSIP_ADVERTISE, CRDTSTORE_CLUSTER_FILE,
CRDTSTORE_REGION, CRDTSTORE_JOIN (with commas between), CRDTSTORE_WORKERS, CRDTSTORE_IDENTITY_WAIT_MS, CRDTSTORE_INSECURE, and for the
tables CRDTSTORE_ENGINE_…, CRDTSTORE_LOG_…, CRDTSTORE_STATE_…, CRDTSTORE_LINKS_…, CRDTSTORE_HTTP_… . Relative paths in the file are relative
to the file, those in the environment to the working directory.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert

from crdtstore.causal import MAX_WORKERS, NAME, machine_of
from crdtstore.engine.options import Options
from crdtstore.errors import UsageError
from crdtstore.storage.log import SEGMENT_BYTES
from crdtstore_node.cluster_file import load_cluster
from crdtstore_node.fields import Address, parse_address, read_toml, where
from crdtstore_node.identity import Joining
from crdtstore_node.worker_config import kept_by, of_worker

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
    "load_workers",
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
    "workers",
    "identity_wait_ms",
    "insecure",
)
_Ms = Annotated[int, Meta(ge=1, le=3_600_000)]
_Bytes = Annotated[int, Meta(ge=1024, le=1 << 32)]


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
    sessions: Annotated[int, Meta(ge=0, le=1_000_000)] = 5_000
    """Sessions (``GET /v1/session``) at a time; beyond it they are refused as overloaded."""
    session_credits: Annotated[int, Meta(ge=1, le=100_000)] = 1_024
    """Requests that may be unanswered on one session."""
    session_silence_ms: _Ms = 20_000
    """A session on which nothing was heard for so long is asked for a sign of life, and closed after as long again."""
    session_buffer_bytes: _Bytes = 64 << 20
    """Replies that a client does not read; beyond it its session is dropped."""


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
    workers: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 1
    """Of how many processes the node consists; the same at all nodes of the cluster, and as its file says. This is the configuration of
    one of them (``load_workers``)."""
    api_advertise: list[str] = []
    """Where users reach each worker of this node, as urls, by index; empty: not told."""
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
    """The checked configuration of a node that is one process.

    Raises:  UsageError naming file, field and what was expected, or when the node consists of several workers; nothing changed.
    """
    configs = load_workers(path, environ)
    if len(configs) > 1:
        raise UsageError(
            f"{path}: the node consists of {len(configs)} workers, and this takes one at a time: name the directory of one of them, "
            f"such as {configs[0].data}. Nothing changed."
        )
    return configs[0]


def load_workers(path: Path, environ: Mapping[str, str]) -> list[NodeConfig]:
    """The checked configurations of all workers of a node, by index; of a node that is one process its own.

    Raises:  UsageError naming file, field and what was expected; nothing changed.
    """
    document = read_toml(path)
    for field in ("cluster_file", "data"):
        if isinstance(document.get(field), str):
            document[field] = str(path.absolute().parent / document[field])
    sources = _override(document, environ)
    count = document.get("workers", 1)
    count = count if isinstance(count, int) and 1 <= count <= MAX_WORKERS else 1  # else it is refused below
    try:
        documents = [document] if count == 1 else [of_worker(document, worker, count) for worker in range(count)]
        configs = [convert(each, NodeConfig) for each in documents]
        for config in configs:
            _check(config)
        _check_together(configs, document)
    except ValidationError as error:
        raise UsageError(f"{path}: {where(error, sources)}. Nothing changed.") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error.detail}. Nothing changed.") from None
    return configs


def _check_together(configs: list[NodeConfig], document: Mapping[str, Any]) -> None:
    """What no worker can say by itself."""
    data, kept = Path(document["data"]), kept_by(Path(document["data"]))
    count = "one process" if len(configs) == 1 else f"{len(configs)} workers"
    if kept > len(configs) or (kept and len(configs) == 1):
        raise UsageError(f"data: {data} is that of a node of several workers, not of {count}: the number never changes")
    if len(configs) == 1:
        return
    if (data / "identity.json").exists():
        raise UsageError(f"data: {data} is that of a node of one process, not of {count}: the number never changes")
    listens = [getattr(config, field) for field in ("api", "gossip") for config in configs]
    if twice := sorted({each for each in listens if listens.count(each) > 1}):
        raise UsageError(
            f"api, gossip: two workers would listen at {twice[0]}; give a list with one address for each worker"
        )


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


def _addresses(text: str) -> str | list[str]:
    """One address, or one for each worker."""
    return _list(text) if "," in text else text


_PARSED: dict[str, Callable[[str], Any]] = {
    "insecure": _truth,
    "identity_wait_ms": _number,
    "join": _list,
    "workers": _number,
    "api": _addresses,
    "gossip": _addresses,
    "gossip_advertise": _addresses,
}


def _check(config: NodeConfig) -> None:
    if not NAME.fullmatch(config.node if config.workers == 1 else machine_of(config.node)):
        raise UsageError(f"node: expected a name like us-1, got {config.node[:100]!r}")
    if config.api_advertise and len(config.api_advertise) != config.workers:
        raise UsageError(f"api_advertise: expected a url for each worker, got {len(config.api_advertise)}")
    for url in config.api_advertise:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"api_advertise: expected urls such as http://us.example:7401, got {url[:100]!r}")
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
