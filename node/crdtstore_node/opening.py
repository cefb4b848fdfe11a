"""Opening: a data directory becomes a node's, with the state that its checkpoint and its log hold, before there is an event loop.

The question: what is this node allowed to be? What the directory proves. An id that was taken just now, or that went on here for sure, is
gone on with. One that looks like its own is held still until peers were asked. What was restored, copied or put back may only be read,
under an id that no group knows, until the node has another id. A node alone in its cluster has nobody who could contradict, nor anybody
to join.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from secrets import randbits

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import PUT_BACK, DecodeError, ProtocolError, StorageError, UsageError
from crdtstore.host import Host
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.config import NodeConfig, load_cluster
from crdtstore_node.dialing import Seeds
from crdtstore_node.identity import (
    LOG_NAME,
    Anchor,
    Continuity,
    Verdict,
    anchor_places,
    check_continuity,
    check_identity,
    continue_identity,
    leave_identity,
    read_identity,
    take_identity,
)

__all__ = ["Opened", "leave"]

_MAY_LIVE = "unproven: "
"""What the reason begins with when the id that was left may be that of another directory, which goes on."""

_REMEDY = (
    "; it takes a new one as soon as it reaches a member. If no member is left, since all machines were moved, and this is the only copy "
    "of its data, and the newest: start it with --only-copy"
)


class Opened:
    """A data directory that is ours. Made before there is an event loop, or between two lives.

    ``has_left``: its id was taken just now, in place of another. ``seeds``: where members were in the life before. ``cluster``: instead of
    what the cluster file says.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        is_bootstrap: bool,
        is_vouched: bool = False,
        has_left: bool = False,
        seeds: Seeds | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """Take the directory.

        Raises:  UsageError, StorageError, ProtocolError or DecodeError with what is wrong with it; nothing changed.
        """
        self.config = config
        self.seeds = seeds
        self.places = anchor_places(os.environ)
        self.cluster: Cluster = cluster or load_cluster(Path(config.cluster_file))
        if self.cluster.workers != config.workers:
            raise UsageError(
                f"workers: {config.workers}, but the cluster file {config.cluster_file} says {self.cluster.workers}: the number is the "
                "same at all nodes of a cluster and never changes. Nothing changed."
            )
        self.data = Path(config.data)
        check_identity(self.data, self.cluster, config.node, is_bootstrap=is_bootstrap, joining=config.joining)
        self.log = SegmentedLog.open(self.data / LOG_NAME, config.log.segment_bytes)
        self.store: SqliteState | None = None
        try:
            self.me: Member
            self.me, self.is_new = self._take(is_bootstrap=is_bootstrap)
            self.store = SqliteState.open(self.data)
            self.host, self.recovered = self._recover(self.store)
            self.continuity = self._judge(is_new=self.is_new or has_left, is_vouched=is_vouched)
        except BaseException:
            if self.store is not None:
                self.store.close()
            self.log.close()
            raise

    def _take(self, *, is_bootstrap: bool) -> tuple[Member, bool]:
        config = self.config
        me, is_new = take_identity(
            self.data, self.cluster, config.node, is_bootstrap=is_bootstrap, joining=config.joining, places=self.places
        )
        return Member(me.replica, me.region, config.gossip_advertise or me.gossip), is_new

    def _recover(self, store: SqliteState) -> tuple[Host, int]:
        config, random_, data = self.config, random.SystemRandom(), self.data
        engine = config.engine
        try:
            identity = read_identity(data)
            assert identity is not None, "it was taken"
            source = identity.restored_from
            if source is None:
                host = Host(self.cluster, self.me, engine, random_, store, self.log.read)
            else:
                whose = self.cluster.member(ReplicaId(source.replica)) or Member(
                    ReplicaId(source.replica), self.me.region
                )
                host = Host(self.cluster, whose, engine, random_, store, self.log.read, self.me)
            host.workers.addresses = tuple(config.api_advertise)
            left = identity.left[-1] if identity.left else None
            if left is not None and not left.reason.startswith(_MAY_LIVE):
                host.roster.leaves = ReplicaId(left.replica)
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

    def _judge(self, *, is_new: bool, is_vouched: bool) -> Continuity:
        """Say what the directory proves, and let the host do no more than that allows."""
        host, position = self.host, self.log.position
        found = check_continuity(self.data, position, self.places, is_new=is_new, is_vouched=is_vouched)
        if found.must_leave and self._is_alone and not host.reads_only:
            found = Continuity(Verdict.SEALED, f"{found.reason}; there is no other member")
        if found.must_leave and not host.reads_only:
            host.me = Member(make_replica_id(self.me.node, randbits(64)), self.me.region, self.me.gossip)
        if found.must_leave or found.must_ask:
            remedy = _REMEDY if found.verdict is Verdict.UNPROVEN and not host.reads_only else ""
            host.unproven = f"this node may not write under its id: {found.reason}{remedy}"
            for engine in host.groups.values():
                engine.hold(True)
        return found

    @property
    def _is_alone(self) -> bool:
        founders = [member for member in self.cluster.members if member.node != self.config.node]
        others = [member for member in (*founders, *self.host.roster.peers) if member.worker == self.me.worker]
        return not (others or self.config.join)

    def go_on(self) -> Anchor | None:
        """Let this id go on here from now: before the first write.

        Raises:  StorageError when the disk failed.
        """
        host = self.host
        host.unproven = None
        for engine in host.groups.values():
            engine.hold(False)
        return continue_identity(self.data, host.me.replica, self.log.position, self.places)


def leave(opened: Opened, reason: str, *, may_live: bool) -> ReplicaId:
    """Give up the id of a directory whose log and state are closed; return the new one. ``may_live``: another directory may have the old
    one.

    Raises:  StorageError; the next start finishes what was begun.
    """
    with SegmentedLog.open(opened.data / LOG_NAME, opened.config.log.segment_bytes):
        return leave_identity(opened.data, f"{_MAY_LIVE if may_live else ''}{reason}", opened.places)
