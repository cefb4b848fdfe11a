"""Backups: taken while writes go on, checked, restored under a new id, and held against a replica that never saw one."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from crdtstore.causal import node_of
from crdtstore.errors import Unavailable, UsageError
from crdtstore_node.backup.source import Backup, open_backup, verify
from crdtstore_node.backup.take import Taken, take
from crdtstore_node.backup.target import Bucket, Folder
from tests.backup.world import (
    SEGMENT_BYTES,
    Reader,
    World,
    entries_of,
    make_cluster,
    make_world,
    random_life,
    readings,
    replayed,
    restore,
    state_of,
)


def backed_up(world: World, target: Path, chunk_bytes: int = 2_000) -> Backup:
    taken = take(world.first.directory, Folder(target), chunk_bytes=chunk_bytes)
    return open_backup(str(target / taken.name))


@pytest.mark.parametrize("checkpoint_at", [(), (30,), (10, 40, 59)], ids=["no checkpoint", "one", "three"])
def test_what_is_restored_is_what_was_there(place: Path, checkpoint_at: tuple[int, ...]) -> None:
    with make_world(place / "world", seed=len(checkpoint_at)) as world:
        random_life(world, 60, checkpoint_at=checkpoint_at)
        backup = backed_up(world, place / "backups")
        truth = replayed(world.cluster, entries_of(world.first.directory))
        assert [check.why for check in verify(backup)] == [None, None]
        done = restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            assert state_of(reader.host) == state_of(truth) == state_of(world.first.host)
            assert readings(reader.host) == readings(truth)
            for engine in reader.host.groups.values():
                assert engine.keyspace.tree.share([]) == engine.digest
        assert done.commits == backup.manifest.log.commits
        assert bool(done.rows) == bool(checkpoint_at)
        assert not (place / "new.partial").exists()


def test_a_restored_node_has_a_new_id_reads_marked_and_refuses_writes(place: Path) -> None:
    with make_world(place / "world") as world:
        random_life(world, 20, checkpoint_at=(10,))
        world.write(1, "shop/counter/mine", op="add", amount=7)
        world.settle()
        backup = backed_up(world, place / "backups")
        ids = {restore(backup, place / f"new-{at}", world.cluster, "r1-1").replica for at in range(2)}
        assert len(ids | {member.replica for member in world.cluster.members}) == 5
        assert {node_of(replica) for replica in ids} == {"r1-1"}
        with Reader(world.cluster, place / "new-0") as reader:
            body = reader.ask("read", domain="shop", collection="counter", key="mine")
            assert isinstance(body, dict)
            assert (body["value"], body["identity"]) == (7, "unproven")
            for do, fields in (
                ("commit", {"domain": "shop", "ops": [{"collection": "counter", "key": "mine", "op": "add"}]}),
                ("declare_domain", {"domain": "other"}),
                ("declare", {"domain": "shop", "collection": "more", "type": "counter"}),
            ):
                answer = reader.ask(do, **fields)
                assert isinstance(answer, Unavailable)
                assert answer.code == "identity-unproven"
            status = reader.ask("status")
            assert isinstance(status, dict)
            assert (status["ready"], status["identity"]) == (False, "unproven")
            assert "has not joined" in status["why"]
            assert {group["replica"] for group in status["groups"]} == {reader.host.me.replica}
        live = world.ask(0, "read", domain="shop", collection="counter", key="mine")
        assert "identity" not in live


def test_a_restored_node_issues_nothing_by_itself(place: Path) -> None:
    with make_world(place / "world") as world:
        world.declare(0, "shop", "lww_register", "bounded_counter")
        world.write(0, "shop/lww_register/gone", op="set", value=1)
        world.write(0, "shop/lww_register/gone", op="expire", ttl_ms=10)
        world.write(0, "shop/bounded_counter/stock", op="grant", amount=10)
        world.write(0, "shop/bounded_counter/stock", op="reserve", amount=1, ttl_ms=10)
        backup = backed_up(world, place / "backups")
        restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            before = state_of(reader.host)
            for second in range(100):
                out = reader.service.step([], world.now_ms + 1000 * second)
                assert not out.send
                assert all(entry.group == "" for entry in out.persist)
            assert state_of(reader.host) == before


def test_a_restored_directory_is_no_source_of_backups(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        restore(backed_up(world, place / "backups"), place / "new", world.cluster, "r0-1")
    with pytest.raises(UsageError, match="was restored and has not joined"):
        take(place / "new", Folder(place / "backups"))


def test_writes_go_on_meanwhile(place: Path) -> None:
    """Every object that is written makes the node write, checkpoint and try to cut its log."""
    with make_world(place / "world", 1) as world:
        random_life(world, 30, checkpoint_at=(10,))
        before = state_of(world.first.host)

        def disturb(what: str, size: int) -> None:
            for _ in range(20):
                world.write(0, "shop/counter/busy", op="add", amount=1)
            world.first.checkpoint(world.now_ms)
            world.first.log.cut(world.first.host.needed)

        taken = take(world.first.directory, Folder(place / "backups"), disturb, chunk_bytes=500)
        assert len(taken.manifest.objects) > 3
        backup = open_backup(str(place / "backups" / taken.name))
        assert all(check.is_ok for check in verify(backup))
        restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            after = state_of(reader.host)
            for group, (vector, _) in before.items():
                assert all(map(int.__ge__, after[group][0], vector))
            for engine in reader.host.groups.values():
                assert engine.keyspace.tree.share([]) == engine.digest


def test_while_a_backup_is_taken_the_log_is_not_cut(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        world.declare(0, "shop", "lww_register")
        for _ in range(3 * SEGMENT_BYTES // 4_000):
            world.write(0, "shop/lww_register/a", op="set", value="x" * 4_000)
        oldest = world.first.directory / "log" / "0000000001.log"
        looks = []

        def cut(what: str, size: int) -> None:
            world.pass_ms(50)
            world.first.checkpoint(world.now_ms)
            world.first.log.cut(world.first.host.needed)
            looks.append(oldest.exists())

        taken = take(world.first.directory, Folder(place / "backups"), cut, chunk_bytes=30_000)
        assert looks == [True] * len(taken.manifest.objects)
        cut("", 0)
        assert not oldest.exists()  # the plant: without the pin it does go
        assert all(check.is_ok for check in verify(open_backup(str(place / "backups" / taken.name))))


def test_segments_that_are_full_to_the_last_byte(place: Path) -> None:
    """A block that is larger than a segment gets one that just holds it."""
    with make_world(place / "world", 1) as world:
        world.declare(0, "shop", "lww_register")
        for at in range(3):
            world.write(0, "shop/lww_register/a", op="set", value=str(at) * 2 * SEGMENT_BYTES)
        backup = backed_up(world, place / "backups")
        assert all(check.is_ok for check in verify(backup))
        restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            assert state_of(reader.host) == state_of(world.first.host)


def test_an_object_storage_is_a_target_too(place: Path) -> None:
    target = Bucket(MemoryStore(), "memory://", {})
    with make_world(place / "world", 1) as world:
        random_life(world, 20, checkpoint_at=(10,))
        taken: Taken = take(world.first.directory, target, chunk_bytes=1_000)
        backup = Backup(target, f"{taken.name}/", target.get(f"{taken.name}/manifest.json"))
        assert all(check.is_ok for check in verify(backup))
        restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            assert state_of(reader.host) == state_of(world.first.host)


def test_nothing_is_restored_where_it_does_not_belong(place: Path) -> None:
    with make_world(place / "world", 1) as world:
        random_life(world, 5)
        backup = backed_up(world, place / "backups")
    with pytest.raises(UsageError, match="not empty"):
        restore(backup, place / "backups", world.cluster, "r0-1")
    with pytest.raises(UsageError, match="neither in the cluster file nor in the backup"):
        restore(backup, place / "new", world.cluster, "r9-1")
    other = make_cluster(1)
    object.__setattr__(other, "nonce", bytes(15) + b"\2")
    with pytest.raises(UsageError, match="the cluster file names"):
        restore(backup, place / "new", other, "r0-1")
    (place / "new.partial").mkdir()
    (place / "new.partial" / "precious").touch()
    with pytest.raises(UsageError, match="precious"):
        restore(backup, place / "new", world.cluster, "r0-1")
    assert not (place / "new").exists()
    with pytest.raises(UsageError, match="no node in this directory"):
        take(place, Folder(place / "backups"))
