"""Bugs in who is a member: votes, rows, finals, installs and identity, each looked for where members change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace as altered

from crdtstore.configuration import SYSTEM_GROUP, Configuration
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.early import Early
from crdtstore.engine.history import History
from crdtstore.engine.membership import decision, due
from crdtstore.engine.membership.changes import Evict, Join
from crdtstore.engine.membership.claims import Claims
from crdtstore.engine.membership.decision import Decision
from crdtstore.engine.membership.membership import Membership
from crdtstore.engine.membership.register import Proposal
from crdtstore.engine.stability import Stability
from crdtstore.install import arrival, lending
from crdtstore.install.installs import Installs
from crdtstore.messages import Frame, Segment
from crdtstore.roster import Roster
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.regroup.draw import draw_members
from crdtstore_sim.scenario import Latency, Scenario, Trouble

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
            counts = hears(self, replica, message, *rest)
            known = origins.get((message.group, *_key(message.configuration)))
            if counts or not isinstance(message, Frame) or known is None or not is_from(self, replica):
                return bool(counts)
            mine = list(self._engine.configuration.origins)
            if any(known[segment.origin] not in mine for segment in message.segments):
                return False
            message.segments = [
                Segment(mine.index(known[segment.origin]), segment.after, segment.chain) for segment in message.segments
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


def _whenever(successor: Any) -> Any:
    """An eviction holds in whatever configuration there is when its turn comes."""

    def judge(before: Configuration, change: Any, proposer: Any) -> Any:
        if isinstance(change, Evict):
            change = altered(change, at=before.id)
        return successor(before, change, proposer)

    return judge


def _by_number(precedes: Any) -> Any:
    """The greater number goes before, whatever line it is of."""
    return lambda self, other: self.number < other.number or self.id == other.id


def _unvoted(order: Any) -> Any:
    """Groups take the members of ``_sys`` without deciding."""

    def follow(self: Roster, engine: Any, change: Any, now_ms: int, out: Any) -> None:
        following = decision.successor(engine.configuration, change, "")  # type: ignore[attr-defined]
        if engine.group == SYSTEM_GROUP or following is None:
            order(self, engine, change, now_ms, out)
        else:
            self._host.force(engine.group, following, now_ms, out)

    return follow


def _joins_again(successor: Any) -> Any:
    """Who was removed may join again."""

    def judge(before: Configuration, change: Any, proposer: Any) -> Any:
        if isinstance(change, Join):
            left = tuple(each for each in before.removed if each.replica != change.member.replica)
            before = altered(before, removed=left)
        return successor(before, change, proposer)

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


# --- who has forgotten


def _nothing_forgotten(check: Any) -> Any:
    """Nobody listens to what peers remember."""
    return lambda self, peer, standing: None


def _own_commits(forgotten: Any) -> Any:
    """A peer that remembers more of others' commits, or of votes, is not listened to."""

    def own(self: Claims, standing: Any) -> str | None:
        made = self._engine.applied[self._engine.me]
        return f"has {standing.has} commits of it, it has made {made}" if standing.has > made else None

    return own


def _speaks_on(fence: Any) -> Any:
    """A fenced replica takes no writes, and goes on with everything else."""

    def half(self: Any, why: str) -> None:
        if not self.is_fenced:
            self.measures.why = why

    return half


# --- what a joiner takes over


def _any_snapshot(fits: Any) -> Any:
    return lambda saved, joiner, finals: True


def _unchecked(check_head: Any) -> Any:
    return lambda *rest: None


def _own_clock(take_over: Any) -> Any:
    """A joiner's stamps begin at its own clock."""

    def keep(self: Installs, engine: Any, *rest: Any) -> None:
        before = engine.clock.last
        take_over(self, engine, *rest)
        engine.clock.last = before

    return keep


# --- where they are looked for


def _with(*kinds: Trouble, **changes: Any) -> Callable[[int], Scenario]:
    """The scenario of a seed with these kinds of trouble, often."""

    def drawn(seed: int) -> Scenario:
        scenario = draw_members(seed)
        members = scenario.members
        assert members is not None
        newcomers = max(1, members.newcomers) if "join" in kinds else 0
        members = altered(members, kinds=list(kinds), every_s=0.2, newcomers=newcomers)
        scenario = altered(scenario, members=members, replicas=max(3, scenario.replicas))
        for part, fields in changes.items():
            now = getattr(scenario, part)
            scenario = altered(scenario, **{part: altered(now, **fields) if isinstance(fields, dict) else fields})
        return scenario

    return drawn


_CHANGES: tuple[Trouble, ...] = ("split", "crash", "join", "evict", "leave")


