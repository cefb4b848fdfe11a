"""Operation ids: the same request, retried in any region, counts once.

The question: two replicas that did not hear each other both accepted the request; which of the two commits counts? In each leaf that
both touch the least in (hlc, replica, seq), and neither once a drop has removed one of them there. Whether one was removed needs no
record: what is applied and no longer in the leaf has been removed, because delivery is causal (kernel, ``_admit``).

An id is forgotten when no commit to come can carry it: all its commits are stable, so everybody knows it, and every member's stamps have
passed its expiry, so nobody takes it any more. By age alone it would count twice wherever a commit was late.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct

from crdtstore.commit import Commit
from crdtstore.effects import Effects, Sibling, Siblings, leaf_name
from crdtstore.errors import Unavailable, UsageError
from crdtstore.leaves import DROP, covers
from crdtstore.ledger import Ledger
from crdtstore.storage.rows import OPERATIONS

__all__ = ["Attempt", "Operations"]


_LEAF_BYTES = 16
_HEAD = struct.Struct("<QQQQ")


class Attempt(Struct, frozen=True, gc=False):
    """One commit of an operation: its dot (index form), its stamp, what was asked, when its id expires, the leaves it put something at."""

    dot: int
    hlc: int
    request: int
    expiry_hlc: int
    leaves: tuple[bytes, ...]


def _packed(dot: int, hlc: int, request: int, expiry_hlc: int, leaves: tuple[bytes, ...]) -> bytes | list[Attempt]:
    """The only attempt of an operation as it is kept: mostly in a third of the memory. What a peer wrote may not fit."""
    try:
        return _HEAD.pack(dot, hlc, request, expiry_hlc) + b"".join(leaves)
    except struct.error:
        return [Attempt(dot, hlc, request, expiry_hlc, leaves)]


def _unpacked(data: bytes) -> Attempt:
    dot, hlc, request, expiry_hlc = _HEAD.unpack_from(data)
    leaves = [data[at : at + _LEAF_BYTES] for at in range(_HEAD.size, len(data), _LEAF_BYTES)]
    return Attempt(dot, hlc, request, expiry_hlc, tuple(leaves))


class Operations:
    """All operations this replica has applied commits of. Mutable."""

    __slots__ = ("_attempts", "_expiries", "_expiring", "ledger")

    def __init__(self) -> None:
        self._attempts: dict[bytes, bytes | list[Attempt]] = {}
        """Of most ids there is one attempt: packed."""
        self._expiring: dict[int, list[bytes]] = {}
        """The ids by the stamp at which they expire, one entry per commit: those that clients make in one millisecond share one."""
        self._expiries: list[int] = []
        """These stamps, a heap."""
        self.ledger = Ledger(OPERATIONS, lambda name: [_fields(attempt) for attempt in self.attempts(*name)] or None)

    def __len__(self) -> int:
        return len(self._attempts)

    def attempts(self, operation: bytes) -> list[Attempt]:
        """The commits of an operation that are applied here, oldest first."""
        known = self._attempts.get(operation)
        if known is None:
            return []
        return known if isinstance(known, list) else [_unpacked(known)]

    def heard(self, operation: tuple[bytes, int], expires_ms: int, now_ms: int, clock_ms: int) -> Attempt | None:
        """The commit that answers a request, None when it is new; ``clock_ms``: the newest stamp of this replica.

        Raises:  UsageError ``key-reused`` or ``key-expired``; Unavailable ``not-ready`` where only our own stamps have passed the
                 expiry: a region whose clock did not run ahead can take it. Nothing changed.
        """
        name, request = operation
        if name in self._attempts:
            for attempt in self.attempts(name):
                if attempt.request == request:
                    return attempt
            raise UsageError("this idempotency key was used for another request. Nothing changed.", code="key-reused")
        if expires_ms <= now_ms:
            raise UsageError(
                "this idempotency key has expired: whether it was used is not known any more. Nothing changed.",
                code="key-expired",
            )
        if expires_ms <= clock_ms:
            raise Unavailable(
                f"the clock of this node ran ahead, its stamps have passed the expiry of this idempotency key by "
                f"{clock_ms - expires_ms} ms. Nothing changed."
            )
        return None

    def record(
        self, operation: tuple[bytes, int, int], dot: int, commit: Commit, cut: Sequence[int]
    ) -> Siblings | None:
        """Take note of a commit about to be applied; return the commits of the same operation, by leaf (None: there are none).

        Attempts of one operation are concurrent: who knew of one has answered with it. A commit that has seen an earlier one uses the id
        anew, after it was forgotten; that replicas forget at different times must not show. Nor is it an attempt when it asked for
        something else, in a region that had not heard of the first: then both were acknowledged, and both count.
        """
        name, request, expiry_hlc = operation
        self.ledger.note((name,))
        self._expire(name, expiry_hlc)
        leaves = _leaves_of(commit.effects)
        known = [other for other in self.attempts(name) if not covers(cut, other.dot)] if name in self._attempts else []
        if not known:
            self._attempts[name] = _packed(dot, commit.hlc, request, expiry_hlc, leaves)
            return None
        self._attempts[name] = [*known, Attempt(dot, commit.hlc, request, expiry_hlc, leaves)]
        siblings: dict[bytes, list[Sibling]] = {}
        for other in known:
            for leaf in other.leaves if other.request == request else ():
                siblings.setdefault(leaf, []).append(Sibling(other.hlc, other.dot))
        return siblings

    def load(self, name: list[Any], attempts: list[list[Any]]) -> None:
        """Take in what a checkpoint holds."""
        known = [(dot, hlc, request, expiry_hlc, tuple(leaves)) for dot, hlc, request, expiry_hlc, *leaves in attempts]
        fits = len(known) == 1 and all(len(leaf) == _LEAF_BYTES for leaf in known[0][4])
        self._attempts[name[0]] = _packed(*known[0]) if fits else [Attempt(*each) for each in known]
        for _, _, _, expiry_hlc, _ in known:
            self._expire(name[0], expiry_hlc)

    def _expire(self, name: bytes, expiry_hlc: int) -> None:
        names = self._expiring.get(expiry_hlc)
        if names is None:
            names = self._expiring[expiry_hlc] = []
            heappush(self._expiries, expiry_hlc)
        names.append(name)

    def forget(self, stable: Sequence[int], frontier_hlc: int, budget: int) -> bool:
        """Forget ids that no commit to come can carry, looking at up to so many; return whether there may be more."""
        blocked: list[tuple[bytes, int]] = []
        expiries, left = self._expiries, budget
        while left and expiries and expiries[0] < frontier_hlc:
            expiry_hlc = expiries[0]
            names = self._expiring[expiry_hlc]
            looked = names[:left]
            del names[:left]
            if not names:
                del self._expiring[heappop(expiries)]
            left -= len(looked)
            for name in looked:
                attempts = self.attempts(name)
                if any(attempt.expiry_hlc > expiry_hlc for attempt in attempts):
                    continue  # it has another entry, for then
                if all(covers(stable, attempt.dot) for attempt in attempts):
                    self.ledger.note((name,))
                    self._attempts.pop(name, None)
                else:
                    blocked.append((name, expiry_hlc))
        if not self._attempts:
            self._attempts = {}  # a dict stays as long as it ever was
        if not self._expiring:
            self._expiring = {}
        for name, expiry_hlc in blocked:
            self._expire(name, expiry_hlc)
        return not left and len(blocked) < budget


def _leaves_of(effects: Effects) -> tuple[bytes, ...]:
    """The leaves at which a commit puts something."""
    if len(effects) == 3 and effects[0] != DROP:  # by far the most frequent
        return (leaf_name(effects[1], effects[0]),)
    return tuple([leaf_name(effects[at + 1], effects[at]) for at in range(0, len(effects), 3) if effects[at] != DROP])


def _fields(attempt: Attempt) -> list[Any]:
    """An attempt as a checkpoint holds it."""
    return [attempt.dot, attempt.hlc, attempt.request, attempt.expiry_hlc, *attempt.leaves]
