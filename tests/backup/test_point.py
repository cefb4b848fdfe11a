"""Points in time: at any instant and for any token, what is restored is what a replay of the chosen commits gives."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import decode_commit
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.storage.protocol import Entry
from crdtstore.tokens import Tokens
from crdtstore_node.backup import point
from crdtstore_node.backup.line import open_line
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


@pytest.mark.parametrize(("seed", "shards"), [(0, 1), (1, 1), (2, 3), (3, 5)])
def test_at_any_instant(place: Path, seed: int, shards: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed, skews_ms=SKEWS_MS) as world:
        random_life(world, 60, shards=shards)
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


@pytest.mark.parametrize(("seed", "shards"), [(0, 1), (1, 4), (2, 1)])
def test_at_any_token(place: Path, seed: int, shards: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed, skews_ms=SKEWS_MS) as world:
        acknowledged = random_life(world, 60, shards=shards)
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
        ("2100-01-01T00:00:00Z", "no backup here goes on with its log"),
        ("2026-01-01T00:00:00", "expected a token .* or an instant"),
        ("2026-13-01T00:00:00Z", "expected a token .* or an instant"),
        ("yesterday", r"expected a token \(AQ.*2026-01-05T10:00:00Z.*got 'yesterday'"),
        ("", "expected a token .* or an instant"),
        ("AQ" + 30 * "A", "not made by this cluster"),
    ],
)
def test_points_that_are_none(place: Path, at: str, why: str) -> None:
    with make_world(place / "world", 1) as world:
        backup = a_backup(world, place / "backups")
        with pytest.raises(UsageError, match=why):
            restore(backup, place / "new", world.cluster, "r0-1", at)
        assert not (place / "new").exists()
        assert not (place / "new.partial").exists()


def a_line(world: World, place: Path, steps: int) -> None:
    """Three backups, each a while after its checkpoint, with more writes in between."""
    for number in range(3):
        random_life(world, steps)
        world.first.checkpoint(world.now_ms)
        random_life(world, steps)
        take(world.first.directory, Folder(place), now_s=lambda: world.now_ms / 1000)
        world.pass_ms(number)


@pytest.mark.parametrize("seed", range(2))
def test_between_backups_the_log_of_the_later_one_goes_on(place: Path, seed: int) -> None:
    draw = random.Random(seed)
    with make_world(place / "world", seed=seed, retain_bytes=1 << 20) as world:
        a_line(world, place / "backups", 12)
        entries = entries_of(world.first.directory)
        used = set()
        first = open_backup(str(min((place / "backups").iterdir())))
        begin_ms = first.manifest.groups["shop/0"].newest_ms
        for _ in range(6):
            at_ms = draw.randrange(begin_ms, world.now_ms - 5)
            base, later = open_line(str(place / "backups"), rfc3339(at_ms))
            used.add(len(later))
            directory = place / f"at-{at_ms}"
            restore(base, directory, world.cluster, "r0-1", rfc3339(at_ms), later=later)
            needed = [base, *later][-1].manifest
            ends = {group: part.end.vector for group, part in needed.groups.items()}
            there = [each.entry for each in told(entries) if each.name[2] <= ends[each.name[0]].get(each.name[1], 0)]
            truth = replayed(world.cluster, truth_at(there, at_ms))
            with Reader(world.cluster, directory) as reader:
                assert state_of(reader.host) == state_of(truth)
                assert readings(reader.host) == readings(truth)
        assert {0, 1} <= used
        # Named by itself, a backup is continued too.
        at = rfc3339(world.now_ms - 5)
        base, later = open_line(str(min((place / "backups").iterdir())), at)
        assert len(later) == 2
        with pytest.raises(UsageError, match="all backups here are beyond"):
            open_line(str(place / "backups"), rfc3339(begin_ms - 60_000))


def test_tokens_between_backups(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        a_line(world, place / "backups", 3)
        for at in (place / "backups").iterdir():
            base, later = open_line(str(at), None)
            assert later == []
        seen = {"shop/0": {world.first.me: base.manifest.groups["shop/0"].end.vector[world.first.me]}}
        for number, path in enumerate(sorted((place / "backups").iterdir())):
            end = open_backup(str(path)).manifest.groups["shop/0"]
            assert end.checkpoint is not None
            seen = {"shop/0": {world.first.me: end.checkpoint.vector[world.first.me]}}
            token = Tokens(NONCE).encode(seen)
            if number == 0:
                with pytest.raises(UsageError, match="all backups here are beyond"):
                    open_line(str(place / "backups"), token)
                continue
            base, later = open_line(str(place / "backups"), token)
            assert len(later) == 1  # from the backup before, whose log ended earlier
            restore(base, place / f"new-{number}", world.cluster, "r0-1", token, later=later)
            with Reader(world.cluster, place / f"new-{number}") as reader:
                assert state_of(reader.host)["shop/0"][0] == [seen["shop/0"][world.first.me]]


def test_a_log_with_a_gap_between_backups_is_said(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        a_line(world, place / "backups", 12)
        at = rfc3339(world.now_ms - 5)
        base, later = open_line(str(min((place / "backups").iterdir())), at)
        assert later == []  # the log was cut in between
        with pytest.raises(UsageError, match="no backup here goes on with its log"):
            restore(base, place / "new", world.cluster, "r0-1", at, later=later)


def test_an_offset_names_the_same_instant(place: Path) -> None:
    assert point.unix_ms("2026-01-05T11:00:00+01:00") == point.unix_ms("2026-01-05T10:00:00.000Z")


def test_planted_deps_are_not_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant of ``test_at_any_instant``: by stamps alone the set is torn, if it can be applied at all."""
    monkeypatch.setattr(point, "covers", lambda included, deps: True)
    with pytest.raises((AssertionError, ProtocolError)):
        test_at_any_instant(place, 0, 1)