def _busy(*kinds: Trouble, **changes: Any) -> Callable[[int], Scenario]:
    """The same, with much to write, and messages that are long under way and overtake each other."""
    network = {"latency": Latency(kind="uniform", ms=40.0), "reorder": 0.3, "loss": 0.1}
    work = {"writes_per_s": 90.0, "sessions": 12, "roam": 0.5, "with_id": 0.0}
    return _with(*kinds, network=network, work=work, **changes)


def _late(seed: int) -> Scenario:
    """What is lost comes again late, so that much waits for what it depends on; and members are thrown out all the time."""
    engine = {"relay_after_ms": 2_000, "ack_timeout_ms": 3_000, "resend_after_ms": 500, "early_bytes": 32 << 20}
    scenario = _busy("split", "evict", engine=engine)(seed)
    assert scenario.members is not None
    members = altered(scenario.members, every_s=0.12)
    return altered(scenario, members=members, network=altered(scenario.network, loss=0.3), replicas=5)


IN_MEMBERS: dict[str, Plant] = {
    "rows-of-any-configuration": Plant(
        Stability, "adopt", _kept_rows, "rows of the configuration before count in this one", _busy("split", "evict")
    ),
    "any-row-among-members": Plant(
        Stability, "is_usable", _any_row, "a row counts although not all that it names is here", _with(*_CHANGES)
    ),
    "rows-by-own-entry": Plant(
        Stability, "take", _own_entry, "a row counts once all that its sender made is here", _busy("split", "evict")
    ),
    "joiner-not-counted": Plant(
        Stability, "adopt", _only_the_old, "nobody waits for the rows of one that joined", _with("join", "split")
    ),
    "data-of-another-configuration": Plant(
        Membership,
        "hears",
        _heard_anyway(lambda self, replica: True),
        "commits are taken whatever configuration they were sent in",
        _busy("split", "evict"),
        ((AntiEntropy, "on_frame", _of_nobody),),
    ),
    "commits-of-the-evicted": Plant(
        Membership,
        "hears",
        _heard_anyway(_is_removed),
        "commits are taken from one that was evicted",
        _busy("split", "evict"),
        ((AntiEntropy, "on_frame", _of_nobody),),
    ),
    "early-kept": Plant(
        Early,
        "clear",
        _never_cleared,
        "commits that wait are kept across an eviction",
        _with("split", "evict", "crash"),
    ),
    "log-cut-early": Plant(
        History, "forget", _forget_all, "commits are forgotten when they are durable here", _with(*_CHANGES)
    ),
    "quorum-of-any": Plant(
        Configuration, "is_quorum", _anybody, "any member decides alone", _with("split", "evict", "join")
    ),
    "accepted-forgotten": Plant(
        Proposal,
        "take_promise",
        _own_value,
        "what was accepted before is not proposed again",
        _busy("evict", "split", "die proposing"),
    ),
    "votes-forgotten": Plant(
        Decision, "restore", _no_votes, "votes are forgotten by a crash", _busy("die proposing", "evict", "split")
    ),
    "final-too-early": Plant(
        due, "_agreed", _own_word, "a final is what one member has", _with("split", "evict", "crash")
    ),
    "stale-evict": Plant(
        decision, "successor", _whenever, "an eviction holds in another configuration too", _with("evict", "split")
    ),
    "line-by-number": Plant(
        Configuration,
        "precedes",
        _by_number,
        "of two lines the greater number wins",
        _with("force", "split", "evict", "join"),
    ),
    "members-without-votes": Plant(
        Roster, "_order", _unvoted, "groups take the members of _sys without deciding", _with(*_CHANGES)
    ),
    "removed-id-returns": Plant(
        decision,
        "successor",
        _joins_again,
        "an id that was removed joins again",
        _with("split", "evict", "leave"),
        (
            (Configuration, "check_follows", _not_checked),
            (Roster, "_on_ask", _lets_in),
            (Roster, "is_removed", _asks_on),
        ),
    ),
    "hello-not-heard": Plant(
        Claims, "check", _nothing_forgotten, "nobody listens to what peers remember", _with("roll back", "split")
    ),
    "hello-by-own-entry": Plant(
        Claims,
        "_forgotten",
        _own_commits,
        "a peer that remembers votes, or commits of others, is not listened to",
        _with("half forgotten", "roll back", "evict", "split"),
    ),
    "snapshot-of-before": Plant(
        lending,
        "fits",
        _any_snapshot,
        "a joiner takes a snapshot that was begun before it was named",
        _busy("join", "copy seen", engine={"checkpoint_ms": 2_000, "gossip_interval_ms": 50}),
        ((arrival, "check_head", _unchecked),),
    ),
    "joiner-by-own-clock": Plant(
        Installs,
        "take_over",
        _own_clock,
        "a joiner's stamps begin at its own clock",
        _with("join", "copy seen", clocks={"skew_ms": 3_000}),
    ),
}
