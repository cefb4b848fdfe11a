"""Bugs in who is a member: whose rows and commits count, what is decided, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace as altered

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP, Configuration
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.early import Early
from crdtstore.engine.history import History
from crdtstore.engine.membership import decision, due
from crdtstore.engine.membership.changes import Evict, Join, successor
from crdtstore.engine.membership.decision import Decision
from crdtstore.engine.membership.membership import Membership
from crdtstore.engine.membership.register import Proposal
from crdtstore.engine.stability import Stability
from crdtstore.messages import Frame, Segment
from crdtstore.roster import Roster
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.plants.where import CHANGES, busy, late, often

__all__ = ["IN_MEMBERS"]


# --- whose rows count


def _kept_rows(adopt: Any) -> Any:
    """What rows said under the configuration before counts under this one."""

    def keep(self: Stability, others: Sequence[int], awaited: Sequence[int] = ()) -> None:
        before = self._usable, self._pending
        adopt(self, others, awaited)
        self._usable, self._pending = before

    return keep


def _any_row(is_usable: Any) -> Any:
    return lambda self, vector, durable: True


def _own_entry(take: Any) -> Any:
    """A row counts as soon as all that its sender made is here, whatever else it names."""

    def own(self: Stability, member: int, row: Any, durable: Sequence[int]) -> None:
        vector = row.vector
        if vector[member] <= durable[member]:
            self._usable[member] = vector
            self._has_news = True
        take(self, member, row, durable)

    return own


def _only_the_old(adopt: Any) -> Any:
    """Nobody waits for the rows of one that joined."""

    def without(self: Stability, others: Sequence[int], awaited: Sequence[int] = ()) -> None:
        before, is_first = set(self.others), not any(self.stable)
        adopt(self, [other for other in others if other in before or is_first], awaited)

    return without


# --- whose commits count


def _heard_anyway(is_from: Callable[[Membership, Any], bool]) -> Callable[[Any], Any]:
    """Commits that were sent under another configuration are taken."""

    def change(hears: Any) -> Any:
        origins: dict[Any, Sequence[str]] = {}

        def heard(self: Membership, replica: Any, message: Any, *rest: Any) -> bool:
            configuration = self._engine.configuration
            origins[self._engine.group, *_key(configuration.id)] = configuration.origins
            known = origins.get((message.group, *_key(message.configuration)))
            is_later = message.configuration.number > configuration.number
            if known is None or is_later or not isinstance(message, Frame) or not is_from(self, replica):
                return bool(hears(self, replica, message, *rest))
            if message.configuration == configuration.id and configuration.member(replica) is not None:
                return bool(hears(self, replica, message, *rest))
            mine = list(self._engine.configuration.origins)
            if any(known[segment.origin] not in mine for segment in message.segments):
                return False
            message.segments = [
                Segment(mine.index(ReplicaId(known[segment.origin])), segment.after, segment.chain)
                for segment in message.segments
            ]
            return self.is_installed and self.is_member and not self.is_silent

        return heard

    return change


def _key(configuration: Any) -> tuple[int, bytes]:
    return configuration.number, configuration.nonce


def _is_removed(self: Membership, replica: Any) -> bool:
    removal = self._engine.configuration.removal(replica)
    return removal is not None and removal.final is None


def _of_nobody(on_frame: Any) -> Any:
    """Who is no peer is not answered."""

    def answer(self: AntiEntropy, peer: int, *rest: Any) -> None:
        if peer in self.peers:
            on_frame(self, peer, *rest)

    return answer


def _never_cleared(clear: Any) -> Any:
    return lambda self: None


def _forget_all(forget: Any) -> Any:
    return lambda self, stable: forget(self, self.placed)


# --- what is decided


def _anybody(is_quorum: Any) -> Any:
    return lambda self, replicas: bool(replicas)


def _own_value(take_promise: Any) -> Any:
    """What others accepted before is proposed by nobody again."""
    return lambda self, replica, accepted, configuration: take_promise(self, replica, None, configuration)


def _no_votes(restore: Any) -> Any:
    return lambda self, voted: None


def _own_word(agreed: Any) -> Any:
    """How many commits of a removed one count is what whoever asks has of it."""
    return lambda engine, index: engine.durability.vector[index]


def _whenever(judged: Any) -> Any:
    """An eviction holds in whatever configuration there is when its turn comes."""

    def judge(before: Configuration, change: Any, proposer: Any) -> Any:
        if isinstance(change, Evict):
            change = altered(change, at=before.id)
        return judged(before, change, proposer)

    return judge


def _by_number(precedes: Any) -> Any:
    """The greater number goes before, whatever line it is of."""
    return lambda self, other: self.number < other.number or self.id == other.id


def _unvoted(order: Any) -> Any:
    """Groups take the members of ``_sys`` without deciding."""

    def follow(self: Roster, engine: Any, change: Any, now_ms: int, out: Any) -> None:
        following = successor(engine.configuration, change, ReplicaId(""))
        if engine.group == SYSTEM_GROUP or following is None:
            order(self, engine, change, now_ms, out)
        else:
            self._host.force(engine.group, following, now_ms, out)

    return follow


def _joins_again(judged: Any) -> Any:
    """Who was removed may join again."""

    def judge(before: Configuration, change: Any, proposer: Any) -> Any:
        if isinstance(change, Join):
            left = tuple(each for each in before.removed if each.replica != change.member.replica)
            before = altered(before, removed=left)
        return judged(before, change, proposer)

    return judge


def _not_checked(check_follows: Any) -> Any:
    return lambda self, before: None


def _lets_in(on_ask: Any) -> Any:
    """Whoever asks is let in."""

    def let_in(self: Roster, peer: Any, message: Any, now_ms: int, out: Any) -> None:
        if self._system.takes_part and self._system.configuration.removal(peer) is not None:
            self._order(self._system, Join(message.member), now_ms, out)
        on_ask(self, peer, message, now_ms, out)

    return let_in


def _asks_on(is_removed: Any) -> Any:
    return lambda self: False


IN_MEMBERS: dict[str, Plant] = {
    "rows-of-any-configuration": Plant(
        Stability, "adopt", _kept_rows, "rows of the configuration before count in this one", busy("split", "evict")
    ),
    "any-row-among-members": Plant(
        Stability, "is_usable", _any_row, "a row counts although not all that it names is here", often(*CHANGES)
    ),
    "rows-by-own-entry": Plant(
        Stability,
        "take",
        _own_entry,
        "a row counts once all that its sender made is here",
        busy("split", "evict"),
        first=90,
    ),
    "joiner-not-counted": Plant(
        Stability, "adopt", _only_the_old, "nobody waits for the rows of one that joined", often("join", "split")
    ),
    "data-of-another-configuration": Plant(
        Membership,
        "hears",
        _heard_anyway(lambda self, replica: True),
        "commits are taken from members and others, of this and earlier configurations",
        busy("split", "evict"),
        ((AntiEntropy, "on_frame", _of_nobody),),
        first=60,
    ),
    "commits-of-the-evicted": Plant(
        Membership,
        "hears",
        _heard_anyway(_is_removed),
        "commits are taken from one that was evicted",
        busy("split", "evict"),
        ((AntiEntropy, "on_frame", _of_nobody),),
        first=430,
    ),
    "early-kept": Plant(
        Early,
        "clear",
        _never_cleared,
        "commits that wait are kept across an eviction",
        late,
    ),
    "log-cut-early": Plant(
        History, "forget", _forget_all, "commits are forgotten when they are durable here", often(*CHANGES)
    ),
    "quorum-of-any": Plant(
        Configuration, "is_quorum", _anybody, "any member decides alone", often("split", "evict", "join")
    ),
    "accepted-forgotten": Plant(
        Proposal,
        "take_promise",
        _own_value,
        "what was accepted before is not proposed again",
        busy("evict", "split", "die proposing"),
        first=1345,
    ),
    "votes-forgotten": Plant(
        Decision, "restore", _no_votes, "votes are forgotten by a crash", busy("die proposing", "evict", "split")
    ),
    "final-too-early": Plant(
        due, "_agreed", _own_word, "a final is what one member has", often("split", "evict", "crash")
    ),
    "stale-evict": Plant(
        decision, "successor", _whenever, "an eviction holds in another configuration too", often("evict", "split")
    ),
    "line-by-number": Plant(
        Configuration,
        "precedes",
        _by_number,
        "of two lines the greater number wins",
        often("force", "split", "evict", "join"),
    ),
    "members-without-votes": Plant(
        Roster, "_order", _unvoted, "groups take the members of _sys without deciding", often(*CHANGES)
    ),
    "removed-id-returns": Plant(
        decision,
        "successor",
        _joins_again,
        "an id that was removed joins again",
        often("split", "evict", "leave"),
        (
            (Configuration, "check_follows", _not_checked),
            (Roster, "_on_ask", _lets_in),
            (Roster, "is_removed", _asks_on),
        ),
    ),
}
