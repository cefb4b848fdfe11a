"""What happens to machines while users work: drawn one after the other, by what there is just then.

The question: which faults may a run have that no protocol survives? A disk that went back unnoticed while nobody is within reach who heard
what it has forgotten: then it says again what others took for new. So a disk goes back, and a copy is started, only while everybody who
heard anything since is within reach, as the start of a node waits for those it can reach. Everything else may happen at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from crdtstore_sim.regroup.copies import Copy, copy_of

if TYPE_CHECKING:
    from crdtstore_sim.regroup.place import Life, Place
    from crdtstore_sim.regroup.world import World

__all__ = ["Trouble"]

_SPLIT, _DIES = 40, 41
_SECOND_US = 1_000_000
_VOTES = frozenset((7, 8, 9, 10))
"""Tags of what proposers and acceptors say to each other."""
_PARTS = frozenset((11, 12))
"""Tags of what an install says."""
_DIES_AT = 0.12
_CUT_AT = 0.06
_COPY_US = 400_000


class Trouble:
    """Mutable: what is cut just now."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        members = world.scenario.members
        assert members is not None
        self._every_us = members.every_s * _SECOND_US
        self._kinds = list(members.kinds)
        self._is_over = False
        self._cuts: set[tuple[int, int]] = set()
        """Directed links."""
        self._sides: dict[int, int] = {}
        self._loose: set[frozenset[int]] = set()
        self._newcomers = members.newcomers
        self._does: dict[str, Callable[[], None]] = {
            "split": self._split,
            "crash": self._crash,
            "lose disk": self._lose_disk,
            "copy seen": self._copy_seen,
            "roll back": self._roll_back,
            "half forgotten": self._forget_half,
            "clone": self._clone,
            "block": self._block,
            "join": self._join,
            "evict": self._evict,
            "leave": self._leave,
            "force": self._force,
        }

    def start(self, from_us: int) -> None:
        self._world.timeline.at(from_us, self._on_time)
        if {"roll back", "half forgotten", "clone"} & set(self._kinds):
            self._world.timeline.at(from_us // 2, self._on_copy)

    def stop(self) -> None:
        """From now on nothing happens any more, and what was cut is whole again."""
        self._is_over = True
        self._sides.clear()
        self._loose.clear()
        for place in self._world.places:
            place.is_blocked = False
        self._rewire()
        self._world.network.calm()

    def _on_time(self, _: None) -> None:
        if self._is_over:
            return
        self._world.timeline.after(int(self._random.expovariate(1) * self._every_us) + 1, self._on_time)
        kinds = [kind for kind in self._kinds if kind in self._does]
        if kinds:
            kind = self._random.choice(kinds)
            self._world.count(kind)
            self._does[kind]()

    def _on_copy(self, _: None) -> None:
        """Somebody copies disks, as administrators do."""
        if self._is_over:
            return
        self._world.timeline.after(_COPY_US, self._on_copy)
        for place in self._alive():
            place.keep(self._copied(place))

    def _copied(self, place: Place) -> Copy:
        life, world = place.life, self._world
        assert life is not None
        held = {name: tuple(group.durable[life.index]) for name, group in world.facts.groups.items()}
        return copy_of(life.disk, world.timeline.now_us, held)

    # --- who there is

    def _alive(self) -> list[Place]:
        return [place for place in self._world.places if place.is_alive]

    def _installed(self) -> list[Place]:
        """Those that hold the state, and are members as far as they know."""
        return [place for place in self._alive() if place.life is not None and self._world.is_serving(place.life)]

    # --- the network

    def _split(self) -> None:
        random, count = self._random, len(self._world.places)
        sides = random.choice((1, 2, 2, 2, 3))
        self._sides = {place: random.randrange(sides) for place in range(count)}
        self._loose = {
            frozenset(random.sample(range(count), 2)) for _ in range(random.choice((0, 0, 1, 3)) if count > 1 else 0)
        }
        self._rewire()

    def _block(self) -> None:
        """Somebody is cut off for ever; most stay within reach."""
        places = [place for place in self._installed() if not place.is_blocked]
        if len(places) > 2 and not any(place.is_blocked for place in self._world.places):
            self._random.choice(places).is_blocked = True
            self._rewire()

    def _is_cut(self, a: Place, b: Place) -> bool:
        is_apart = self._sides.get(a.index, 0) != self._sides.get(b.index, 0)
        return is_apart or frozenset((a.index, b.index)) in self._loose or a.is_blocked or b.is_blocked

    def _rewire(self) -> None:
        world = self._world
        world.trace.note(world.timeline.now_us, _SPLIT, 0)
        places = world.places
        wanted = {(a.index, b.index) for a in places for b in places if a is not b and self._is_cut(a, b)}
        new, gone = sorted(wanted - self._cuts), sorted(self._cuts - wanted)
        self._cuts = wanted
        for link in gone:
            world.network.heal(*link)
        for link in new:
            world.network.cut(*link)
        for link in gone:
            world.links.on_heal(*link)
        for link in new:
            world.links.on_cut(*link)

    def strikes(self, source: Place, target: Place, data: bytes) -> bool:
        """A message leaves: does its sender die just then?"""
        if self._is_over or (data[1] and "cut install" not in self._kinds):
            return False
        tag = data[3] if not data[1] else 12
        if tag in _VOTES and "die proposing" in self._kinds and self._random.random() < _DIES_AT:
            self._die(source)
            return True
        if tag in _PARTS and "cut install" in self._kinds and self._random.random() < _CUT_AT:
            dies = self._random.choice((source, target))
            self._die(dies)
            return dies is source
        return False

    def _die(self, place: Place) -> None:
        world = self._world
        world.trace.note(world.timeline.now_us, _DIES, place.index)
        world.count("died between two messages")
        world.timeline.at(world.timeline.now_us, self._on_die, place)

    def _on_die(self, place: Place) -> None:
        place.crash()
        self._restart_later(place)

    # --- machines

    def _restart_later(self, place: Place) -> None:
        delay_us = int(self._random.choice((0.05, 0.3, 1.5)) * (0.5 + self._random.random()) * _SECOND_US)
        self._world.timeline.after(delay_us, self._on_restart, (place, place.life))

    def _on_restart(self, argument: tuple[Place, Life]) -> None:
        place, life = argument
        if place.life is life:
            place.restart()

    def _crash(self) -> None:
        alive = self._alive()
        if alive:
            place = self._random.choice(alive)
            place.crash(is_orderly=self._random.random() < 0.3)
            self._restart_later(place)

    def _lose_disk(self) -> None:
        """A disk is gone: its machine begins anew, and nobody knows whom it was, but the operator."""
        installed = self._installed()
        if len(installed) > 2:
            self._begin_anew(self._random.choice(installed), knows=False)

    def _copy_seen(self) -> None:
        """A disk was put back, and its seal says so."""
        installed = self._installed()
        if len(installed) > 2:
            self._begin_anew(self._random.choice(installed), knows=True)

    def _begin_anew(self, place: Place, *, knows: bool) -> None:
        life = place.life
        assert life is not None
        place.crash()
        place.has_lost_disk = not knows
        self._world.watch.lose(life.index)
        life.is_over = True
        place.renew(life.replica if knows else None)

    def _witnessed(self, life: Life, since_us: int) -> bool:
        """Whether everybody who heard something of a life since then, and can still tell, is within reach."""
        world = self._world
        for index, when_us in world.heard[life.index].items():
            witness = world.lives.get(index)
            if when_us <= since_us or witness is None or witness is life:
                continue
            is_near = witness.is_alive and not witness.is_over and not self._is_cut(witness.place, life.place)
            if not is_near or witness.is_fenced:
                return False
        return True

    def _roll_back(self) -> None:
        self._go_back(lambda copy, life: True)

    def _forget_half(self) -> None:
        """A disk goes back to where it held less of others, and all of its own."""
        self._go_back(self._has_all_of_its_own)

    def _has_all_of_its_own(self, copy: Copy, life: Life) -> bool:
        groups = self._world.facts.groups
        is_all = all(
            name in copy.vectors and copy.vectors[name][life.index] == group.durable[life.index][life.index]
            for name, group in groups.items()
        )
        return is_all and any(copy.vectors[name] != tuple(group.durable[life.index]) for name, group in groups.items())

    def _go_back(self, is_fit: Callable[[Copy, Life], bool]) -> None:
        found: list[tuple[Place, Copy]] = []
        for place in self._world.places:
            life = place.life
            if life is None or life.is_over or place.is_given_up or (life.is_alive and life.is_fenced):
                continue
            found += [
                (place, copy) for copy in place.copies if is_fit(copy, life) and self._witnessed(life, copy.time_us)
            ]
        if found:
            place, copy = self._random.choice(found)
            self._world.count("went back")
            place.go_back(copy)

    def _clone(self) -> None:
        """A copy of a machine is started beside it, under the same id."""
        free = [place for place in self._world.places if place.life is None]
        found: list[tuple[Place, Copy]] = []
        for place in self._installed():
            life = place.life
            assert life is not None
            copies = [*place.copies[-2:], self._copied(place)]
            found += [(place, copy) for copy in copies if self._witnessed(life, copy.time_us)]
        if free and found:
            (place, copy), beside = self._random.choice(found), free[-1]
            assert place.life is not None
            if not self._is_cut(place, beside) and beside.begin_copy(place.life, copy):
                self._world.count("copy started")
                self._world.links.connect_now(beside.index)

    # --- operators

    def _join(self) -> None:
        """One or two machines that were never members want to become some."""
        free = [place for place in self._world.places if place.life is None]
        for place in free[: self._random.choice((1, 1, 2))]:
            if self._newcomers > 0:
                self._newcomers -= 1
                place.begin()

    def _evict(self) -> None:
        """Several operators throw members out, possibly each other."""
        installed, random = self._installed(), self._random
        for place in random.sample(installed, min(len(installed), random.choice((1, 1, 2, 2, 3)))):
            assert place.life is not None
            others = self._world.others(place.life)
            if len(others) < 2:
                continue
            away = [replica for replica in others if not self._world.is_near(place, replica)]
            if away and random.random() < 0.4:
                chosen: Sequence[str] = away[:3]
            else:
                chosen = random.sample(others, random.choice((1, 1, 2)))
            self._world.steward.evict(place.life, chosen[: len(others) - (random.random() < 0.7)])

    def _leave(self) -> None:
        installed = self._installed()
        if (
            self._world.scenario.work.shards > 1
        ):  # if all left, the last two could be left alone in a group each, until somebody joins
            installed = [place for place in installed if place.life is not None and not place.life.host.is_leaving]
        if len(installed) > 2:
            life = self._random.choice(installed).life
            assert life is not None
            life.leave()

    def _force(self) -> None:
        """An operator lets those go on whom he reaches, without asking the others; sometimes on both sides of a cut."""
        installed, random = self._installed(), self._random
        for place in random.sample(installed, min(len(installed), random.choice((1, 1, 2)))):
            near = [other for other in installed if other is place or not self._is_cut(place, other)]
            kept = [other for other in near if other is place or random.random() < 0.8]
            lives = [other.life for other in kept if other.life is not None]
            assert place.life is not None
            self._world.steward.force(place.life, lives)
