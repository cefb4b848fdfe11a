"""A node: configuration, identity, log, state store, service, driver, gossip and API, put together and taken apart in order.

The question: in which order does a node end? It stops taking requests and finishes those it has, which needs the disk; then it tells its
peers farewell; then log and state store are closed. It starts the other way round, and nobody reaches it before its state is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from pathlib import Path
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import PUT_BACK, CrdtStoreError, DecodeError, ProtocolError, StorageError, Unavailable, UsageError
from crdtstore.host import Host
from crdtstore.service import Service
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.api.handler import Handler
from crdtstore_node.api.server import Server, check_parser
from crdtstore_node.clock import WallClock
from crdtstore_node.config import Address, NodeConfig, load_cluster
from crdtstore_node.driver import Driver
from crdtstore_node.identity import LOG_NAME, read_identity, take_identity
from crdtstore_node.logs import event
from crdtstore_node.metrics import Metrics
from crdtstore_node.storage_status import storage_status
from crdtstore_node.transport import Transport

__all__ = ["Node", "Opened"]

_log = logging.getLogger(__name__)


class Opened:
    """A data directory that is ours, with the state its checkpoint and its log hold. Made before there is an event loop."""

    def __init__(self, config: NodeConfig, *, is_bootstrap: bool) -> None:
        """Take the directory.

        Raises:  UsageError, StorageError, ProtocolError or DecodeError with what is wrong with it; nothing changed.
        """
        self.config = config
        self.cluster: Cluster = load_cluster(Path(config.cluster_file))
        _check_peers(config, self.cluster)
        data = Path(config.data)
        if not is_bootstrap:
            take_identity(data, self.cluster, config.node, is_bootstrap=False)
        self.log = SegmentedLog.open(data / LOG_NAME, config.log.segment_bytes)
        self.store: SqliteState | None = None
        try:
            self.me: Member
            self.me, self.is_new = take_identity(data, self.cluster, config.node, is_bootstrap=is_bootstrap)
            self.store = SqliteState.open(data)
            self.host, self.recovered = self._recover(data, self.store)
        except BaseException:
            if self.store is not None:
                self.store.close()
            self.log.close()
            raise

    def _recover(self, data: Path, store: SqliteState) -> tuple[Host, int]:
        engine, random_ = self.config.engine, random.SystemRandom()
        try:
            identity = read_identity(data)
            source = identity.restored_from if identity is not None else None
            if source is None:
                host = Host(self.cluster, self.me.replica, engine, random_, store, self.log.read)
            else:
                host = Host(self.cluster, ReplicaId(source.replica), engine, random_, store, self.log.read, self.me)
            return host, host.recover(self.log.replay(host.needed))
        except StorageError as error:
            if "file" in error.more:
                raise
            remedy = "" if PUT_BACK in error.detail else f". {PUT_BACK}"
            raise StorageError(f"{data}: {error.detail.removesuffix('.')}{remedy}.", file=str(data)) from error
        except (ValueError, ProtocolError, DecodeError) as error:
            raise StorageError(
                f"{data}: what is stored does not fit the cluster file: {str(error).removesuffix('.')}. Start it with the cluster "
                "file that it ran with. Nothing changed."
            ) from error


def _check_peers(config: NodeConfig, cluster: Cluster) -> None:
    nodes = [member.node for member in cluster.members]
    for node in config.peers:
        if node not in nodes:
            raise UsageError(
                f"peers.{node}: there is no such node in the cluster file; there are {', '.join(nodes)}. Nothing changed."
            )


class Node:
    """A running node. Mutable; ``failed`` is set when its service failed and it has to be stopped."""

    host: Host
    log: SegmentedLog
    store: SqliteState
    driver: Driver
    transport: Transport
    handler: Handler
    server: Server

    def __init__(self, opened: Opened) -> None:
        check_parser()
        self.config = opened.config
        self.host = opened.host
        self.log = opened.log
        assert opened.store is not None
        self.store = opened.store
        unsaved_bytes = opened.config.state.unsaved_bytes
        self.driver = Driver(Service(opened.host), opened.log, WallClock(), opened.store, unsaved_bytes)
        self.transport = Transport(self.driver, opened.config)
        self.handler = Handler(self.driver, self, opened.config.http)
        self.server = Server(self.handler, opened.config.http)
        self.metrics_page = Metrics(self)
        self.is_leaving = False
        self.failed = asyncio.Event()
        self.driver.crashed = self.failed.set
        self.recovered = opened.recovered
        self.api = self.gossip = Address("", 0)

    async def start(self) -> None:
        """Listen, connect, serve.

        Raises:  StorageError naming the address that cannot be had; nothing is left listening.
        """
        self.driver.start()
        try:
            if not self.host.reads_only:  # its id is no member's: it has nothing to say, and nobody would hear it
                self.gossip = await _listen(self.transport, self.config.gossip_address, "gossip")
                self.transport.dial()
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
        if self.host.reads_only:
            event(_log, logging.WARNING, "restored from a backup and not joined: reads only", source=self.host.replica)

    async def stop(self) -> None:
        """Finish what is in flight, close everything."""
        self.is_leaving = True
        await self.server.stop()
        await self.transport.stop()
        await self.driver.stop()
        self.log.close()
        self.store.close()
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
        if self.host.reads_only:
            return Unavailable(
                f"restored from a backup of {self.host.replica}, has not joined the cluster: serves reads only.",
                code="identity-unproven",
            )
        fenced = [group for group, engine in self.host.groups.items() if engine.is_fenced]
        if fenced:
            return Unavailable(
                f"fenced in {', '.join(fenced)}: a peer holds writes under this id that this node does not have.",
                code="fenced",
                retry_after=5.0,
            )
        damage = None if self.host.saving is None else self.host.saving.scrub.failure
        if damage is not None:  # a row that vanished reads as absent
            return Unavailable(
                f"what is on disk is damaged: {damage.detail}. Reads and writes go on.", code="storage-failed"
            )
        return None

    def metrics(self) -> tuple[str, bytes]:
        return self.metrics_page.render()


async def _listen(listener: Transport | Server, address: Address, what: str) -> Address:
    try:
        return await listener.listen(address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"{what}: cannot listen at {address}: {why}", code="not-ready") from error
