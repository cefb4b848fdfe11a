"""A node: configuration, identity, log, state store, service, driver, gossip and API, put together and taken apart in order.

The question: in which order does a node end? It stops taking requests and finishes those it has, which needs the disk; then it tells its
peers farewell; then log and state store are closed. It starts the other way round, and nobody reaches it before its state is back. A node
that has to give up its id ends too; ``lives`` starts the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from crdtstore.errors import CrdtStoreError, StorageError, Unavailable
from crdtstore.host import Host
from crdtstore.service import Service
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.api.handler import Handler
from crdtstore_node.api.server import Server, check_parser
from crdtstore_node.clock import WallClock
from crdtstore_node.config import Address
from crdtstore_node.driver import Driver
from crdtstore_node.identity import Anchor
from crdtstore_node.logs import event
from crdtstore_node.metrics import Metrics
from crdtstore_node.opening import Opened
from crdtstore_node.orphans import LeftLives
from crdtstore_node.proving import ask_peers, find_member
from crdtstore_node.standing import why_not_member
from crdtstore_node.storage_status import storage_status
from crdtstore_node.story import Story
from crdtstore_node.transport import Transport
from crdtstore_node.watch import Watch

__all__ = ["Node", "Opened"]

_log = logging.getLogger(__name__)


class Node:
    """A running node. Mutable; ``failed`` is set when its service failed and it has to be stopped."""

    host: Host
    log: SegmentedLog
    store: SqliteState
    driver: Driver
    transport: Transport
    handler: Handler
    server: Server

    def __init__(self, opened: Opened, story: Story | None = None) -> None:
        """``story`` goes on over all ids that the node has in this process."""
        check_parser()
        self.opened = opened
        self.story = story or Story()
        self.config = opened.config
        self.host = opened.host
        self.log = opened.log
        assert opened.store is not None
        self.store = opened.store
        unsaved_bytes = opened.config.state.unsaved_bytes
        self.driver = Driver(Service(opened.host), opened.log, WallClock(), opened.store, unsaved_bytes)
        self.driver.rejoin = self.end
        self.left = LeftLives(opened.data)
        self.driver.service.administration.orphaned.left = self.left
        self.transport = Transport(self.driver, opened.config, opened.seeds)
        self.handler = Handler(self.driver, self, opened.config.http)
        self.server = Server(self.handler, opened.config.http)
        self.metrics_page = Metrics(self)
        self.is_leaving = False
        self.failed = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_by = ""
        """Why it has to give up its id."""
        self.driver.crashed = self.failed.set
        self.recovered = opened.recovered
        self.api = self.gossip = Address("", 0)
        self._watch = Watch(self)
        self._proving: asyncio.Task[None] | None = None
        self._anchor: Anchor | None = None
        self.has_gone_on = False
        """Whether this id went on here: nobody else can have it, then."""

    async def start(self) -> None:
        """Listen, connect, serve.

        Raises:  StorageError naming the address that cannot be had; nothing is left listening.
        """
        continuity = self.opened.continuity
        waits = continuity.must_leave or (continuity.must_ask and self.config.identity_wait_ms > 0 and self._has_peers)
        try:
            if not waits:
                self._go_on(continuity.reason)
            if not continuity.must_leave:  # else its id may be another's: nobody is to hear it
                self.transport.is_asking = waits
                self.gossip = await _listen(self.transport, self.config.gossip_address, "gossip")
            self.api = await _listen(self.server, self.config.api_address, "api")
        except BaseException:
            await self.stop()
            raise
        event(
            _log,
            logging.INFO,
            "serving",
            api=str(self.api),
            gossip=str(self.gossip),
            replica=self.host.me.replica,
            recovered=self.recovered,
            cut=self.log.torn,
        )
        self._check_peers()
        if waits:
            self.story.tell("unproven", replica=self.host.replica, why=continuity.reason)
            self._proving = asyncio.ensure_future(self._prove())
        else:
            self.transport.dial()
        self._watch.start()
        self.left.start(self.host)

    def _check_peers(self) -> None:
        """A misspelt name would be dialed nowhere; one that joins later cannot be known."""
        roster = self.host.roster
        known = {member.node for member in (*self.host.cluster.members, *roster.members, *roster.peers)}
        unknown = sorted(self.config.peers.keys() - known)
        if unknown:
            what = "the configuration says where to dial nodes that are not known"
            event(_log, logging.WARNING, what, peers=unknown, known=sorted(known))

    @property
    def _has_peers(self) -> bool:
        return bool(self.host.roster.peers)

    def _go_on(self, proof: str) -> None:
        """Write under this id from now on."""
        self._anchor = self.opened.go_on()
        self.has_gone_on = True
        self.driver.keep(self._anchor)
        self.driver.start()
        self.story.tell("continued", replica=self.host.me.replica, proof=proof, is_anchored=self._anchor is not None)

    async def _prove(self) -> None:
        """Find out whether this node may go on under its id."""
        try:
            if self.opened.continuity.must_leave:
                await find_member(self)
                self.end(self.opened.continuity.reason)
                return
            proof = await ask_peers(self, self.config.identity_wait_ms)
            if self.host.fenced_by is None:
                self.transport.is_asking = False
                self._go_on(proof)
                self.transport.dial()
        except Exception:
            _log.exception("this node could not find out whether it may go on under its id")
            self.failed.set()

    def end(self, reason: str) -> None:
        """This node has to give up its id, and to join under a new one."""
        if not self.ended.is_set():
            self.ended_by = reason
            self.ended.set()

    async def stop(self) -> None:
        """Finish what is in flight, close everything."""
        self.is_leaving = True
        if self._proving is not None:
            self._proving.cancel()
            await asyncio.gather(self._proving, return_exceptions=True)
        await self._watch.stop()
        await self.left.stop()
        await self.server.stop()
        await self.transport.stop()
        await self.driver.stop()
        self.log.close()
        self.store.close()
        if self._anchor is not None:
            self._anchor.close()
        event(_log, logging.INFO, "stopped")

    # --- what it says of itself

    def status(self) -> dict[str, Any]:
        """The body of ``GET /v1/status``."""
        status = self.driver.service.status(self.driver.clock.now_ms())
        error = self.why_not_ready()
        if error is not None:
            status["ready"], status["why"] = False, error.detail
        status["storage"] = storage_status(self)
        measured = self.transport.peers()
        for peer in status["peers"]:
            link = measured.get(peer["node"])
            peer["round_trip_ms"] = None
            if link is not None:
                peer.update(link)
        return status

    def why_not_ready(self) -> CrdtStoreError | None:
        """Why requests had better go to another region; None when they may come."""
        if self.is_leaving:
            return Unavailable("this node stops.", code="leaving", retry_after=1.0)
        if self.driver.is_crashed:
            return Unavailable("this node failed and stops; its log says why.", code="not-ready", retry_after=1.0)
        why = self.driver.why_no_writes
        if why is not None:
            code = why.code if why.code == "storage-full" else "storage-failed"
            return Unavailable(f"{why.detail}. Reads go on.", code=code, retry_after=5.0)
        not_member = why_not_member(self)
        if not_member is not None:
            return not_member
        damage = None if self.host.saving is None else self.host.saving.scrub.failure
        if damage is not None:  # a row that vanished reads as absent
            return Unavailable(
                f"what is on disk is damaged: {damage.detail}. Reads and writes go on.", code="storage-failed"
            )
        return None

    async def prepare_orphans(self, asked: dict[str, Any]) -> None:
        """Read what earlier ids of this directory left, as far as a request about it needs."""
        await self.left.prepare(self.host, asked)

    def metrics(self) -> tuple[str, bytes]:
        return self.metrics_page.render()


async def _listen(listener: Transport | Server, address: Address, what: str) -> Address:
    try:
        return await listener.listen(address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"{what}: cannot listen at {address}: {why}", code="not-ready") from error
