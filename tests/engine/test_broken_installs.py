"""Installs among liars: parts and requests for parts, changed anywhere and said by anybody, come in between the true ones."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.errors import CrdtStoreError
from crdtstore.messages import Fetch, Part, decode_message
from tests.engine.mutations import HUGE, at, message_of, places, words_of
from tests.engine.test_membership import Regrouping


def changed(random: Random, value: Any) -> Any:
    """Another value: near it, huge, or of another kind."""
    if random.random() < 0.2:
        return random.choice((None, -1, "", b"", b"\xff" * 40, [], {}))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((value + random.randrange(-2, 3), random.choice(HUGE)))
    if isinstance(value, bytes) and value:
        where = random.randrange(len(value))
        return random.choice(
            (value[:where], value + b"x", bytes((*value[:where], value[where] ^ 1, *value[where + 1 :])), value[::-1])
        )
    if isinstance(value, list):
        return random.choice((value[1:], value[::-1], value * 2))
    return value


class Lying(Regrouping):
    """Whatever is said of parts, a changed copy of it may be said before. Mutable."""

    def __init__(self, seed: int, lies: int) -> None:
        self.random, self.lies, self.told = Random(seed), 0, 0
        self.refused: list[str] = []
        super().__init__("us", "eu", has_stores=True, history_bytes=512)
        for number in range(12):
            assert not isinstance(self.write("us", "add", key=f"k{number}"), CrdtStoreError)
        self.lies = lies

    def deliver(self) -> None:
        said: list[tuple[ReplicaId, ReplicaId, bytes]] = []
        for target, source, data in self.waiting:
            if self.lies and isinstance(decode_message(data), Fetch | Part) and self.random.random() < 0.5:
                self.lies -= 1
                self.told += 1
                said.append(self._lie(target, source, data))
            said.append((target, source, data))
        self.waiting = said
        super().deliver()

    def _lie(self, target: ReplicaId, source: ReplicaId, data: bytes) -> tuple[ReplicaId, ReplicaId, bytes]:
        words = words_of(data)
        for _ in range(self.random.randrange(1, 3)):
            path = self.random.choice(places(words))
            place = at(words, path[:-1])
            place[path[-1]] = changed(self.random, deepcopy(place[path[-1]]))
        if self.random.random() < 0.2:
            words[0] = 23 - words[0] if words[0] in (11, 12) else 11
        if self.random.random() < 0.3:
            source = self.random.choice([replica for replica in self._by_replica if replica != target])
        try:
            return target, source, message_of(words)
        except OverflowError:
            return target, source, b"\x01\x00\xc1"


@pytest.mark.parametrize("seed", range(6))
def test_lies_about_parts_delay_an_install_and_no_more(seed: int) -> None:
    world = Lying(seed, lies=25)
    world.join("sa", region="sa")
    for _ in range(60):
        world.run(500)
        host = world.sites["sa"].host
        if "shop/0" in host.groups and all(engine.takes_part for engine in host.groups.values()) and not world.lies:
            break
    assert world.told, "nobody lied"
    assert not isinstance(world.write("us", "add"), CrdtStoreError)
    assert not isinstance(world.write("sa", "add"), CrdtStoreError)
    world.run(3_000)
    for group in (SYSTEM_GROUP, "shop/0"):
        engines = [site.host.groups[group] for site in world.sites.values()]
        assert len({engine.digest for engine in engines}) == 1
        assert all(engine.digest == engine.keyspace.tree.share([]) for engine in engines)
        assert len({engine.configuration for engine in engines}) == 1
        assert not any(engine.is_fenced for engine in engines)
    assert world.read("sa")["value"] == 2
    assert world.read("sa", key="k7")["value"] == 1
