"""Gossip between nodes: one WebSocket per pair, hello both ways, then messages of all groups.

The question: which of two connections with one peer counts? The older, if its other end answers; else the peer has forgotten it, or a cut
left it open, and the newer takes its place. Who says hello as a node of this cluster is heard, whether or not any group knows it: those who
want to join, and those who were removed, have something to say and to hear. Whoever says hello wrongly is refused with a reason that both
sides log once, and nobody else notices. Whom this node dials stands in ``dialing``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Member
from crdtstore.errors import CrdtStoreError, ProtocolError
from crdtstore.host import Host, Rejected
from crdtstore.messages import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Hello, decode_message
from crdtstore.service import PeerChanged
from crdtstore_node.config import Address, NodeConfig
from crdtstore_node.dialing import Dialers, Seeds, Target
from crdtstore_node.driver import Driver
from crdtstore_node.links import Link, Socket, close
from crdtstore_node.logs import OncePer, event

__all__ = ["CONNECTED_ALREADY", "WAITS", "WANTED", "Transport"]

_log = logging.getLogger(__name__)
_REFUSED = 4000
"""WebSocket close code: the hello or a message was refused."""
CONNECTED_ALREADY = 4001
"""The peer has a connection with this node, and both know it."""
WAITS = 4002
"""The hello was good, and more is not said now: whoever closed waits for a proof of its id."""
_MAX_STRANGERS = 64
"""Connections that have not said hello yet."""
_MAX_GUESTS = 64
"""Connections of nodes that no group knows: they want to join, or say so."""
_NOT_HERE = 421
_ANSWER_S = 1.0
"""A connection whose other end does not answer within so long is one that only we know of."""
WANTED = "Crdtstore-Replica"
"""The header that says whom a dialer means: its hello holds what it remembers of that one."""
_DIALER = "Crdtstore-Node"
"""The header that names the node that dials: for what stands in between, such as proxies and their logs."""


class Transport:
    """The links of one node. Mutable; ``links`` holds what is connected now."""

    def __init__(self, driver: Driver, config: NodeConfig, seeds: Seeds | None = None) -> None:
        """``seeds``: where members were in this node's life before."""
        self._driver = driver
        self._host = driver.service.host
        self._options = config.links
        self._once = OncePer()
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._strangers = 0
        self._is_stopping = False
        self.is_asking = False
        """Whether hellos are answered and nothing else: it is not known yet whether this node may go on under its id."""
        self.reached: set[ReplicaId | None] = set()
        """Whose hello came meanwhile and contradicts nothing."""
        self.links: dict[ReplicaId, Link] = {}
        self.dialers = Dialers(self._host, config, self.links, self._dial, seeds)
        self.connected: int = 0
        self.lost: int = 0
        self.overrun: int = 0
        self.dropped: int = 0
        self.refused_connections: int = 0
        self.refused: dict[str, int] = {}
        """Per peer how often something it said was refused ("" for those that never said who they are)."""
        driver.send = self.send
        driver.rejected = self._on_rejected

    # --- life

    async def listen(self, address: Address) -> Address:
        """Take connections; returns where (a port 0 becomes a real one).

        Raises:  OSError when the address cannot be had.
        """
        patience_s = self._options.connect_timeout_ms / 1000
        server = web.Server(self._on_connection, access_log=None, keepalive_timeout=patience_s)
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, address.host, address.port)
        await site.start()
        return Address(*self._runner.addresses[0][:2])

    def dial(self) -> None:
        """Connect to whom this node has to dial, for as long as this runs."""
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.dialers.start()

    async def stop(self) -> None:
        """Close all links and stop listening."""
        self._is_stopping = True
        await self.dialers.stop()
        for link in list(self.links.values()):
            link.give_up("this node stops")
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- what goes out

    def send(self, sends: Sequence[tuple[ReplicaId, bytes]]) -> None:
        """Queue messages; those to a peer that is gone are dropped, it starts again from its row."""
        links = self.links
        for peer, data in sends:
            link = links.get(peer)
            if link is None:
                self.dropped += 1
            else:
                link.send(data)

    # --- connecting

    async def _dial(self, target: Target, address: Address) -> ReplicaId | None:
        """One connection from its beginning to its end; who was there, None: nobody."""
        assert self._session is not None
        try:
            async with asyncio.timeout(self._options.connect_timeout_ms / 1000):
                websocket = await self._session.ws_connect(
                    f"http://{address}/gossip",
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
                    headers={_DIALER: self._host.me.node}
                    | ({} if target.replica is None else {WANTED: target.replica}),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if target.replica is not None and getattr(error, "status", None) == _NOT_HERE:
                self.dialers.note_elsewhere(target.replica, address)
            if self._once.is_new(target.name, f"unreachable at {address}"):
                event(
                    _log,
                    logging.WARNING,
                    "a peer is not reachable",
                    peer=target.name,
                    address=str(address),
                    why=str(error) or type(error).__name__,
                )
            return None
        return await self._converse(websocket, target, str(address))

    async def _on_connection(self, request: web.BaseRequest) -> web.StreamResponse:
        remote = str(request.remote)
        if request.path != "/gossip" or self._is_stopping or self._strangers >= _MAX_STRANGERS:
            self._refuse("", remote, "not a gossip connection" if request.path != "/gossip" else "too many connections")
            return web.Response(status=404 if request.path != "/gossip" else 503)
        if request.headers.get(WANTED, self._host.me.replica) != self._host.me.replica:
            return web.Response(
                status=_NOT_HERE
            )  # who was here before; what is meant for it must not be taken for ours
        websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=0.5)
        try:
            await websocket.prepare(request)
        except web.HTTPException:
            self._refuse("", remote, "not a WebSocket handshake")
            raise
        await self._converse(websocket, None, remote)
        return websocket

    async def _converse(self, websocket: Socket, target: Target | None, address: str) -> ReplicaId | None:
        """Hello both ways, then messages until the connection ends; who was there, None: the hello went wrong."""
        self._strangers += target is None
        peer: Member | None = None
        try:
            try:
                async with asyncio.timeout(self._options.connect_timeout_ms / 1000):
                    peer = await self._greet(websocket, target)
            finally:
                self._strangers -= target is None
            self.dialers.learn(peer)
            if self.is_asking:
                self.reached.add(peer.replica)
                await close(websocket, WAITS, "waits for a proof of its id")
            elif await self._is_needed(peer, target):
                await self._carry(peer, websocket)
            else:
                await close(websocket, CONNECTED_ALREADY, "already connected")
        except (TimeoutError, ConnectionError, RuntimeError) as error:
            if peer is None:
                who = address if target is None else target.name
                if self._once.is_new(who, "no hello"):
                    event(_log, logging.WARNING, "no hello on a connection", peer=who, why=str(error) or "timeout")
            await close(websocket, _REFUSED, "no hello")
        except CrdtStoreError as error:
            node = "" if target is None or target.replica is None else target.name
            self._refuse(node, address if target is None else target.name, error.detail)
            await close(websocket, _REFUSED, error.detail)
        finally:
            if not websocket.closed:
                await close(websocket, aiohttp.WSCloseCode.GOING_AWAY, "")
        return None if peer is None else peer.replica

    async def _greet(self, websocket: Socket, target: Target | None) -> Member:
        """Who the peer is; the one that dials speaks first."""
        host, now_ms = self._host, self._driver.clock.now_ms
        if target is not None:
            await websocket.send_bytes(host.hello(target.replica, now_ms()))
        message = await websocket.receive()
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            if message.extra:
                raise ProtocolError(f"the peer refused this node: {message.extra}")
            raise ConnectionError("closed before a hello")
        if message.type is not WSMsgType.BINARY:
            raise ProtocolError(f"a connection begins with a hello, got {_describe(message)}")
        if target is None and (speaker := _speaker(message.data, host)) is not None:
            await websocket.send_bytes(host.hello(speaker, now_ms()))  # before it is judged: both have to hear
        peer = host.check_hello(message.data)
        if target is None:
            if host.roster.member(peer.replica) is None and self._guests() >= _MAX_GUESTS:
                raise ProtocolError("too many nodes are connected that no group knows")
        elif target.replica is not None and peer.replica != target.replica:
            raise ProtocolError(f"{peer.replica} answers where {target.replica} was expected")
        return peer

    async def _is_needed(self, peer: Member, target: Target | None) -> bool:
        """Whether this connection is to be carried; not, when the peer has another one that both of us know of.

        Who dialed knows whether it has one. Who was dialed may only believe so: the peer has begun anew, or a cut left it open.
        """
        older = self.links.get(peer.replica)
        if older is None:
            return True
        if target is not None:
            return False
        return not await older.answers(min(_ANSWER_S, self._options.silence_ms / 2000))

    def _guests(self) -> int:
        """How many are connected that no group knows."""
        member = self._host.roster.member
        return sum(member(replica) is None for replica in self.links)

    async def _carry(self, peer: Member, websocket: Socket) -> None:
        submit, receive, replica = self._driver.submit, self._driver.receive, peer.replica
        link = Link(
            peer,
            websocket,
            self._options,
            lambda data: receive(replica, data),
            lambda reason: self._refuse(peer.node, peer.node, reason),
        )
        older = self.links.get(replica)
        if older is not None:
            older.give_up("a newer connection of this peer took its place")
            submit(PeerChanged(replica, False))
        self.links[replica] = link
        self.connected += 1
        submit(PeerChanged(replica, True))
        event(_log, logging.INFO, "connected", peer=peer.node, peer_region=peer.region)
        try:
            await link.run()
        finally:
            self.lost += 1
            self.overrun += link.is_overrun
            if self.links.get(replica) is link:
                del self.links[replica]
                submit(PeerChanged(replica, False))
            event(_log, logging.INFO, "disconnected", peer=peer.node, peer_region=peer.region, why=link.why)
            if link.close_code == CONNECTED_ALREADY and self._once.is_new(peer.node, "already connected"):
                event(_log, logging.WARNING, "a peer says that this node is connected already", peer=peer.node)

    # --- what is refused

    def _refuse(self, node: str, who: str, reason: str) -> None:
        self.refused[node] = self.refused.get(node, 0) + 1
        self.refused_connections += 1
        if self._once.is_new(who, reason):
            event(_log, logging.WARNING, "refused a peer", peer=who, reason=reason)

    def _on_rejected(self, rejected: Rejected) -> None:
        member = self._host.roster.member(rejected.peer)
        node = member.node if member is not None else ""
        self.refused[node] = self.refused.get(node, 0) + 1
        if self._once.is_new(node, rejected.reason):
            event(_log, logging.WARNING, "refused what a peer said", peer=node, reason=rejected.reason)

    # --- views

    def peers(self) -> dict[str, dict[str, Any]]:
        """Per connected node what the link knows: milliseconds since it was heard, round trip and clock offset."""
        return {link.peer.node: _measured(link) for link in self.links.values()}


def _measured(link: Link) -> dict[str, Any]:
    best = link.heartbeat.best
    return {
        "heard_ms": link.heard_ms,
        "round_trip_ms": None if best is None else best.round_trip_us / 1000,
        "offset_ms": None if best is None else best.offset_us / 1000,
    }


def _speaker(data: bytes, host: Host) -> ReplicaId | None:
    """Who says hello, if it is one of this cluster: nobody else is told anything."""
    hello = decode_message(data)
    if not isinstance(hello, Hello) or hello.protocol != PROTOCOL_VERSION or hello.cluster != host.cluster.nonce:
        return None
    return ReplicaId(hello.replica)


def _describe(message: aiohttp.WSMessage) -> str:
    if isinstance(message.data, aiohttp.WebSocketError):
        return str(message.data)
    return f"a {message.type.name.lower()} message"
