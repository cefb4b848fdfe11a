"""The operator: what people order while trouble lasts, and how they put things right once it is over.

The question: what may an operator do that the store does not do by itself? Say who is gone for good, force those that are left to go on
when they are too few to decide, and say which of two lines goes on after that. Everything else must come about without him.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from crdtstore.causal import Dot
from crdtstore.configuration import SYSTEM_GROUP, Configuration
from crdtstore.engine.engine import Engine
from crdtstore.engine.membership.changes import forced
from crdtstore_sim.checkers.configurations import leads_to
from crdtstore_sim.facts import Group
from crdtstore_sim.regroup.place import Life

if TYPE_CHECKING:
    from crdtstore_sim.regroup.world import World

__all__ = ["Steward"]

_PATIENCE = 6
"""So often he looks at members who are too few before he forces them."""


class Steward:
    """Mutable: how long what he looks at has been so."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.is_lost = False
        """Whether nobody is left who holds the state."""
        self._stuck = 0
        self._has_forced = False
        self._comes_back = random.random() < 0.5
        """Whether machines that were removed are told to join again."""

    # --- orders

    def evict(self, at: Life, replicas: Sequence[str]) -> None:
        """Throw members out, at a machine that is one."""
        if replicas:
            at.evict(replicas)

    def force(self, at: Life, kept: Sequence[Life]) -> None:
        """Let those go on that are kept, in all groups; refused unless what they go by lies on one line."""
        found: dict[str, Configuration] = {}
        ids = {life.replica for life in kept}
        for name, engine in sorted(at.host.groups.items()):
            theirs = [life.host.groups[name].configuration for life in kept if name in life.host.groups]
            top = max(theirs, key=lambda each: each.number)
            if not all(leads_to(each, top) for each in theirs):
                return
            if engine.membership.is_installed and at.replica in top.ids:
                found[name] = forced(top, ids, self._random.randbytes(16))
        if SYSTEM_GROUP not in found:
            return
        self._has_forced = True
        self._world.count("forced")
        for name, configuration in found.items():
            at.force(name, configuration)

    # --- in the end

    def _groups(self) -> list[str]:
        return sorted({name for life in self._world.living() for name in life.host.groups})

    def _there(self, name: str) -> list[Life]:
        """Who is a member of a group, as far as it knows, and is not fenced."""
        found = []
        for life in self._world.living():
            engine = life.host.groups.get(name)
            if engine is not None and not life.is_over and not life.is_fenced and engine.membership.is_member:
                found.append(life)
        return found

    def _able(self, name: str) -> list[Life]:
        """Those of them that hold the state."""
        return [life for life in self._there(name) if life.host.groups[name].membership.is_installed]

    def is_settled(self) -> bool:
        return not self.what_is_missing()

    def what_is_missing(self) -> str:
        """Why not all is well yet; empty: it is."""
        world = self._world
        for name in self._groups():
            lives = self._there(name)
            if not lives:
                return f"{name}: nobody is left"
            engines = [life.host.groups[name] for life in lives]
            first = engines[0].configuration
            if why := self._why_not(name, lives, engines, first):
                return f"{name}: {why}"
            if name != SYSTEM_GROUP and {*first.ids} != {*engines_of(lives[0], SYSTEM_GROUP).configuration.ids}:
                return f"{name}: other members than those of {SYSTEM_GROUP}"
        for life in world.living():
            if not (
                life.is_over or life.is_fenced or world.is_serving(life) or world.system(life).membership.is_removed
            ):
                return f"{life.replica} has not joined"
        return ""

    def _why_not(self, name: str, lives: list[Life], engines: list[Engine], first: Configuration) -> str:
        if any(engine.configuration.id != first.id for engine in engines):
            return f"configurations {', '.join(str(engine.configuration.id) for engine in engines)}"
        if {*first.ids} != {life.replica for life in lives}:
            return f"members {', '.join(first.ids)}, there are {', '.join(life.replica for life in lives)}"
        if not all(engine.membership.is_installed for engine in engines):
            return "somebody holds no state"
        spread = [
            self._world.watch.spread(life.index, each, each.applied) for life, each in zip(lives, engines, strict=True)
        ]
        if any(vector != spread[0] for vector in spread):
            return f"vectors {spread}"
        if any(engine.durability.vector != engine.applied or engine.early for engine in engines):
            return "something is not durable, or waits"
        if any(engine.digest != engines[0].digest for engine in engines):
            return "digests differ"
        for life, engine in zip(lives, engines, strict=True):
            if engine.stability.stable != engine.applied:
                return f"{life.replica} takes {engine.stability.stable} of {engine.applied} for stable"
        if open_ids := [each.replica for each in first.removed if each.final is None]:
            return f"no final of {open_ids[0]}"
        if any(engine.membership.orders for engine in engines):
            return "something is ordered"
        return ""

    def put_right(self) -> None:
        """Look at all of it, and do what only an operator can."""
        world = self._world
        if not all(self._able(name) for name in world.facts.groups):
            self.is_lost = True
            return
        for name in self._groups():
            if not self._choose_line(name):
                return
        for life in world.living():
            memberships = [engine.membership for engine in life.host.groups.values()]
            is_out = world.system(life).membership.is_removed
            is_half_out = not is_out and any(membership.is_removed for membership in memberships) and self._has_forced
            if ((is_out and self._comes_back) or is_half_out) and not life.is_over and not life.host.is_leaving:
                life.is_over = True  # an id that one group has removed never returns there
                world.count("rejoined")
                world.watch.lose(life.index)
                life.place.renew(life.replica if is_half_out else None)
        for name in self._groups():
            self._evict_the_dead(name)

    def _choose_line(self, name: str) -> bool:
        """If two lines have parted, let the smaller one join again. False: it was so."""
        configurations = {life.index: life.host.groups[name].configuration for life in self._able(name)}
        tops: list[Configuration] = []
        for one in configurations.values():
            is_top = not any(leads_to(one, other) and one.id != other.id for other in configurations.values())
            if is_top and all(one.id != top.id for top in tops):
                tops.append(one)
        world = self._world
        if len(tops) > 1:
            world.count("lines parted")
            if not self._has_forced:
                world.facts.report("agreement", f"{name}: lines parted without force, {tops[0].id} and {tops[1].id}")
        best = max(
            tops, key=lambda top: (sum(one.id == top.id for one in configurations.values()), top.number, top.id.nonce)
        )
        others = [life for life in self._there(name) if not leads_to(life.host.groups[name].configuration, best)]
        for life in others:
            life.is_over = True
            world.watch.lose(life.index)
            life.place.renew(None)
        return not others

    def _evict_the_dead(self, name: str) -> None:
        """Members whose machine is gone, or goes on under another id."""
        world = self._world
        able = self._able(name)
        if not able:
            return
        top = max((life.host.groups[name].configuration for life in able), key=lambda each: each.number)
        able = [life for life in able if life.host.groups[name].configuration.id == top.id]
        alive = {life.replica for life in world.living() if not life.is_over and not life.is_fenced}
        dead = [replica for replica in top.ids if replica not in alive]
        if dead and name == SYSTEM_GROUP:
            able[0].evict(dead)
        if top.is_quorum({life.replica for life in able}):
            return
        self._stuck += 1
        if self._stuck >= _PATIENCE:
            self._stuck = 0
            world.count("needed force")
            system = self._there(SYSTEM_GROUP)
            at = next((life for life in able if life in system), None)
            if at is None:  # who holds this group was thrown out of the cluster
                self.is_lost = True
                return
            self.force(at, system)

    def on_end(self) -> None:
        """All is well: what was promised to users is held against what is left."""
        watch = self._world.watch
        for name in self._groups():
            lives = self._there(name)
            group = watch.facts.groups.get(name)
            if group is None:
                continue
            nodes = [life.index for life in lives]
            configuration = lives[0].host.groups[name].configuration
            watch.survival.on_end(group, configuration, nodes, watch.outside)
            self._review(group, configuration)
            for life in lives:
                watch.look_at_all(group, life.index, life.host.groups[name])

    def _review(self, group: Group, configuration: Configuration) -> None:
        """Every machine shows the orphans of the ids that it had."""
        watch = self._world.watch
        for life in self._world.living():
            engine = life.host.groups.get(group.name)
            if engine is None or engine.configuration.id != configuration.id:
                continue
            for earlier in life.place.left:
                final = configuration.finals.get(earlier.replica)
                if final is None or watch.facts.index[earlier.replica] != earlier.index:
                    continue
                fields = {"replica": earlier.replica, "domain": group.name, "limit": 1_000}
                answer = life.asked("orphans", fields)
                seqs = (
                    [Dot.parse(orphan["dot"]).seq for orphan in answer["orphans"]] if isinstance(answer, dict) else []
                )
                last = watch.configuration(earlier.index, group.name)
                is_of_line = last is not None and leads_to(
                    last, configuration
                )  # else its log was cut by what it had alone
                has_forgotten = not is_of_line or earlier.place.turns > 0 or earlier.index in self._world.copied
                watch.orphans.on_shown(group, earlier.index, final, seqs, has_forgotten=has_forgotten)


def engines_of(life: Life, name: str) -> Engine:
    return life.host.groups[name]
