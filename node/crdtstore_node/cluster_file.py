"""The cluster file: the founding members, and of how many workers each node consists. The same file at all nodes.

The question: what must all nodes agree on before they first meet? Each names the founders with their full ids, so that nobody has to ask
anybody. A node of several workers stands there once: its workers have its random bits, each under its own name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, ValidationError, convert

from crdtstore.causal import MAX_WORKERS, NAME, ReplicaId, node_of, parse_replica_id, worker_node
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import UsageError
from crdtstore_node.fields import parse_address, read_toml, where
from crdtstore_node.worker_config import each_of

__all__ = ["load_cluster"]


class _Founder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node: str
    region: str
    replica: str
    gossip: str | list[str]


class _ClusterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cluster: str
    nonce: str
    workers: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 1
    member: Annotated[list[_Founder], Meta(min_length=1, max_length=256)]


def load_cluster(path: Path) -> Cluster:
    """The founding members, from the file that all nodes share.

    Raises:  UsageError naming file, field and what was expected; nothing changed.
    """
    try:
        file = convert(read_toml(path), _ClusterFile)
    except ValidationError as error:
        raise UsageError(f"{path}: {where(error, {})}. Nothing changed.") from None
    try:
        nonce = _nonce(file.nonce)
        members = tuple(member for founder in file.member for member in _members(founder, file.workers))
        return Cluster.with_workers(file.cluster, nonce, members, file.workers)
    except UsageError as error:
        raise UsageError(f"{path}: {error.detail}. Nothing changed.") from None


def _nonce(text: str) -> bytes:
    if len(text) != 32 or any(char not in "0123456789abcdef" for char in text):
        raise UsageError(f"nonce: expected 32 hex digits in lower case, got {text[:100]!r}")
    return bytes.fromhex(text)


def _members(founder: _Founder, workers: int) -> list[Member]:
    """What a founder stands for: itself, or each of its workers."""
    if not NAME.fullmatch(founder.node):
        raise UsageError(f"member {founder.node[:100]!r}: node: expected a name like us-1")
    gossips = each_of(founder.gossip, workers, f"member {founder.node}: gossip")
    if workers == 1:
        return [_member(founder, gossips[0])]
    own = _member(founder, gossips[0])
    bits = own.replica.rpartition(".")[2]
    names = [worker_node(founder.node, worker) for worker in range(workers)]
    return [
        _member(_Founder(node=name, region=own.region, replica=f"{name}.{bits}", gossip=gossip), gossip)
        for name, gossip in zip(names, gossips, strict=True)
    ]


def _member(founder: _Founder, gossip: str) -> Member:
    try:
        parse_replica_id(founder.replica)
    except ValueError as error:
        raise UsageError(f"member {founder.node[:100]!r}: replica: {error}") from None
    if node_of(ReplicaId(founder.replica)) != founder.node:
        raise UsageError(f"member {founder.node[:100]!r}: replica: expected {founder.node[:100]}.<16 hex digits>")
    parse_address(gossip, f"member {founder.node}: gossip")
    return Member(ReplicaId(founder.replica), founder.region, gossip)
