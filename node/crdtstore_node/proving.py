"""Proving an id: before a node writes under an id that only looks like its own, its peers are asked; one that has none looks for a member.

The question: when has nobody contradicted? When every peer was reached and found nothing against us, or ``identity_wait_ms`` have passed
and none of those who were reached did. A peer contradicts when it remembers of us what we do not, or when it is connected with
somebody who answers under our id. All nodes of a cluster may start at once, after a power failure: those who wait themselves answer hellos,
and close.

A directory that was copied, restored or put back must not say a word under the id it has. Its node looks for a member that could let it in,
under an id that nobody knows and saying of no group what it holds; only when there is one it gives up what it had, for until then it is
the only one who serves reads here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import WSMsgType

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.errors import CrdtStoreError
from crdtstore.messages import MAX_MESSAGE_BYTES, Hello, decode_message, encode_message
from crdtstore_node.config import Address
from crdtstore_node.dialing import Target
from crdtstore_node.links import close
from crdtstore_node.logs import event
from crdtstore_node.transport import CONNECTED_ALREADY, WAITS, WANTED

if TYPE_CHECKING:
    from crdtstore_node.node import Node

__all__ = ["ask_peers", "find_member"]

_log = logging.getLogger(__name__)
_AFTERWARDS_S = 1.5
"""So long after the hellos a peer may find that it has a connection under our id."""
_SEEK_S = 1.0


async def ask_peers(node: Node, wait_ms: int) -> str:
    """Return when this node may go on under its id, with what says so; when it may not, its host is fenced."""
    targets = list(node.transport.dialers.known().values())
    reached = node.transport.reached
    wanted = {target.replica for target in targets}
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(wait_ms / 1000),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for target in targets:
                tasks.create_task(_ask(node, session, target, reached))
    if wanted <= reached:
        return "all peers were asked, and none contradicted" if wanted else "there is no other member"
    return f"within {wait_ms} ms no peer contradicted, and {len(wanted & reached)} of {len(wanted)} were reached"


async def _ask(node: Node, session: aiohttp.ClientSession, target: Target, reached: set[ReplicaId | None]) -> None:
    """Say hello to one peer until it has answered, or has said hello itself."""
    host, options, turn = node.host, node.config.links, 0
    while target.replica not in reached and host.fenced_by is None:
        address = target.addresses[turn % len(target.addresses)]
        turn += 1
        words = host.hello(target.replica, node.driver.clock.now_ms())
        answer, code = await _say(session, address, words, target.replica, options.connect_timeout_ms)
        if code == CONNECTED_ALREADY:
            host.fence(f"{target.name} is connected with another node under this id")
        elif answer is not None:
            try:
                peer = host.check_hello(answer)
                reached.add(peer.replica)
                reached.add(target.replica)
            except CrdtStoreError as error:
                event(_log, logging.WARNING, "a peer was asked and did not agree", peer=target.name, why=error.detail)
        await asyncio.sleep(options.retry_least_ms / 1000)


async def find_member(node: Node) -> None:
    """Return when somebody was reached who could let this node in."""
    host, options, dialers = node.host, node.config.links, node.transport.dialers
    hello = decode_message(host.hello(None, node.driver.clock.now_ms()))
    assert isinstance(hello, Hello)
    hello.groups = {}
    words = encode_message(hello)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        while True:
            for target in [*dialers.seeds().values(), *dialers.known().values()]:
                for address in target.addresses:
                    answer, _ = await _say(session, address, words, None, options.connect_timeout_ms)
                    if answer is not None and _is_of_member(answer, host.cluster.nonce):
                        return
            await asyncio.sleep(min(_SEEK_S, options.retry_most_ms / 1000))


def _is_of_member(answer: bytes, cluster: bytes) -> bool:
    with suppress(CrdtStoreError):
        hello = decode_message(answer)
        if isinstance(hello, Hello) and hello.cluster == cluster:
            standing = hello.groups.get(SYSTEM_GROUP)
            return standing is not None and bool(standing.vector)
    return False


async def _say(
    session: aiohttp.ClientSession, address: Address, words: bytes, wanted: ReplicaId | None, timeout_ms: int
) -> tuple[bytes | None, int | None]:
    """Say hello at an address: what was answered, and with which code the peer closed the connection, if it did."""
    answer: bytes | None = None
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            socket = await session.ws_connect(
                f"http://{address}/gossip",
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
                headers={} if wanted is None else {WANTED: wanted},
            )
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None, None
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await socket.send_bytes(words)
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                answer = message.data
        if wanted is not None and answer is not None:  # it may have another connection under our id
            async with asyncio.timeout(_AFTERWARDS_S):
                await socket.receive()
    except (TimeoutError, ConnectionError, RuntimeError):
        pass
    code = socket.close_code
    await close(socket, WAITS, "waits for a proof of its id")
    return answer, code
