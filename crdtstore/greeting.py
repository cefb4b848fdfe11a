"""Greeting: the first words between two nodes.

The question: who is it, and what does he remember? Anybody of the cluster may speak, a member or not: who joins has to ask, who was
removed has to hear of it. What a peer remembers of this node, and how far the chains of hashes go that it holds, is held against what
this node knows before anything else is said (``Claims``).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId, node_of, parse_replica_id
from crdtstore.configuration import Member
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.messages import PROTOCOL_VERSION, Hello, Standing, decode_message, encode_message

if TYPE_CHECKING:
    from crdtstore.host import Host

__all__ = ["Greeting"]


class Greeting:
    """What one node says first, and what it makes of the first words of others."""

    def __init__(self, host: Host, random: Random) -> None:
        self._host = host
        self._process = random.getrandbits(64)

    def words(self, peer: ReplicaId | None) -> bytes:
        """The first words to a peer (None: not known yet who it is)."""
        host = self._host
        standings = {group: engine.membership.claims.standing(peer) for group, engine in host.groups.items()}
        me = host.me
        about = me.replica, me.node, me.region, standings, me.gossip, self._process
        return encode_message(Hello(PROTOCOL_VERSION, host.cluster.nonce, *about))

    def check(self, data: bytes) -> Member:
        """Who the peer is, from its first words; it need not be a member. What it remembers of us may fence this node.

        Raises:  ProtocolError or DecodeError with the reason: another cluster, version, ourselves, another past; nothing changed.
        """
        host = self._host
        hello = decode_message(data)
        if not isinstance(hello, Hello):
            raise ProtocolError("a connection begins with a hello")
        if hello.protocol != PROTOCOL_VERSION:
            raise ProtocolError(f"protocol {hello.protocol}, this node speaks {PROTOCOL_VERSION}")
        if hello.cluster != host.cluster.nonce:
            raise ProtocolError(f"{hello.node[:63]!r} belongs to {host.cluster.what_else(hello.cluster)}")
        try:
            replica = parse_replica_id(hello.replica)
            host.cluster.check_worker(replica)
        except (ValueError, UsageError) as error:
            raise ProtocolError(str(error)) from error
        if replica == host.me.replica:
            if hello.process == self._process:
                raise ProtocolError("this node has reached itself")
            why = "another node speaks under this node's id"
            host.fence(why)
            raise ProtocolError(why)
        known = host.roster.member(replica)
        if hello.node != node_of(replica) or (known is not None and known.region != hello.region):
            raise ProtocolError(f"{hello.replica} of region {hello.region[:63]!r} is not what it says")
        for group, standing in hello.groups.items():
            engine = host.groups.get(group)
            if engine is not None:
                engine.membership.claims.check(replica, standing)
            elif what := _forgotten(standing):  # else its declaration is on its way
                host.fence(f"{replica} {what} in {group}, which is not known here")
                raise ProtocolError(f"this node has forgotten what it said: {replica} {what} in {group}")
        return Member(replica, hello.region, hello.gossip)


def _forgotten(standing: Standing) -> str | None:
    """What a peer remembers of this node in a group that it does not know; None: nothing that it would not have had on disk."""
    yours = standing.yours
    if standing.has:
        return f"has {standing.has} commits of it"
    if yours is not None and (yours.votes or any(yours.vector.values())):
        return "has heard of what it had and voted"
    return None
