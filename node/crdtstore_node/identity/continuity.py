"""Continuity: whether a directory that is found at a start is where its id went on to, or a copy, or an older state of it.

The question: what may be concluded from files? That nothing was lost or copied only from what no copy contains, the anchor. A seal that
matches is a good sign and no proof, so peers are asked. Anything else ends the id: a new one costs a join, an id that lives twice
costs data. The result is a pure function of the files and of what can be seen of the directory now.

    fresh       the id was taken just now: nothing was ever written under it
    proven      the anchor of this boot is of this directory, and the log reaches as far: go on at once
    sealed      no anchor, the seal matches: go on unless a peer contradicts within ``identity_wait_ms``; write nothing before
    unproven    the seal does not match, or there is none: another id
    forgotten   the anchor knows of more than the directory: it was put back from an older copy; another id

While a node waits (sealed) it must not call ``continue_identity``: that would be taken for a proof by the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore_node.identity.anchor import Anchor, Anchored, find_anchors, make_anchor, open_anchor
from crdtstore_node.identity.document import LOG_NAME, Identity, read_identity
from crdtstore_node.identity.seal import Facts, Seal, difference, gather_facts, read_seal, renew_seal

__all__ = ["Continuity", "Verdict", "check_continuity", "continue_identity", "judge"]


class Verdict(StrEnum):
    FRESH = "fresh"
    PROVEN = "proven"
    SEALED = "sealed"
    UNPROVEN = "unproven"
    FORGOTTEN = "forgotten"


class Continuity(NamedTuple):
    """What was found at a start."""

    verdict: Verdict
    reason: str
    """A sentence without a full stop: what says so."""

    @property
    def must_leave(self) -> bool:
        """Whether the id must not be used any more."""
        return self.verdict in (Verdict.UNPROVEN, Verdict.FORGOTTEN)

    @property
    def must_ask(self) -> bool:
        """Whether peers are to be waited for before anything is written."""
        return self.verdict is Verdict.SEALED


def judge(
    identity: Identity,
    seal: Seal | None,
    why_no_seal: str,
    anchors: Sequence[Anchored],
    facts: Facts,
    log_end: int,
) -> Continuity:
    """The verdict on a directory that had its id before this start; ``log_end`` is the position at which its recovered log ends."""
    if identity.restored_from is not None:
        source = identity.restored_from.replica
        return Continuity(Verdict.UNPROVEN, f"restored from a backup of {source}, and never joined")
    forgotten = _forgotten(identity, seal, anchors, log_end)
    if forgotten is not None:
        return Continuity(Verdict.FORGOTTEN, forgotten)
    if seal is None:
        return Continuity(Verdict.UNPROVEN, f"{why_no_seal}, so nothing says that this is no copy")
    if seal.replica != identity.replica:
        return Continuity(Verdict.UNPROVEN, f"the seal is of {seal.replica}")
    if any(each.number == seal.anchor and each.replica == identity.replica for each in anchors):
        return Continuity(Verdict.PROVEN, "the log reaches as far as in this boot before")
    differs = difference(seal.facts, facts)
    if differs is not None:
        return Continuity(Verdict.UNPROVEN, f"copied or moved: {differs}")
    return Continuity(Verdict.SEALED, "the seal matches; nothing in memory shows how far the log reached")


def _forgotten(identity: Identity, seal: Seal | None, anchors: Sequence[Anchored], log_end: int) -> str | None:
    for each in anchors:
        if each.replica == identity.replica and each.position > log_end:
            lost = each.position - log_end
            return f"put back from an older copy: the log ends at {log_end}, {lost} bytes before where it was durable"
        if seal is not None and each.number > seal.anchor:
            return f"put back from an older copy: since then {each.replica} ran here"
    return None


def check_continuity(
    data: Path, log_end: int, places: Sequence[Path], *, is_new: bool, is_vouched: bool = False
) -> Continuity:
    """The verdict on this directory. The caller holds its lock and has replayed its log; nothing is changed.

    ``is_vouched``: the operator says that no other directory goes on under this id. When all machines of a cluster were moved, all their
    directories are unproven, and there would be nobody left to let them join. Peers are asked all the same.

    Raises:  StorageError when the files cannot be read.
    """
    if is_new:
        return Continuity(Verdict.FRESH, "the id was taken just now")
    identity = read_identity(data)
    assert identity is not None, f"{data} has no id to continue"
    assert identity.leaving is None, f"{data} still holds what belongs to {identity.leaving}"
    seal, why = read_seal(data)
    facts = gather_facts(data / LOG_NAME)
    found = judge(identity, seal, why, find_anchors(places, facts), facts, log_end)
    if is_vouched and found.verdict is Verdict.UNPROVEN and identity.restored_from is None:
        return Continuity(Verdict.SEALED, f"the operator says that this is the only copy; {found.reason}")
    return found


def continue_identity(data: Path, replica: ReplicaId, log_end: int, places: Sequence[Path]) -> Anchor | None:
    """Let this id go on here from now: the seal is of this directory as it is, and there is an anchor if there can be one.

    To be called before the first commit, once the verdict is fresh or proven, or sealed and no peer contradicted. When the disk is full
    the seal stays as it is and there is no anchor: the next start asks its peers.

    Raises:  StorageError when the disk failed.
    """
    facts = gather_facts(data / LOG_NAME)
    found = find_anchors(places, facts)
    seal, _ = read_seal(data)
    if seal is not None and seal.replica == replica and difference(seal.facts, facts) is None:
        own = next((each for each in found if (each.number, each.replica) == (seal.anchor, replica)), None)
        anchor = None if own is None else open_anchor(own)
        if anchor is not None:
            anchor.hold(log_end)
            return anchor
    try:
        number = renew_seal(data, replica, (each.number for each in found))
    except StorageError as error:
        if error.code != "storage-full":
            raise
        return None
    return make_anchor(places, facts, data / LOG_NAME, replica, number, log_end)
