"""Points in time: at any instant and for any token, what is restored is what a replay of the chosen commits gives."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import decode_commit
from crdtstore.errors import UsageError
from crdtstore.storage.protocol import Entry
from crdtstore.tokens import Tokens
from crdtstore_node.backup import point
from crdtstore_node.backup.source import Backup, open_backup
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from tests.backup.world import (
    NONCE,
    Reader,
    World,
    entries_of,
    make_world,
    random_life,
    readings,
    replayed,
    restore,
    state_of,
    told,
    truth_at,
)

SKEWS_MS = (0, 900, -700)
"""Clocks that far apart: stamps and the order of the log disagree all the time."""
_numbers = count()


def a_backup(world: World, place: Path) -> Backup:
    return open_backup(str(place / take(world.first.directory, Folder(place)).name))


def check_at(world: World, backup: Backup, place: Path, at: str, truth: list[Entry]) -> None:
    directory = place / f"at-{next(_numbers)}"
    done = restore(backup, directory, world.cluster, "r0-1", at)
    expected = replayed(world.cluster, truth)
    with Reader(world.cluster, directory) as reader:
        assert state_of(reader.host) == state_of(expected)
        assert readings(reader.host) == readings(expected)
        for engine in reader.host.groups.values():
            assert engine.keyspace.tree.share([]) == engine.digest
    entries = entries_of(world.first.directory)
    assert done.left_out == len(entries) - len(truth)


def stamps(entries: list[Entry]) -> list[int]:
    return [physical_ms(decode_commit(entry.data).hlc) for entry in entries]


@pytest.mark.parametrize("seed", range(4))
def test_at_any_instant(place: Path, seed: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed, skews_ms=SKEWS_MS) as world:
        random_life(world, 60)
        backup, entries = a_backup(world, place / "backups"), entries_of(world.first.directory)
        moments = stamps(entries)
        left_out = 0
        for _ in range(8):
            at_ms = draw.randrange(min(moments) - 5, max(moments) + 5)
            truth = truth_at(entries, at_ms)
            check_at(world, backup, place, rfc3339(at_ms), truth)
            left_out += sum(moment <= at_ms for moment in moments) - len(truth)
        assert left_out  # some were stamped in time and had seen what was not


@pytest.mark.parametrize("seed", range(3))
def test_at_an_instant_above_a_checkpoint(place: Path, seed: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed) as world:
        random_life(world, 70, checkpoint_at=(25,))
        backup, entries = a_backup(world, place / "backups"), entries_of(world.first.directory)
        assert world.first.host.saving is not None
        assert world.first.host.saving.last_ms is not None
        begun_ms = world.first.host.saving.last_ms
        for _ in range(4):
            at_ms = draw.randrange(begun_ms + 2, max(stamps(entries)) + 5)
            check_at(world, backup, place, rfc3339(at_ms), truth_at(entries, at_ms))
        with pytest.raises(UsageError, match="use an older backup"):
            restore(backup, place / "new", world.cluster, "r0-1", rfc3339(begun_ms - 100))
        assert not (place / "new").exists()


def shortest(entries: list[Entry], seen: dict[str, dict[Any, int]]) -> list[Entry] | None:
    """The shortest prefix that covers a token, by trying."""
    missing = {(group, str(replica), seq) for group, vector in seen.items() for replica, seq in vector.items()}
    for at, each in enumerate(told(entries)):
        if not missing:
            return entries[:at]
        missing.discard(each.name)
    return None if missing else entries


@pytest.mark.parametrize("seed", range(3))
def test_at_any_token(place: Path, seed: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed, skews_ms=SKEWS_MS) as world:
        acknowledged = random_life(world, 60)
        backup, entries = a_backup(world, place / "backups"), entries_of(world.first.directory)
        tokens = [each["token"] for each in draw.sample(acknowledged, 6)]
        tokens.append(f"{tokens[0]},{tokens[1]}")
        reached = 0
        for token in tokens:
            truth = shortest(entries, Tokens(NONCE).decode(token))
            if truth is None:
                with pytest.raises(UsageError, match="does not reach the token: it lacks commit"):
                    restore(backup, place / "new", world.cluster, "r0-1", token)
                assert not (place / "new").exists()
            else:
                check_at(world, backup, place, token, truth)
                reached += 1
        assert reached >= 3


def test_a_token_at_and_below_a_checkpoint(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        world.declare(0, "shop", "counter")
        before = world.write(0, "shop/counter/a", op="add", amount=1)["token"]
        world.write(0, "shop/counter/a", op="add", amount=1)
        token = Tokens(NONCE).encode({"shop/0": {world.first.me: 2}})
        world.first.checkpoint(world.now_ms)
        world.write(0, "shop/counter/a", op="add", amount=1)
        backup, entries = a_backup(world, place / "backups"), entries_of(world.first.directory)
        check_at(world, backup, place, token, entries[:-1])
        for old in (before, Tokens(NONCE).encode({"shop/0": {world.first.me: 1}}), Tokens(NONCE).encode({})):
            with pytest.raises(UsageError, match="holds more than the token has seen: use an older backup"):
                restore(backup, place / "new", world.cluster, "r0-1", old)
        with pytest.raises(UsageError, match="does not reach the token"):
            restore(backup, place / "new", world.cluster, "r0-1", Tokens(NONCE).encode({"crm/0": {world.first.me: 1}}))


@pytest.mark.parametrize(
    ("at", "why"),
    [
        ("2100-01-01T00:00:00Z", "use a newer backup"),
        ("2026-01-01T00:00:00", "expected a token or an instant"),
        ("2026-13-01T00:00:00Z", "expected a token or an instant"),
        ("yesterday", "not made by this cluster"),
    ],
)
def test_points_that_are_none(place: Path, at: str, why: str) -> None:
    with make_world(place / "world", 1) as world:
        backup = a_backup(world, place / "backups")
        with pytest.raises(UsageError, match=why):
            restore(backup, place / "new", world.cluster, "r0-1", at)
        assert not (place / "new").exists()
        assert not (place / "new.partial").exists()


def test_an_offset_names_the_same_instant(place: Path) -> None:
    assert point._unix_ms("2026-01-05T11:00:00+01:00") == point._unix_ms("2026-01-05T10:00:00.000Z")


def test_planted_deps_are_not_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant of ``test_at_any_instant``: by stamps alone the set is torn."""
    monkeypatch.setattr(point, "covers", lambda included, deps: True)
    with pytest.raises(AssertionError):
        test_at_any_instant(place, 0)
