"""Claims: what others remember of a replica, against what it knows of itself.

The question: how does a replica notice that it has forgotten something? Its disk may have been put back from an older copy, whole or in
part. Whatever it was heard to say stands in somebody's newest row of it. If anybody remembers a later configuration of it, more votes, any
entry above its own, more of its own commits, or other ones, then it has forgotten, or somebody else speaks under its id. Either way it is
fenced before its next write. Looking at its own entry alone is not enough: a replica that has forgotten commits of others would say again,
with less behind it, what its rows had said before; and one that forgot a vote could vote twice.

Source: DESIGN 4 (identity).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from crdtstore.causal import ReplicaId
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.messages import Claim, Row, Standing

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Claims"]


class Claims:
    """The newest row of every other replica, whatever its configuration. Mutable; part of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._newest: dict[ReplicaId, Claim | Row] = {}

    def note(self, replica: ReplicaId, row: Row) -> None:
        """A row of a replica came, from itself or by way of others; it is in the order of memory."""
        known = self._newest.get(replica)
        if known is None or self._rank(row) >= self._rank(known):
            self._newest[replica] = row
        elif isinstance(known, Claim) and row.configuration.number >= known.configuration.number:
            # more votes were heard of than the row says, and the row may say more otherwise
            self._newest[replica] = structs.replace(self._claim(row), votes=max(row.votes, known.votes))

    def note_votes(self, replica: ReplicaId, votes: int) -> None:
        """A replica voted: who hears of a vote must be able to tell that it was given."""
        known = self._newest.get(replica)
        if known is None:
            self._newest[replica] = Claim(self._engine.configuration.id, {}, votes)
        elif votes > known.votes:
            self._newest[replica] = structs.replace(self._claim(known), votes=votes)

    @property
    def speakers(self) -> Collection[ReplicaId]:
        """Who was ever heard to hold the group: nobody else has a row, or votes."""
        return self._newest.keys()

    def forget(self, replicas: Iterable[ReplicaId]) -> None:
        """These are gone for good, and it is settled what they made: nobody asks any more what they said."""
        for replica in replicas:
            self._newest.pop(replica, None)

    def keep(self) -> dict[str, Claim]:
        """All of them, for a checkpoint."""
        return {str(replica): self._claim(newest) for replica, newest in self._newest.items()}

    def restore(self, claims: dict[str, Claim]) -> None:
        self._newest = {ReplicaId(replica): claim for replica, claim in claims.items()}

    def _claim(self, newest: Claim | Row) -> Claim:
        if isinstance(newest, Claim):
            return newest
        vector = {
            str(replica): seq
            for replica, seq, chain in zip(self._engine.replicas, newest.vector, newest.chains, strict=False)
            if seq and chain
        }
        return Claim(newest.configuration, vector, newest.votes)

    def _rank(self, said: Claim | Row) -> tuple[int, int, int]:
        vector = said.vector.values() if isinstance(said.vector, dict) else said.vector
        return said.configuration.number, said.votes, sum(vector)

    # --- first words

    def standing(self, peer: ReplicaId | None) -> Standing:
        """What to say to a peer before anything else: durable things only."""
        engine = self._engine
        membership, vector = engine.membership, engine.durability.vector
        known = {}
        if membership.is_installed:
            for origin in membership.shape.origins:
                known[str(engine.replicas[origin])] = vector[origin], engine.history.chain(origin, vector[origin])
        yours, has, chain = None, 0, b""
        if peer is not None and peer in engine.replicas:
            index = engine.replicas.index(peer)
            applied = engine.applied[index]
            has = max(applied, engine.early.furthest(index, applied))  # durable here or not: the peer has made them
            chain = engine.history.chain(index, applied) if has == applied else b""
            newest = self._newest.get(peer)
            yours = None if newest is None else self._claim(newest)
            heard = engine.membership.heard.get(peer)
            if heard is not None and (yours is None or heard[0].number > yours.configuration.number):
                before = yours or Claim(heard[0], {}, 0)
                yours = Claim(heard[0], before.vector, before.votes)  # it was there, with or without a row
        return Standing(membership.told, known, yours, has, chain)

    def check(self, peer: ReplicaId, standing: Standing) -> None:
        """Hold what a peer says of the past against ours; fence this replica when it is our own that is contested.

        Raises:  ProtocolError saying what cannot be; StorageError.
        """
        engine = self._engine
        standing.configuration.check()
        engine.membership.note_heard(peer, standing.configuration, 0)
        me = engine.replicas[engine.me]
        forgotten = self._forgotten(standing)
        if forgotten is not None:
            engine.fence(f"{peer} {forgotten}")
            raise ProtocolError(f"this replica has forgotten what it said: {peer} {forgotten}")
        self._check_chain(peer, me, standing.has, standing.chain)
        for replica, (seq, chain) in standing.vector.items():
            if replica == me and seq > engine.applied[engine.me]:
                engine.fence(f"{peer} has {seq} commits of it, it has made {engine.applied[engine.me]}")
                raise ProtocolError(f"{peer} has {seq} commits of this replica")
            self._check_chain(peer, replica, seq, chain)

    def _forgotten(self, standing: Standing) -> str | None:
        """What the peer remembers of this replica that it does not know itself."""
        engine = self._engine
        own = engine.applied[engine.me]
        if standing.has > own:
            return f"has {standing.has} commits of it, it has made {own}"
        yours = standing.yours
        if yours is None:
            return None
        number = engine.configuration.number
        if yours.configuration.number > number:
            return f"has heard it in configuration {yours.configuration.number}, it knows of {number}"
        votes = engine.membership.decision.register.votes
        if yours.votes > votes:
            return f"has heard of {yours.votes} votes of it, it knows of {votes}"
        for replica, seq in yours.vector.items():
            here = engine.applied[engine.replicas.index(ReplicaId(replica))] if replica in engine.replicas else 0
            if seq > here:
                return f"has heard that it had {seq} commits of {replica}, it has {here}"
        return None

    def _check_chain(self, peer: ReplicaId, replica: str, seq: int, chain: bytes) -> None:
        engine = self._engine
        if not chain or replica not in engine.replicas:
            return
        origin = engine.replicas.index(ReplicaId(replica))
        try:
            engine.trust.check_chain(origin, seq, chain)
        except StorageError as error:
            engine.note_unreadable(error)
