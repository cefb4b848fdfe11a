"""The observer of changing members: turns what each engine keeps in its own order into the one order of lives, and tells the checkers.

The question: by which order are vectors compared? By that of all lives of all machines, in which each has its place before it begins.
An engine keeps replicas in the order in which it heard of them, a message in that of its configuration; both are turned here, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from msgspec.msgpack import decode

from crdtstore.causal import ReplicaId
from crdtstore.commit import head_of
from crdtstore.configuration import Configuration, ConfigurationId
from crdtstore.engine.engine import Engine
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Entry
from crdtstore_sim.checkers.among_members import (
    ReceiptsAmongMembers,
    StabilityAmongMembers,
    StampsAmongMembers,
    StoresAmongMembers,
)
from crdtstore_sim.checkers.configurations import Configurations, leads_to
from crdtstore_sim.checkers.durability import listen
from crdtstore_sim.checkers.finals import Finals
from crdtstore_sim.checkers.orphans import Orphans
from crdtstore_sim.checkers.survival import Survival
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.observer import Observer
from crdtstore_sim.reader import Roster

__all__ = ["Watch"]

MAY_BE_REFUSED = frozenset(("fenced", "identity-unproven", "leaving", "membership-changed", "token-lost"))
"""What users may be told where members change, beside what they are told anyway."""


class Watch(Observer):
    """Mutable. A *life* is the place of a replica in vectors; ``outside`` are those whose disk was lost or put back."""

    def __init__(self, facts: Facts, random: Random) -> None:
        super().__init__(facts, random)
        self.outside: set[int] = set()
        """Lives of which more was forgotten than a crash takes: nobody may rely on what they say they have."""
        self.stability: StabilityAmongMembers = StabilityAmongMembers(facts, self.judged)
        self.receipts = ReceiptsAmongMembers(facts, self.judged, self.members)
        self.stamps = StampsAmongMembers(facts, self.judged)
        self.stores = StoresAmongMembers(facts, self.judged)
        self.configurations = Configurations(facts)
        self.finals = Finals(facts)
        self.survival = Survival(facts, self.durability)
        self.orphans = Orphans(facts, self.durability)
        self.may_go: Callable[[str], bool] = lambda replica: True
        """Whether somebody leaves, or is gone; the run knows."""
        self._installed: set[tuple[int, str]] = set()
        self._orders: dict[tuple[int, str], tuple[list[ReplicaId], list[int]]] = {}
        self._seen: dict[tuple[int, str], Configuration] = {}
        """What each node goes by."""
        self._told: dict[tuple[int, str], ConfigurationId] = {}
        """What of that is durable there."""
        self._returned: set[int] = set()
        """Lives that go on from a copy, until they have started."""

    # --- lives

    def begin(self, life: int, replica: ReplicaId, region: str) -> None:
        """A machine takes an id."""
        facts = self.facts
        facts.members[life] = replica
        facts.regions[life] = region
        facts.index[replica] = life
        for group in facts.groups.values():
            group.rosters[life] = Roster(replica)

    def begin_copy(self, life: int, of: int) -> None:
        """A second process begins under the id of another one."""
        self.facts.members[life] = f"{self.facts.members[of]} (copy)"
        self.facts.regions[life] = self.facts.regions[of]
        self.outside.add(life)
        self._returned.add(life)

    def lose(self, life: int) -> None:
        """A disk is gone for good, or is not what it was."""
        self.outside.add(life)

    def put_back(self, life: int) -> None:
        """A disk is what it was earlier, and its replica goes on from there."""
        self.configurations.forget(life)
        self.outside.add(life)
        self._returned.add(life)

    def members(self, node: int, name: str) -> list[int]:
        """The members of a node's configuration."""
        mine = self._seen.get((node, name))
        return [] if mine is None else [self.facts.index[replica] for replica in mine.ids]

    def judged(self, node: int, name: str) -> list[int]:
        """The members of a node's configuration that hold the state of its line and have forgotten nothing."""
        mine = self._seen.get((node, name))
        if mine is None:
            return []
        found = []
        for replica in mine.ids:
            life = self.facts.index[replica]
            if (life, name) in self._installed and life not in self.outside:
                theirs = self._seen[life, name]
                if theirs is mine or leads_to(theirs, mine) or leads_to(mine, theirs):
                    found.append(life)
        return found

    def is_installed(self, node: int, name: str) -> bool:
        return (node, name) in self._installed

    def configuration(self, node: int, name: str) -> Configuration | None:
        """What a node goes by."""
        return self._seen.get((node, name))

    # --- orders

    def order(self, node: int, engine: Engine) -> list[int]:
        """Per index in the engine's memory the life."""
        known = self._orders.get((node, engine.group))
        replicas = engine.replicas
        if known is None or known[0] is not replicas or len(known[1]) != len(replicas):
            index = self.facts.index
            known = self._orders[node, engine.group] = replicas, [index[replica] for replica in replicas]
        return known[1]

    def spread(self, node: int, engine: Engine, vector: Sequence[int]) -> list[int]:
        """A vector of an engine in the order of lives."""
        spread = [0] * len(self.facts.members)
        for life, seq in zip(self.order(node, engine), vector, strict=False):
            spread[life] = seq
        return spread

    # --- what a step did

    def on_applied(self, node: int, entries: Sequence[Entry], engines: dict[str, Engine], *, has_between: bool) -> None:
        facts, index = self.facts, self.facts.index
        touched: dict[str, Group] = {}
        for name, origin_name, data in entries:
            if not name or not origin_name or (node, name) not in self._installed:  # notes, and the past of others
                continue
            group = touched.get(name)
            if group is None:
                group = touched[name] = facts.group(name)
            origin = index[origin_name]
            if node == origin and node in self.outside:
                self._make_anew(group, node, data)
            is_new = len(group.records[origin])
            record = self.dots.read_next(group, node, origin, data)
            if record is None:
                continue
            self.causality.on_commit(group, node, record)
            self.stability.on_commit(group, node, record)
            self.finals.on_commit(group, node, record, self._seen.get((node, name)))
            if len(group.records[origin]) > is_new:
                self.stamps.on_made(group, node, record)
                self.bounds.on_made(group, record, facts.note_made(group, record))
            facts.note_applied(group, node, record)
            if has_between:
                group.moments[node].append((facts.now_us(), tuple(group.applied[node])))
        now_us = facts.now_us()
        for name, group in touched.items():
            group.moments[node].append((now_us, tuple(group.applied[node])))
            self._compare(group, node, engines[name])

    def _make_anew(self, group: Group, node: int, data: bytes) -> None:
        """One whose disk was put back makes a commit: what it had made before under that number never was, if nobody has it."""
        records, at = group.records[node], group.applied[node][node]
        is_other = at < len(records) and records[at].data != data
        if is_other and all(applied[node] <= at for applied in group.applied):
            group.forget(node, at)

    def _compare(self, group: Group, node: int, engine: Engine) -> None:
        """The engine's books and the observer's agree."""
        says = self.spread(node, engine, engine.applied)
        if says != group.applied[node]:
            self.facts.report(
                "dots",
                f"{group.name}: {self.facts.members[node]} says it applied {says}, it wrote {group.applied[node]}",
            )
            group.applied[node] = says  # say it once
        self.convergence.on_step(group, node, engine)

    def on_stepped(self, node: int, engines: dict[str, Engine]) -> None:
        for name, engine in engines.items():
            at = node, name
            if engine.membership.is_installed and at not in self._installed:
                self._on_installed(node, engine)
            if engine.configuration is not self._seen.get(at):
                self._on_adopted(node, engine)
            self._told[at] = engine.membership.told
            if at in self._installed and node not in self.outside:
                self.stability.on_stepped(self.facts.groups[name], node, engine, self.order(node, engine))

    def _on_installed(self, node: int, engine: Engine) -> None:
        """From now on it holds the state: with what it took over."""
        name = engine.group
        self._installed.add((node, name))
        group = self.facts.group(name)
        vector = self.spread(node, engine, engine.applied)
        durable = self.spread(node, engine, engine.durability.vector)
        self._hold_to_what_was_made(group, node, vector)
        group.applied[node], group.durable[node] = vector, durable
        group.moments[node] = [(self.facts.now_us(), tuple(vector))]
        self.convergence.on_step(group, node, engine)

    def _hold_to_what_was_made(self, group: Group, node: int, vector: Sequence[int]) -> None:
        for origin, seq in enumerate(vector):
            if seq > len(group.records[origin]):
                made = f"{self.facts.members[origin]} made {len(group.records[origin])}"
                self.facts.report("dots", f"{group.name}: {self.facts.members[node]} holds {seq} commits of it; {made}")

    def _on_adopted(self, node: int, engine: Engine) -> None:
        at, configuration = (node, engine.group), engine.configuration
        before, self._seen[at] = self._seen.get(at), configuration
        is_free = node in self.outside or at not in self._installed
        self.configurations.on_adopted(node, engine.group, before, configuration, is_free=is_free, may_go=self.may_go)
        is_member = configuration.member(engine.replicas[engine.me]) is not None
        if at in self._installed and node not in self.outside and is_member:
            group = self.facts.group(engine.group)
            self.finals.on_adopted(group, node, configuration, group.applied[node])

    def on_send(self, node: int, data: bytes) -> None:
        if node in self.outside:
            return
        message: Any = listen(data)
        group = self.facts.groups.get(message.group) if message is not None else None
        if group is None or not hasattr(message, "configuration"):
            return
        named = ConfigurationId(*decode(message.configuration, type=tuple[int, bytes]))
        configuration = self.configurations.of(message.group, named)
        if configuration is None:
            return
        index = self.facts.index
        lives = [index[replica] for replica in configuration.origins]
        durable = group.durable[node]
        if hasattr(message, "segments"):
            self.durability.on_frame(group, node, message, durable, lives)
            return
        says = dict(zip(lives, message.row.vector, strict=False))
        self.durability.on_row(group, node, list(says.values()), [durable[life] for life in says])
        if node in says:
            self.stamps.on_heartbeat(group, node, says[node], message.row.hlc)

    def on_refused(self, node: int, error: CrdtStoreError, types: Iterable[str] = ()) -> None:
        is_short_of_regions = error.detail.startswith("regions says how many")  # who asked had counted more members
        if error.code not in MAY_BE_REFUSED and not is_short_of_regions:
            super().on_refused(node, error, types)

    def _on_shown(self, session: int, group: Group, node: int, body: dict[str, Any]) -> None:
        if "identity" not in body:  # who has forgotten, or was removed, says so: it keeps no promise to sessions
            super()._on_shown(session, group, node, body)

    def on_rejected(self, node: int, peer: str, reason: str, engines: dict[str, Engine]) -> None:
        """Honest nodes refuse each other only while copies are about."""

    # --- disks and crashes

    def on_synced(self, node: int, entries: list[Entry]) -> None:
        index, groups = self.facts.index, self.facts.groups
        for name, origin, data in entries:
            if name and origin and (node, name) in self._installed:
                durable, at = groups[name].durable[node], index[origin]
                durable[at] = max(durable[at], head_of(data)[0])

    def on_crash(self, node: int, survived: list[list[Entry]]) -> None:
        kept = [
            [entry for entry in entries if entry.group and entry.origin and (node, entry.group) in self._installed]
            for entries in survived
        ]
        self.facts.note_crash(node, kept)
        if node not in self.outside:
            self.durability.on_crash(node)
            self.receipts.on_crash(node)
        self.convergence.forget()
        self.stability.forget(node)
        for (life, name), told in self._told.items():
            known = self.configurations.of(name, told) if life == node else None
            if known is not None:
                self._seen[node, name] = known

    def on_recovered(self, node: int, engines: dict[str, Engine]) -> None:
        is_returned = node in self._returned
        self._returned.discard(node)
        if is_returned:
            self._recover_books(node, engines)
        self._installed -= {(node, name) for name, each in engines.items() if not each.membership.is_installed}
        for name, group in self.facts.groups.items():
            engine = engines.get(name)
            if (node, name) not in self._installed:
                continue
            if engine is None:
                self.durability.on_recovered(group, node, [0] * len(self.facts.members))
                self._installed.discard((node, name))
                continue
            applied = self.spread(node, engine, engine.applied)
            self.durability.on_recovered(group, node, applied)
            self.convergence.on_step(group, node, engine)
            self.convergence.on_scrub(group, node, engine)
        if not is_returned:
            self.restarts.on_recovered(node, engines)
        self.on_stepped(node, engines)

    def _recover_books(self, node: int, engines: dict[str, Engine]) -> None:
        """A disk was put back: the books say what it holds now."""
        for name, group in self.facts.groups.items():
            self._installed.discard((node, name))
            self._seen.pop((node, name), None)
            self._orders.pop((node, name), None)
            group.applied[node] = [0] * len(self.facts.members)
            group.durable[node] = [0] * len(self.facts.members)
            engine: Engine | None = engines.get(name)
            if engine is None or not engine.membership.is_installed:
                continue
            self._installed.add((node, name))
            vector = self.spread(node, engine, engine.applied)
            group.applied[node], group.durable[node] = vector, list(vector)
            group.moments[node] = [(self.facts.now_us(), tuple(vector))]

    # --- whole readings

    def look_around(self, node: int, host: Host, state: MemoryState) -> None:
        engines = {name: engine for name, engine in host.groups.items() if (node, name) in self._installed}
        if len(engines) == len(host.groups):
            self.stores.on_look(node, host, state)
        for name in sorted(engines):
            group = self.facts.groups[name]
            self.convergence.on_scrub(group, node, engines[name])
            if group.keys:
                at = self._random.choice(list(group.keys))
                self._look(group, node, *at, engines[name])
                self.stability.on_fold(group, node, engines[name], at)

    def look_at_all(self, group: Group, node: int, engine: Engine) -> None:
        """Everything, at the end."""
        self.convergence.on_step(group, node, engine)
        self.convergence.on_scrub(group, node, engine)
        for collection, key in list(group.keys):
            self._look(group, node, collection, key, engine)
