"""Recovering: how a node takes in what its log holds, before anything else happens.

The question: what of a log counts? The checkpoint says which groups are held and what of them; the log goes on from there. Notes say who
is a member, also of groups of which nothing is held yet. Commits of an install that came to nothing are passed over, and so is what stands
below the place where an install began that did succeed.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.engine import Engine
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.promises import NOTE_GROUP
from crdtstore.storage.protocol import NO_ORIGIN, Entry

if TYPE_CHECKING:
    from crdtstore.host import Host

__all__ = ["Recovering"]


class Recovering:
    """The start of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def take_all(self, records: Iterable[tuple[int, list[Entry]]]) -> int:
        """Take in what the log holds, each record with its position, before the first event; return how many
        commits the checkpoint did not hold.

        Raises:  ProtocolError or DecodeError when the log belongs to other groups or members, StorageError when it does not hold what
                 the checkpoint stands on, or something cannot be read.
        """
        host = self._host
        count = sum([self._take_record(position, entries) for position, entries in records])
        host.promises.start()
        for engine in host.groups.values():
            engine.replay.finish()
            engine.clock.last = max(engine.clock.last, host.promises.begin)
        system = host.groups[SYSTEM_GROUP]
        if system.is_installed and system.configuration.number:  # it may just have been taken over
            host.open_declared(host.declarations.domains())
        return count

    def _take_record(self, position: int, entries: list[Entry]) -> int:
        """Take in a record of the log; return how many of its commits no checkpoint held."""
        host = self._host
        count = 0
        touched: dict[str, Engine] = {}
        for (group, origin), some in groupby(entries, itemgetter(0, 1)):
            logged = list(some)
            if group == NOTE_GROUP:
                for entry in logged:
                    host.promises.recover(entry.data)
                continue
            if origin == NO_ORIGIN:
                for entry in logged:
                    host.roster.recover(group, entry.data)
                self._check_held(group)
                continue
            engine = self._logged_group(group, origin, position)
            if engine is None:
                continue
            commits = engine.replay.take_all(engine.replicas.index(origin), [entry[2] for entry in logged])
            touched[group] = engine
            count += len(commits)
            if commits and host.saving is not None:
                host.saving.noted(logged[-len(commits) :])
            if commits and engine is host.groups[SYSTEM_GROUP]:
                host.on_declared(commits)
        for engine in touched.values():
            engine.replay.placed(position)
        if host.saving is not None:
            host.saving.retention.logged(position)
        return count

    def _check_held(self, group: str) -> None:
        """A note says that this group was installed: then a checkpoint says so too, which was there before."""
        host = self._host
        engine = host.groups.get(group)
        if engine is not None and engine.is_installed and engine.checkpoint is None and host.saving is not None:
            raise StorageError(
                f"{group}: its state was taken over from others, and no checkpoint here holds it any more. Nothing changed."
            )

    def _logged_group(self, group: str, origin: ReplicaId, position: int) -> Engine | None:
        """The group to which commits in the log belong; None: they are of an install that came to nothing."""
        host = self._host
        engine = host.groups.get(group)
        if engine is None:
            if host.needed:  # what opened it may be cut off; it was not installed, or the checkpoint would name it
                return None
            raise ProtocolError(f"the log holds the group {group}, which is not declared before it")
        begins = 0 if engine.checkpoint is None else engine.checkpoint.begins
        if not engine.is_installed or position < begins:
            return None
        if origin not in engine.replicas:
            raise ProtocolError(f"the log holds commits of {origin} in {group}, which is not a member")
        return engine
