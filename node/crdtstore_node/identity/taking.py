"""Taking an id: who may, and who keeps the one it has.

The question: when may a node take an id? An id stands for commits that others count, so an empty directory must never take one that may
have been used: it takes its founding id only when the operator says ``--bootstrap``. A new random id nobody can have used, so a node that
is told to join takes one by itself. A directory that has an id keeps it, or leaves it (``leaving``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from secrets import randbits
from typing import NamedTuple

from crdtstore.causal import ReplicaId, make_replica_id, node_of
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import PUT_BACK, StorageError, UsageError
from crdtstore.storage.segment import make_directory, naming
from crdtstore_node.identity.document import (
    FILE_NAME,
    LOG_NAME,
    Identity,
    new_identity,
    read_identity,
    replace_identity,
)
from crdtstore_node.identity.leaving import finish_leaving
from crdtstore_node.identity.seal import renew_seal

__all__ = ["Joining", "check_identity", "take_identity"]


class Joining(NamedTuple):
    """What a node says of itself that no cluster file names, or that may not take its founding id."""

    region: str
    gossip: str
    """Where others reach it, host:port."""


def take_identity(
    data: Path,
    cluster: Cluster,
    node: str,
    *,
    is_bootstrap: bool,
    joining: Joining | None = None,
    places: Sequence[Path] = (),
) -> tuple[Member, bool]:
    """The member that this directory is, and whether it became so just now. The caller holds the directory's lock.
    What an earlier start began to leave is left first; ``places`` are those of anchors.

    Raises:  UsageError or StorageError as ``check_identity``; StorageError when it cannot be written, and it is taken again then.
    """
    finish_leaving(data, places)
    found = check_identity(data, cluster, node, is_bootstrap=is_bootstrap, joining=joining)
    if found is not None:
        return found, False
    founder = _founder(cluster, node)
    if is_bootstrap:
        assert founder is not None, "checked"
        taken = founder
    else:
        assert joining is not None, "checked"
        taken = Member(make_replica_id(node, randbits(64)), joining.region, joining.gossip)
    with naming(data):
        make_directory(data / LOG_NAME)
    renew_seal(data, taken.replica)  # first: a directory with an id and without a seal is one that lost it
    replace_identity(data, new_identity(cluster, taken.replica, is_joining=not is_bootstrap))
    return taken, True


def check_identity(
    data: Path, cluster: Cluster, node: str, *, is_bootstrap: bool, joining: Joining | None = None
) -> Member | None:
    """The member that this directory is; None when it is empty and may take an id. Nothing is changed, no lock is needed.

    Raises:  UsageError when the directory belongs to another cluster or node, or is empty and was not told what to be; StorageError
             when it cannot be read. Nothing changed.
    """
    founder = _founder(cluster, node)
    if founder is None and joining is None:
        nodes = ", ".join(member.node for member in cluster.members)
        raise UsageError(
            f"node: {node} is not in the cluster file; there are {nodes}. A node that is added to the cluster says in its "
            "configuration where it is and whom it asks: region and join. Nothing changed."
        )
    if founder is not None and joining is not None and joining.region != founder.region:
        raise UsageError(
            f"region: {joining.region}, but the cluster file says that {node} is in {founder.region}. Nothing changed."
        )
    identity = read_identity(data)
    if identity is not None:
        _check_same(data, identity, cluster, node, founder)
        place = founder or joining
        assert place is not None, "checked"
        return Member(ReplicaId(identity.replica), place.region, place.gossip)
    if _has_segments(data / LOG_NAME):
        raise StorageError(f"{data}: there is a log but no {FILE_NAME}. {PUT_BACK}. Nothing changed.")
    if is_bootstrap and founder is None:
        raise UsageError(
            f"--bootstrap: {node} is not in the cluster file, and only its founders have an id to take. Start without it: "
            "the node takes a new one and joins. Nothing changed."
        )
    if not is_bootstrap and joining is None:
        raise UsageError(
            f"{data} is empty. A node takes its founding id only once: start with --bootstrap if this node never ran "
            "before. If it did, its data is not here: put the directory back from a copy or snapshot, if there is one, or let "
            "the node join anew under another id (join in its configuration); for what else there is, see 'A node that does "
            "not start' in docs/backup.md. Nothing changed."
        )
    return None


def _founder(cluster: Cluster, node: str) -> Member | None:
    return next((member for member in cluster.members if member.node == node), None)


def _check_same(data: Path, identity: Identity, cluster: Cluster, node: str, founder: Member | None) -> None:
    if identity.nonce != cluster.nonce.hex():
        if (other := cluster.what_else(_bytes(identity.nonce))) != "another cluster":
            raise UsageError(f"{data} belongs to {other}. Nothing changed.")
        raise UsageError(
            f"{data} belongs to the cluster {identity.cluster} (nonce {identity.nonce[:4]}…), "
            f"not to {cluster.name} (nonce {cluster.nonce.hex()[:4]}…) of the cluster file. Nothing changed."
        )
    is_own = node_of(ReplicaId(identity.replica)) == node
    if is_own and (founder is None or identity.restored_from or identity.state or identity.left):
        return  # an id of its own, which no cluster file names
    if founder is None:
        raise UsageError(f"{data} belongs to {identity.replica}, not to the node {node}. Nothing changed.")
    if identity.replica != founder.replica:
        raise UsageError(
            f"{data} belongs to {identity.replica}, but the cluster file gives {node} the id {founder.replica}. "
            "Nothing changed."
        )


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _has_segments(directory: Path) -> bool:
    return directory.is_dir() and any(path.is_file() and path.name != "lock" for path in directory.iterdir())
