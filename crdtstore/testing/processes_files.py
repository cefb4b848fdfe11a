"""What a local cluster keeps on disk: who its members are, and the files their nodes read.

The question: which file is the truth? ``local.json`` is: identities (drawn once), ports (may move) and which nodes were
founded. ``cluster.toml`` and the node files are written from it at every start. A node is started with ``--bootstrap``
only until it has been ready once, so that a data directory that was lost later is not taken for a new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

from crdtstore.causal import MAX_WORKERS, NAME, make_replica_id, worker_node
from crdtstore.errors import StorageError, UsageError

__all__ = ["DirectoryLock", "LocalFiles", "LocalNode", "write_atomically"]

REGION = re.compile(r"[a-z][a-z0-9_-]{0,30}")
MAX_REGIONS = 16
NOTE = "# Written by crdtstore's local cluster at every start; changes here are lost.\n"


@dataclass(slots=True)
class LocalNode:
    """One node as it is remembered."""

    region: str
    replica: str
    api_port: int = 0
    gossip_port: int = 0
    is_founded: bool = False
    joins: bool = False
    """Whether it was added while others ran: the cluster file does not name it, and it draws its id itself."""
    name: str = ""
    """Its name where it is not that of the first node of its region."""
    worker: int | None = None
    """Which worker of its node this process is; None: its node is one process."""

    @property
    def machine(self) -> str:
        """The node that it is, or is a worker of."""
        return self.name or f"{self.region}-1"

    @property
    def node(self) -> str:
        return self.machine if self.worker is None else worker_node(self.machine, self.worker)

    @property
    def key(self) -> str:
        """What it is known by here: its region, or its name where that is not that of the first node of a region."""
        return self.region if self.node == f"{self.region}-1" else self.node


@dataclass(slots=True)
class LocalFiles:
    """The files of one cluster below ``directory``."""

    directory: Path
    cluster: str
    nonce: str
    nodes: dict[str, LocalNode] = field(default_factory=dict)  # by key, in the order given
    workers: int = 1
    """Of how many processes each node consists."""

    @classmethod
    def open(
        cls, directory: Path, regions: Sequence[str] | None, default: Sequence[str], workers: int | None = None
    ) -> Self:
        """What is there, or a new cluster of ``regions``; UsageError (nothing written) when both exist and differ."""
        path = directory / "local.json"
        if path.exists():
            files = cls._load(directory, path)
            there = list(dict.fromkeys(node.region for node in files.nodes.values()))
            founding = sorted(node.region for node in files.founders)
            if regions is not None and sorted(regions) not in (founding, sorted(there)):
                raise UsageError(
                    f"{directory} holds a cluster of the regions {', '.join(there)}, not {', '.join(regions)}; "
                    "choose another directory. Nothing changed."
                )
            if workers not in (None, files.workers):
                raise UsageError(
                    f"{directory} holds a cluster with {files.workers} workers per node, not {workers}: the number never changes. "
                    "Choose another directory. Nothing changed."
                )
            return files
        names = list(default if regions is None else regions)
        for name in names:
            if not REGION.fullmatch(name):
                raise UsageError(f"a region is named like us or eu-west, got {name!r}. Nothing changed.")
        if not 1 <= len(names) <= MAX_REGIONS or len(set(names)) != len(names):
            raise UsageError(
                f"1 to {MAX_REGIONS} different regions are possible, got {', '.join(names)}. Nothing changed."
            )
        count = workers or 1
        if not 1 <= count <= MAX_WORKERS:
            raise UsageError(f"a node has 1 to {MAX_WORKERS} workers, got {workers}. Nothing changed.")
        nodes = [
            LocalNode(name, make_replica_id(f"{name}-1", bits), worker=worker)
            for name in names
            for bits in [secrets.randbits(64)]
            for worker in _indexes(count)
        ]
        return cls(directory, "local", secrets.token_hex(16), {node.key: node for node in nodes}, count)

    @classmethod
    def _load(cls, directory: Path, path: Path) -> Self:
        try:
            document = json.loads(path.read_text())
            known = [LocalNode(**each) for each in document["nodes"]]
            nodes = {node.key: node for node in known}
            return cls(directory, document["cluster"], document["nonce"], nodes, document.get("workers", 1))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is not what was written there: {error!r}. Nothing changed.") from error

    @property
    def founders(self) -> list[LocalNode]:
        return [node for node in self.nodes.values() if not node.joins]

    def add(self, region: str, name: str = "") -> list[LocalNode]:
        """Remember a node that is to join, each of its workers; without a name the next one of its region.

        Raises:  UsageError when that cannot be; nothing changed.
        """
        if not REGION.fullmatch(region):
            raise UsageError(f"a region is named like us or eu-west, got {region!r}. Nothing changed.")
        taken = {word for node in self.nodes.values() for word in (node.machine, node.region)}
        if not name:
            name = next(free for n in count(1) if (free := f"{region}-{n}") not in taken)
        if not NAME.fullmatch(name) or name == region or name in taken:
            raise UsageError(
                f"a node has a name of its own like sa-2, got {name!r}; there are: "
                f"{', '.join(dict.fromkeys(node.machine for node in self.nodes.values()))}. Nothing changed."
            )
        if region in {node.machine for node in self.nodes.values()}:
            raise UsageError(f"a node is named {region}, choose another name for the region. Nothing changed.")
        if len(self.nodes) >= MAX_REGIONS * self.workers:
            raise UsageError(f"there are {MAX_REGIONS} nodes, and no more are possible. Nothing changed.")
        name = "" if name == f"{region}-1" else name
        added = [LocalNode(region, "", joins=True, name=name, worker=worker) for worker in _indexes(self.workers)]
        self.nodes |= {node.key: node for node in added}
        return added

    def crew(self, region: str) -> list[LocalNode]:
        """All workers of the node that a process belongs to."""
        machine = self.nodes[region].machine
        return [node for node in self.nodes.values() if node.machine == machine]

    def config_path(self, region: str) -> Path:
        return self.directory / f"{self.nodes[region].node}.toml"

    def data_path(self, region: str) -> Path:
        node = self.nodes[region]
        return self.directory / node.machine / ("" if node.worker is None else f"worker-{node.worker}")

    def log_path(self, region: str) -> Path:
        return self.directory / f"{self.nodes[region].node}.log"

    def save(self) -> None:
        """Write ``local.json`` and ``cluster.toml``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {
            "cluster": self.cluster,
            "nonce": self.nonce,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "workers": self.workers,
        }
        write_atomically(self.directory / "local.json", json.dumps(document, indent=1) + "\n")
        lines = [NOTE, f"cluster = {_toml(self.cluster)}", f"nonce = {_toml(self.nonce)}"]
        if self.workers > 1:
            lines.append(f"workers = {self.workers}")
        for node in self.founders:
            if node.worker:
                continue
            lines += [
                "",
                "[[member]]",
                f"node = {_toml(node.machine)}",
                f"region = {_toml(node.region)}",
                f"replica = {_toml(node.replica)}",
                f"gossip = {self._listeners(node, 'gossip_port')}",
            ]
        write_atomically(self.directory / "cluster.toml", "\n".join(lines) + "\n")

    def _listeners(self, node: LocalNode, what: str) -> str:
        """Where a node listens, or each of its workers."""
        found = [_toml(f"127.0.0.1:{getattr(each, what)}") for each in self.crew(node.key)]
        return found[0] if node.worker is None else f"[{', '.join(found)}]"

    def save_node(
        self,
        region: str,
        peers: Mapping[str, str],
        tables: Mapping[str, Mapping[str, Any]],
        advertise: Sequence[str] = (),
    ) -> None:
        """Write the configuration of one node, as this worker of it is to have it; ``peers`` by name, ``tables`` such as engine and log.

        ``advertise``: where a node that joins tells others to dial it, each of its workers.
        """
        node = self.nodes[region]
        lines = [
            NOTE,
            f"node = {_toml(node.machine)}",
            f"cluster_file = {_toml(str(self.directory / 'cluster.toml'))}",
            f"data = {_toml(str(self.directory / node.machine))}",
            f"api = {self._listeners(node, 'api_port')}",
            f"gossip = {self._listeners(node, 'gossip_port')}",
        ]
        if node.worker is not None:
            lines.append(f"workers = {self.workers}")
        if node.joins:
            lines += [
                f"region = {_toml(node.region)}",
                f"join = {json.dumps(list(peers.values()))}",
                f"gossip_advertise = {json.dumps(list(advertise)) if node.worker is not None else _toml(advertise[0])}",
            ]
        for name, table in {"peers": peers, **tables}.items():
            lines += ["", f"[{name}]", *(f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items())]
        write_atomically(self.config_path(region), "\n".join(lines) + "\n")


class DirectoryLock:
    """Who uses a directory; the kernel frees it when its holder dies, however it dies."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises:  UsageError when another process holds it; nothing changed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise UsageError(f"{self._directory} is in use by process {pid}. Nothing changed.") from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def holder(directory: Path) -> int | None:
        """The process that holds the lock of ``directory``, if one does."""
        try:
            descriptor = os.open(directory / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            # A shared lock, so that two who ask do not meet.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 20).strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(descriptor)
        return None


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: a reader sees the old text or the new."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def _indexes(workers: int) -> list[int | None]:
    """The workers of a node by index; one that is one process has none."""
    return [None] if workers == 1 else list(range(workers))


def _toml(value: Any) -> str:
    """A TOML value; JSON's strings are TOML's but for DEL."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise UsageError(f"a setting is text, a number or true/false, got {value!r}. Nothing changed.")
