"""Sessions: what a token says was seen, held against what this node has and what it knows of others.

The question: who can serve a session? This node, as soon as all that the token names is durable here; another, when its last row names
it, or when it made it itself, for then it has acknowledged it. What all members are known to have is left out of a token.

A node that was removed may lack what all members have, so a token also names the number of the configuration of ``_sys`` in which it was
made: a node that does not know of that one is behind, and one that knows that it was removed serves no session.

And what if a replica that the token names was removed? Once it is settled how many of its commits count, a token that names one of these
is satisfied by that, and one that names a later one is refused: that commit is in no region any more, and to wait for it would be to
wait for ever. Until then, and for replicas never heard of here, this region is behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.causal import ReplicaId, join, node_of
from crdtstore.configuration import SYSTEM_GROUP, Configuration
from crdtstore.engine.engine import Engine
from crdtstore.engine.output import Committed
from crdtstore.errors import Compacted
from crdtstore.host import Host
from crdtstore.storage.protocol import NO_ORIGIN
from crdtstore.tokens import Seen, Tokens

__all__ = ["Sessions", "durable"]


def durable(engine: Engine) -> dict[ReplicaId, int]:
    """The vector that may be spoken of, by replica: of those of which it is settled how many commits count nothing has to be said."""
    vector, replicas = engine.durability.vector, engine.replicas
    found = {replicas[at]: vector[at] for at in engine.membership.shape.origins}
    if not engine.membership.is_member:
        found[replicas[engine.me]] = vector[engine.me]
    return found


class Sessions:
    """The tokens of one node. Keeps nothing of any session; what it found is good until anything happens (``look_again``)."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.tokens = Tokens(host.cluster.nonce)
        self._finals: dict[str, tuple[Configuration, dict[ReplicaId, int]]] = {}
        """Per group the finals of the configuration that was in force when they were looked up last."""
        self.covered: set[str] = set()
        """Tokens of which was found that all they name is durable here: many requests come with the same."""
        self._given: dict[tuple[str | None, str, int], str] = {}
        """Tokens of replies to new commits, by the token that came with these, the group and how far it is durable."""
        self._shown: dict[tuple[str | None, str], str] = {}
        """Tokens of readings of one group, by the token that came with these and the group."""

    def look_again(self) -> None:
        """Something happens."""
        self.covered.clear()
        self._given.clear()
        self._shown.clear()

    def seen(self, text: str | None) -> Seen:
        """What a token has seen; none has seen nothing.

        Raises:  UsageError ``foreign-token``; nothing changed.
        """
        return self.tokens.decode(text) if text else {}

    def has_seen(self, seen: Seen) -> bool:
        """Whether all of it is durable here.

        Raises:  Compacted ``token-lost`` when some of it is in no region any more; nothing changed.
        """
        has_all = not (seen and self._host.roster.is_removed)
        for group, vector in seen.items():
            engine = self._host.groups.get(group)
            if engine is None and not self._host.holds(group):
                continue  # another worker has it, or not
            if engine is None or not engine.is_installed:
                return False
            here = {**durable(engine), NO_ORIGIN: engine.membership.told.number}
            for replica, seq in vector.items():
                if here.get(replica, -1) < seq and not self._is_settled(engine, replica, seq, seen):
                    has_all = False
        return has_all

    def _is_settled(self, engine: Engine, replica: ReplicaId, seq: int, seen: Seen) -> bool:
        """Whether a replica was removed, and all of its commits that count are here.

        Raises:  Compacted ``token-lost`` when the one that is asked for does not count.
        """
        final = self.finals(engine).get(replica)
        if final is None:
            return False
        if seq <= final:  # every member has them all; one that was removed itself may hear of the final and lack some
            return engine.durability.vector[engine.replicas.index(replica)] >= seq
        removed = engine.configuration.removal(replica)
        assert removed is not None
        lost = seq - final
        what = "1 commit" if lost == 1 else f"{lost} commits"
        raise Compacted(
            f"the token names {what} of {replica} that no other member had when it was removed: they went with the node "
            f"{node_of(replica)}, and may be brought back from there (crdtstore orphan list). Go on with the token in this answer, "
            f"which names the rest, after reading again. Nothing changed.",
            code="token-lost",
            replica=replica,
            node=node_of(replica),
            region=removed.member.region,
            lost=lost,
            token=self._without_lost(seen),
        )

    def finals(self, engine: Engine) -> dict[ReplicaId, int]:
        """How many commits of those count that were removed from a group."""
        known = self._finals.get(engine.group)
        if known is None or known[0] is not engine.configuration:
            known = self._finals[engine.group] = engine.configuration, engine.configuration.finals
        return known[1]

    def _without_lost(self, seen: Seen) -> str:
        kept = {}
        for group, vector in seen.items():
            engine = self._host.groups.get(group)
            finals = {} if engine is None else self.finals(engine)
            kept[group] = {replica: seq for replica, seq in vector.items() if seq <= finals.get(replica, seq)}
        return self.tokens.encode(kept)

    def able_regions(self, seen: Seen) -> list[str]:
        """The other regions that are known to have all of it."""
        others = (member for member in self._host.roster.members if member.replica != self._host.me.replica)
        return list(dict.fromkeys(member.region for member in others if self._peer_has_seen(member.replica, seen)))

    def _peer_has_seen(self, peer: ReplicaId, seen: Seen) -> bool:
        for group, vector in seen.items():
            others = {name: seq for name, seq in vector.items() if name != peer}
            if not others:
                continue
            engine = self._host.groups.get(group)
            row = engine.rows.newest[engine.replicas.index(peer)] if engine and peer in engine.replicas else None
            if engine is None or row is None:
                return False
            known = {**dict(zip(engine.replicas, row.vector, strict=True)), NO_ORIGIN: engine.configuration.number}
            if any(known.get(name, -1) < seq for name, seq in others.items()):
                return False
        return True

    def token(self, text: str | None, group: str, new: dict[ReplicaId, int]) -> str:
        """The token of a reply: what the session had seen joined with what this reply shows, less what all members have."""
        return self.token_of(text, {group: new})

    def token_of(self, text: str | None, shown: Seen) -> str:
        """The token of a reply that shows something of several groups."""
        before = self.seen(text)
        seen = before | {group: join((before[group], new)) if group in before else new for group, new in shown.items()}
        number = self._host.groups[SYSTEM_GROUP].membership.told.number
        if number:  # who does not know of it may be no member any more, and lack what all members have
            seen[SYSTEM_GROUP] = join((seen.get(SYSTEM_GROUP, {}), {NO_ORIGIN: number}))
        return self.tokens.encode({name: self._not_everywhere(name, entries) for name, entries in seen.items()})

    def token_of_reading(self, text: str | None, engines: Sequence[Engine]) -> str:
        """The token of a reply that shows what is durable of some groups. Readings of one step that came with the same have the same."""
        if len(engines) != 1:
            return self.token_of(text, {engine.group: durable(engine) for engine in engines})
        engine = engines[0]
        token = self._shown.get((text, engine.group))
        if token is None:
            token = self._shown[text, engine.group] = self.token(text, engine.group, durable(engine))
        return token

    def token_of_commit(self, before: str | None, engine: Engine, committed: Committed, *, is_alone: bool) -> str:
        """The token of the reply to a commit. All new ones that become durable together have the same, which names them all: what one of
        them waits for in another region arrives there with it, or soon after. One that is alone names no other: whoever is told which
        regions have it is to be served there, whatever became of the others.
        """
        replica = engine.replicas[committed.origin]
        if is_alone or committed.is_replayed:
            return self.token(before, engine.group, {replica: committed.seq})
        seq = engine.durability.vector[committed.origin]
        token = self._given.get((before, engine.group, seq))
        if token is None:
            token = self._given[before, engine.group, seq] = self.token(before, engine.group, {replica: seq})
        return token

    def _not_everywhere(self, group: str, vector: dict[ReplicaId, int]) -> dict[ReplicaId, int]:
        engine = self._host.groups.get(group)
        if engine is None:
            return vector
        everywhere = map(min, engine.rows.floor, engine.durability.vector)
        had = dict(zip(engine.replicas, everywhere, strict=True))
        if engine.configuration.removed:
            had |= self.finals(engine)
        return {replica: seq for replica, seq in vector.items() if seq > had.get(replica, 0)}
