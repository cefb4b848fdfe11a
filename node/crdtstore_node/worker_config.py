"""One configuration, several workers: what each of them is called, where it keeps its data and where it listens.

The question: what has an operator to write down for a node of four processes? One number. A worker is called like its node with its index,
``us-1+2``; its data is in ``worker-2`` of the node's directory; where one address is given for the node, worker k has the port plus k;
where that does not fit, a list names one for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crdtstore.causal import MAX_WORKERS, NAME, worker_node
from crdtstore.errors import UsageError

__all__ = ["each_of", "kept_by", "of_worker", "workers_in"]

_FOLDER = "worker-{}"


def of_worker(document: Mapping[str, Any], worker: int, count: int) -> dict[str, Any]:
    """The document of one worker; every field is still to be checked.

    Raises:  UsageError naming the field; nothing changed.
    """
    mine = dict(document)
    node, data = mine.get("node"), mine.get("data")
    if isinstance(node, str):
        if not NAME.fullmatch(node):
            raise UsageError(f"node: expected a name like us-1, got {node[:100]!r}")
        mine["node"] = worker_node(node, worker)
    if isinstance(data, str):
        mine["data"] = str(Path(data) / _FOLDER.format(worker))
    for field in ("api", "gossip", "gossip_advertise"):
        if field in mine:
            mine[field] = each_of(mine[field], count, field)[worker]
    if "api_advertise" not in mine:
        mine["api_advertise"] = [f"http://{api}" for api in each_of(document.get("api", ""), count, "api")]
    if isinstance(peers := mine.get("peers"), dict):
        mine["peers"] = _peers(peers, count)
    return mine


def each_of(value: Any, count: int, field: str) -> list[Any]:
    """One address for each worker: those of a list, or the ports that follow the one that is given.

    Raises:  UsageError naming the field; nothing changed.
    """
    if isinstance(value, list):
        if len(value) != count:
            raise UsageError(f"{field}: expected one address or {count} of them, one for each worker, got {len(value)}")
        return value
    if count == 1 or not isinstance(value, str) or not value:
        return [value] * count
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        return [value] * count  # refused by whoever checks it
    if int(port) == 0:
        raise UsageError(f"{field}: a node with workers needs ports that others can be told, got {value}")
    if int(port) + count - 1 > 65535:
        raise UsageError(f"{field}: {count} workers need the ports from {port}, and there are none beyond 65535")
    return [f"{host}:{int(port) + worker}" for worker in range(count)]


def _peers(peers: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Where to dial other nodes, by worker; a worker that is named itself stays."""
    found = dict[str, Any]()
    for node, value in peers.items():
        if "+" in node:
            found[node] = value
        else:
            found |= {
                worker_node(node, worker): address
                for worker, address in enumerate(each_of(value, count, f"peers.{node}"))
            }
    return found


def workers_in(data: Path) -> str:
    """What to say where a directory is taken for that of one process: that it is the one of several, if so."""
    count = kept_by(data)
    if not count:
        return ""
    last = f" to {_FOLDER.format(count - 1)}" if count > 1 else ""
    return f", but those of the workers of one, {_FOLDER.format(0)}{last}: each is taken by itself"


def kept_by(data: Path) -> int:
    """Of how many workers a directory holds data, at least; 0: of none."""
    there = (
        [worker for worker in range(MAX_WORKERS) if (data / _FOLDER.format(worker)).is_dir()] if data.is_dir() else []
    )
    return there[-1] + 1 if there else 0
