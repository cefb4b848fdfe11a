"""Shape: the order in which a configuration's messages name replicas, and the order in which this replica keeps them.

The question: what becomes of the entries of replicas that were removed? In memory a replica keeps its index for ever, dots hold it. On the
wire a vector names the members and those removed ones whose final is not decided yet; of the others it is known how many commits they
have, so a vector omits them and is read with their finals. As long as nobody was removed both orders are mostly the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Configuration
from crdtstore.errors import ProtocolError
from crdtstore.messages import Ack, Digest, Frame, Row, Segment, Want

__all__ = ["Shape"]


class Shape:
    """The order of one configuration. Immutable."""

    def __init__(self, configuration: Configuration, replicas: Sequence[ReplicaId]) -> None:
        """``replicas`` names all of the configuration already; who comes later is not in it."""
        index = {replica: at for at, replica in enumerate(replicas)}
        self.id = configuration.id
        self.origins = [index[replica] for replica in configuration.origins]
        """Per place on the wire the index in memory."""
        self.members = self.origins[: len(configuration.members)]
        self.names = frozenset(configuration.ids)
        """Of the members."""
        self._finals = [(index[replica], seq) for replica, seq in configuration.finals.items()]
        self._count = len(replicas)
        self._is_same = self.origins == list(range(len(replicas))) and len(self.members) == len(self.origins)

    # --- rows

    def widen(self, row: Row) -> Row:
        """A row as it came, in the order of memory.

        Raises:  ProtocolError for another configuration or size.
        """
        if row.configuration != self.id or not len(row.vector) == len(row.chains) == len(self.origins):
            raise ProtocolError("a row of another configuration or size")
        if self._is_same:
            return row
        vector, chains = [0] * self._count, [b""] * self._count
        for index, seq in self._finals:
            vector[index] = seq
        for index, seq, chain in zip(self.origins, row.vector, row.chains, strict=True):
            vector[index], chains[index] = seq, chain
        return structs.replace(row, vector=vector, chains=chains)

    def narrow(self, row: Row) -> Row:
        """A row as it is sent."""
        if self._is_same:
            return row
        vector = [row.vector[index] for index in self.origins]
        return structs.replace(row, vector=vector, chains=[row.chains[index] for index in self.origins])

    # --- messages

    def give_all(self, sends: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """What is sent, as it is sent; one frame may go to several peers."""
        if self._is_same:
            return sends
        given: dict[int, Any] = {}
        for _, message in sends:
            if id(message) not in given:
                given[id(message)] = message if isinstance(message, Want) else self.give(message)
        return [(peer, given[id(message)]) for peer, message in sends]

    def take(self, message: Frame | Digest | Ack) -> None:
        """Turn a message that came into the order of memory, in place.

        Raises:  ProtocolError when it is not of this shape.
        """
        if isinstance(message, Frame):
            if not self._is_same:
                for segment in message.segments:
                    if not 0 <= segment.origin < len(self.origins):
                        raise ProtocolError("a frame starts somewhere at a member")
                message.segments = [
                    Segment(self.origins[segment.origin], segment.after, segment.chain) for segment in message.segments
                ]
            return
        message.row = self.widen(message.row)
        if isinstance(message, Digest):
            if len(message.others) != len(self.members):
                raise ProtocolError(f"{len(message.others)} rows for {len(self.members)} members")
            others = [None if row is None else self.widen(row) for row in message.others]
            message.others = others if self._is_same else self._spread(others)

    def give(self, message: Frame | Digest | Ack) -> Frame | Digest | Ack:
        """A message as it is sent."""
        if self._is_same:
            return message
        if isinstance(message, Frame):
            at = {index: place for place, index in enumerate(self.origins)}
            segments = [Segment(at[segment.origin], segment.after, segment.chain) for segment in message.segments]
            return Frame(message.group, message.configuration, segments, message.order, message.commits)
        row = self.narrow(message.row)
        if isinstance(message, Ack):
            return Ack(message.group, message.configuration, row)
        held = [message.others[index] for index in self.members]
        others = [None if each is None else self.narrow(each) for each in held]
        return Digest(message.group, message.configuration, row, others, message.wants_answer, message.is_missing)

    def _spread(self, rows: list[Row | None]) -> list[Row | None]:
        spread: list[Row | None] = [None] * self._count
        for index, row in zip(self.members, rows, strict=True):
            spread[index] = row
        return spread
