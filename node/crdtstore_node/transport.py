"""Gossip between nodes: one WebSocket per pair, hello both ways, then messages of all groups.

The question: who dials? The node with the smaller name, so that two that come up together do not meet twice; a newer connection of a
peer replaces the older, because the older is then known only to us. Whoever says hello wrongly is refused with a reason that both sides
log once, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Member
from crdtstore.errors import CrdtStoreError, ProtocolError
from crdtstore.host import Rejected
from crdtstore.messages import MAX_MESSAGE_BYTES
from crdtstore.service import PeerChanged
from crdtstore_node.config import Address, NodeConfig, parse_address
from crdtstore_node.driver import Driver
from crdtstore_node.links import Link, Socket, close
from crdtstore_node.logs import OncePer, event

__all__ = ["Transport"]

_log = logging.getLogger(__name__)
_REFUSED = 4000
"""WebSocket close code: the hello or a message was refused."""
_MAX_STRANGERS = 64
"""Connections that have not said hello yet."""


class Transport:
    """The links of one node. Mutable; ``links`` holds what is connected now."""

    def __init__(self, driver: Driver, config: NodeConfig) -> None:
        self._driver = driver
        self._host = driver.service.host
        self._options = config.links
        self._peers = config.peers
        self._once = OncePer()
        self._dialers: list[asyncio.Task[None]] = []
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._strangers = 0
        self._is_stopping = False
        self.links: dict[ReplicaId, Link] = {}
        self.connected = self.lost = self.overrun = self.dropped = self.refused_connections = 0
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
        """Connect to every node with a greater name, for as long as this runs."""
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        for member in self._host.cluster.members:
            if member.node > self._host.me.node:
                self._dialers.append(asyncio.ensure_future(self._keep_dialing(member)))

    async def stop(self) -> None:
        """Close all links and stop listening."""
        self._is_stopping = True
        for dialer in self._dialers:
            dialer.cancel()
        await asyncio.gather(*self._dialers, return_exceptions=True)
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

    async def _keep_dialing(self, member: Member) -> None:
        least, most = self._options.retry_least_ms / 1000, self._options.retry_most_ms / 1000
        pause, loop = least, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                was_linked = await self._dial(member)
            except Exception:  # whatever a peer does, this goes on dialing it
                _log.exception("a connection to a peer failed", extra={"fields": {"peer": member.node}})
                was_linked = False
            has_lasted = was_linked and loop.time() - began >= most  # one that breaks at once is no reason to hurry
            pause = least if has_lasted else min(pause * 2, most)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)

    async def _dial(self, member: Member) -> bool:
        """One connection from its beginning to its end; whether there was one."""
        assert self._session is not None
        address = parse_address(self._peers.get(member.node, member.gossip), member.node)
        try:
            async with asyncio.timeout(self._options.connect_timeout_ms / 1000):
                websocket = await self._session.ws_connect(
                    f"http://{address}/gossip",
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if self._once.is_new(member.node, f"unreachable at {address}"):
                event(
                    _log,
                    logging.WARNING,
                    "a peer is not reachable",
                    peer=member.node,
                    address=str(address),
                    why=str(error) or type(error).__name__,
                )
            return False
        return await self._converse(websocket, member, str(address))

    async def _on_connection(self, request: web.BaseRequest) -> web.StreamResponse:
        remote = str(request.remote)
        if request.path != "/gossip" or self._is_stopping or self._strangers >= _MAX_STRANGERS:
            self._refuse("", remote, "not a gossip connection" if request.path != "/gossip" else "too many connections")
            return web.Response(status=404 if request.path != "/gossip" else 503)
        websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=0.5)
        try:
            await websocket.prepare(request)
        except web.HTTPException:
            self._refuse("", remote, "not a WebSocket handshake")
            raise
        await self._converse(websocket, None, remote)
        return websocket

    async def _converse(self, websocket: Socket, expected: Member | None, address: str) -> bool:
        """Hello both ways, then messages until the connection ends; whether the hello went well."""
        self._strangers += expected is None
        is_greeted = False
        try:
            try:
                async with asyncio.timeout(self._options.connect_timeout_ms / 1000):
                    peer = await self._greet(websocket, expected)
            finally:
                self._strangers -= expected is None
            is_greeted = True
            await self._carry(peer, websocket)
        except (TimeoutError, ConnectionError, RuntimeError) as error:
            if not is_greeted:
                who = address if expected is None else expected.node
                if self._once.is_new(who, "no hello"):
                    event(_log, logging.WARNING, "no hello on a connection", peer=who, why=str(error) or "timeout")
            await close(websocket, _REFUSED, "no hello")
        except CrdtStoreError as error:
            node = "" if expected is None else expected.node
            self._refuse(node, node or address, error.detail)
            await close(websocket, _REFUSED, error.detail)
        finally:
            if not websocket.closed:
                await close(websocket, aiohttp.WSCloseCode.GOING_AWAY, "")
        return is_greeted

    async def _greet(self, websocket: Socket, expected: Member | None) -> Member:
        """Who the peer is; the one that dials speaks first."""
        host, now_ms = self._host, self._driver.clock.now_ms
        if expected is not None:
            await websocket.send_bytes(host.hello(expected.replica, now_ms()))
        message = await websocket.receive()
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            if message.extra:
                raise ProtocolError(f"the peer refused this node: {message.extra}")
            raise ConnectionError("closed before a hello")
        if message.type is not WSMsgType.BINARY:
            raise ProtocolError(f"a connection begins with a hello, got {_describe(message)}")
        peer = host.check_hello(message.data)
        if expected is None:
            if peer.node > host.me.node:
                raise ProtocolError(f"{peer.node} dialed {host.me.node}: of a pair the smaller name dials")
            await websocket.send_bytes(host.hello(peer.replica, now_ms()))
        elif peer.replica != expected.replica:
            raise ProtocolError(f"{peer.node} answers where {expected.node} was expected")
        return peer

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

    # --- what is refused

    def _refuse(self, node: str, who: str, reason: str) -> None:
        self.refused[node] = self.refused.get(node, 0) + 1
        self.refused_connections += 1
        if self._once.is_new(who, reason):
            event(_log, logging.WARNING, "refused a peer", peer=who, reason=reason)

    def _on_rejected(self, rejected: Rejected) -> None:
        member = self._host.cluster.member(rejected.peer)
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


def _describe(message: aiohttp.WSMessage) -> str:
    if isinstance(message.data, aiohttp.WebSocketError):
        return str(message.data)
    return f"a {message.type.name.lower()} message"
