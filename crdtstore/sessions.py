"""Sessions: what a token says was seen, held against what this node has and what it knows of others.

The question: who can serve a session? This node, as soon as all that the token names is durable here; another, when its last row names
it, or when it made it itself, for then it has acknowledged it. What all members are known to have is left out of a token.
"""

from __future__ import annotations

from crdtstore.causal import ReplicaId, join
from crdtstore.engine.engine import Engine
from crdtstore.host import Host
from crdtstore.tokens import Seen, Tokens

__all__ = ["Sessions", "durable"]


def durable(engine: Engine) -> dict[ReplicaId, int]:
    """The vector that may be spoken of, by replica."""
    return dict(zip(engine.replicas, engine.durability.vector, strict=True))


class Sessions:
    """The tokens of one node. Keeps nothing of any session."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.tokens = Tokens(host.cluster.nonce)

    def seen(self, text: str | None) -> Seen:
        """What a token has seen; none has seen nothing.

        Raises:  UsageError ``foreign-token``; nothing changed.
        """
        return self.tokens.decode(text) if text else {}

    def has_seen(self, seen: Seen) -> bool:
        """Whether all of it is durable here."""
        for group, vector in seen.items():
            engine = self._host.groups.get(group)
            if engine is None:
                return False
            here = durable(engine)
            for replica, seq in vector.items():
                if here.get(replica, -1) < seq:
                    return False
        return True

    def able_regions(self, seen: Seen) -> list[str]:
        """The other regions that are known to have all of it."""
        others = (member for member in self._host.cluster.members if member != self._host.me)
        return [member.region for member in others if self._peer_has_seen(member.replica, seen)]

    def _peer_has_seen(self, peer: ReplicaId, seen: Seen) -> bool:
        for group, vector in seen.items():
            others = {name: seq for name, seq in vector.items() if name != peer}
            if not others:
                continue
            engine = self._host.groups.get(group)
            row = engine.rows.newest[engine.replicas.index(peer)] if engine and peer in engine.replicas else None
            if engine is None or row is None:
                return False
            known = dict(zip(engine.replicas, row.vector, strict=True))
            if any(known.get(name, -1) < seq for name, seq in others.items()):
                return False
        return True

    def token(self, text: str | None, group: str, new: dict[ReplicaId, int]) -> str:
        """The token of a reply: what the session had seen joined with what this reply shows, less what all members have."""
        before = self.seen(text)
        seen = {**before, group: join((before[group], new)) if group in before else new}
        return self.tokens.encode({name: self._not_everywhere(name, entries) for name, entries in seen.items()})

    def _not_everywhere(self, group: str, vector: dict[ReplicaId, int]) -> dict[ReplicaId, int]:
        engine = self._host.groups.get(group)
        if engine is None:
            return vector
        everywhere = map(min, engine.rows.floor, engine.durability.vector)
        had = dict(zip(engine.replicas, everywhere, strict=True))
        return {replica: seq for replica, seq in vector.items() if seq > had.get(replica, 0)}
