"""Backups where members change: of whoever it is, in the middle of installs, at points before and after, and their rehearsals."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from crdtstore.cli import main
from crdtstore.clock import rfc3339
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.engine.membership.notes import Adopted, encode
from crdtstore.errors import CrdtStoreError, StorageError, UsageError
from crdtstore.messages import Part
from crdtstore.storage.protocol import NO_ORIGIN, Entry
from crdtstore.tokens import Tokens
from crdtstore_node.backup.checkpoint import Checkpoint
from crdtstore_node.backup.drill import drill_restore
from crdtstore_node.backup.ends import Ends, Taken
from crdtstore_node.backup.line import open_line
from crdtstore_node.backup.source import Backup, open_backup, verify
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from crdtstore_node.identity.document import new_identity, replace_identity
from crdtstore_node.log_checkpoint import checkpoint_of
from tests.backup.regrouping import GROUP, Joiner, Regrouping, fill, held, regrouping
from tests.backup.world import NONCE, Reader, Replica, entries_of, readings, replayed, restore, truth_at
from tests.node.test_log_members import interrupted, verified


def backed_up(replica: Replica, target: Path) -> Backup:
    taken = take(replica.directory, Folder(target), chunk_bytes=2_000)
    backup = open_backup(str(target / taken.name))
    assert [check.why for check in verify(backup)] == [None, None]
    return backup


def check_restored(world: Regrouping, backup: Backup, directory: Path, replica: Replica) -> None:
    """What is restored is what the replica holds."""
    restore(backup, directory, world.cluster, "r0-1")
    with Reader(world.cluster, directory) as reader:
        assert held(reader.host) == held(replica.host)
        assert readings(reader.host) == readings(replica.host)
        for name, engine in reader.host.groups.items():
            assert engine.keyspace.tree.share([]) == engine.digest
            assert engine.configuration == replica.host.groups[name].configuration
    assert verified(directory)["arriving"] == []


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_of_who_saw_members_come_and_go(place: Path, has_checkpoint: bool) -> None:
    with regrouping(place / "world") as world:
        joiner = world.join("ap-1")
        fill(world, "late", 5)
        gone = world.replicas[1]
        world.stop(gone)
        world.evict(gone)
        if has_checkpoint:
            world.first.checkpoint(world.now_ms)
            joiner.checkpoint(world.now_ms)
        fill(world, "after", 5)
        world.run(1_000)
        for at, replica in enumerate(world.replicas):
            backup = backed_up(replica, place / f"backups-{at}")
            assert not backup.manifest.arriving
            assert gone.me in backup.manifest.groups[GROUP].end.vector
            assert sum(backup.manifest.groups[GROUP].end.vector.values()) == sum(world.engine(GROUP, replica).applied)
            check_restored(world, backup, place / f"new-{at}", replica)


def test_of_who_was_removed_itself(place: Path) -> None:
    with regrouping(place / "world") as world:
        gone = world.replicas[1]
        world.evict(gone)
        world.run(500)
        assert gone.host.roster.is_removed
        assert verified(gone.directory)["arriving"] == []
        check_restored(world, backed_up(gone, place / "backups"), place / "new", gone)


def joined_with_history(world: Regrouping) -> Joiner:
    """Its log holds two attempts, and is needed from before it counts."""
    joiner = interrupted(world)
    for number in range(3):  # of another group, which the log is needed for as well
        world.ask(0, "declare", domain="shop", collection=f"more-{number}", type="counter")
    world.run(25_000)
    world.drops = lambda message: False
    world.until(lambda: world.is_installed(joiner))
    checkpoint = checkpoint_of(joiner.directory)
    assert checkpoint is not None
    assert checkpoint.needed + 1_000 < checkpoint.begins[GROUP]
    fill(world, "then", 2)
    return joiner


def test_of_a_joiner_whose_log_counts_from_somewhere(place: Path) -> None:
    with regrouping(place / "world") as world:
        joiner = joined_with_history(world)
        backup = backed_up(joiner, place / "backups")
        restored = restore(backup, place / "again", world.cluster, "ap-1")
        assert restored.commits == backup.manifest.log.commits > 0
        check_restored(world, backup, place / "new", joiner)


def test_positions_of_the_old_log_mean_nothing_in_the_new_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is restored has another log: had it kept its positions, it would not start."""
    with regrouping(place / "world") as world:
        backup = backed_up(joined_with_history(world), place / "backups")
        monkeypatch.setattr(Checkpoint, "moved", lambda checkpoint: [])
        restore(backup, place / "new", world.cluster, "ap-1")
        with pytest.raises(CrdtStoreError, match=r"goes from 0 to \d+ of ap-1|acknowledged commits are missing"):
            Reader(world.cluster, place / "new")


@pytest.mark.parametrize("has_rows", [False, True])
def test_a_group_that_is_being_installed_is_left_out_and_said(place: Path, has_rows: bool) -> None:
    with regrouping(place / "world") as world:
        joiner = interrupted(world)
        if has_rows:
            joiner.checkpoint(world.now_ms)  # with rows that nobody names
        backup = backed_up(joiner, place / "backups")
        assert backup.manifest.left_out == [GROUP]
        assert set(backup.manifest.groups) == {SYSTEM_GROUP}
        restore(backup, place / "new", world.cluster, "r0-1")
        with Reader(world.cluster, place / "new") as reader:
            assert held(reader.host).keys() == {SYSTEM_GROUP}
        taken = CliRunner().invoke(main, ["backup", str(place / "backups"), "--data", str(joiner.directory)])
        assert f"{GROUP} is left out: its state is just being taken over from others" in taken.output
        listed = CliRunner().invoke(main, ["backup", "list", str(place / "backups")])
        assert f"whole, without {GROUP} (was being installed)" in listed.output
        assert all(check.is_ok for check in drill_restore(backup, None, None, place)[0])
        world.drops = lambda message: False
        world.until(lambda: world.is_installed(joiner), 60_000)
        check_restored(world, backed_up(joiner, place / "later"), place / "whole", joiner)


def test_a_manifest_that_says_otherwise_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with regrouping(place / "world") as world:
        backup = backed_up(interrupted(world), place / "backups")
        monkeypatch.setattr(type(backup.manifest), "arriving", frozenset())
        assert "do not agree on whether shop/0 is left out" in str(verify(backup)[1].why)


def test_a_node_that_holds_nothing_has_nothing_to_back_up(place: Path) -> None:
    with regrouping(place / "world") as world:
        world.drops = lambda message: isinstance(message, Part)
        joiner = world.join("ap-1", is_waited_for=False)
        world.run(2_000)
        replace_identity(joiner.directory, new_identity(world.cluster, joiner.me, is_joining=True))
        with pytest.raises(UsageError, match="this node is joining, and holds nothing yet"):
            take(joiner.directory, Folder(place / "backups"))
        identity = new_identity(world.cluster, joiner.me)
        replace_identity(joiner.directory, structs.replace(identity, leaving="ap-1.0000000000000001"))
        with pytest.raises(UsageError, match="between two lives: start its node first"):
            take(joiner.directory, Folder(place / "backups"))
        assert not (place / "backups").exists()


# --- points


def everybody(world: Regrouping, *others: Replica) -> Cluster:
    members = [Member(replica.me, f"x{at}") for at, replica in enumerate((*world.replicas, *others))]
    return Cluster("backups", NONCE, tuple({member.node: member for member in members}.values()))


def test_at_points_before_a_member_joined_and_after_an_eviction(place: Path) -> None:
    """The first replica's backups: one before anything happened, and its log of all that did."""
    with regrouping(place / "world", retain_bytes=1 << 20) as world:
        instants: list[tuple[int, int]] = []

        def remember() -> None:
            world.run(200)
            instants.append((world.now_ms, world.engine().configuration.number))
            world.run(200)

        world.first.checkpoint(world.now_ms)
        first = backed_up(world.first, place / "backups")
        remember()
        joiner = world.join("ap-1")
        fill(world, "late", 5)
        remember()
        tokens = [world.write(2, "shop/counter/of-ap", op="add", amount=5)["token"]]
        world.run(500)
        gone = world.replicas[1]
        world.stop(gone)
        world.evict(gone)
        fill(world, "after", 5)
        remember()
        tokens.append(world.write(0, "shop/counter/of-r0", op="add", amount=7)["token"])
        last = backed_up(world.first, place / "backups")
        entries, founders = entries_of(world.first.directory), everybody(world, gone)
        assert len({number for _, number in instants}) == 3
        for at_ms, number in instants:
            base, _ = open_line(str(place / "backups"), rfc3339(at_ms))
            assert last.manifest.log.needed <= first.manifest.log.end
            assert (base.hash, number == 0) in [(first.hash, True), (first.hash, False), (last.hash, False)]
            later = [last] if base.hash == first.hash else []
            restore(base, place / f"by-{number}", world.cluster, "r0-1", rfc3339(at_ms), later=later)
            restore(first, place / f"at-{number}", world.cluster, "r0-1", rfc3339(at_ms), later=[last])
            expected = replayed(founders, truth_at(entries, at_ms))
            with Reader(world.cluster, place / f"by-{number}") as reader:
                assert held(reader.host) == held(expected)
            with Reader(world.cluster, place / f"at-{number}") as reader:
                assert held(reader.host) == held(expected)
                assert readings(reader.host) == readings(expected)
                assert (reader.host.groups[GROUP].configuration.member(joiner.me) is not None) == (number > 0)
                assert reader.host.groups[GROUP].configuration.number <= number
        for at, (token, key) in enumerate(zip(tokens, ("of-ap", "of-r0"), strict=True)):
            restore(first, place / f"token-{at}", world.cluster, "r0-1", token, later=[last])
            with Reader(world.cluster, place / f"token-{at}") as reader:
                seen, vector = Tokens(NONCE).decode(token), held(reader.host)[GROUP][0]
                assert all(vector.get(str(replica), 0) >= seq for replica, seq in seen[GROUP].items())
                assert "" in seen[SYSTEM_GROUP], "it also says which members were known"
                assert readings(reader.host)["shop/counter"][key] == (5 if key == "of-ap" else 7)
                members = reader.host.groups[GROUP].configuration.members
                assert (gone.me in [member.replica for member in members]) == (key == "of-ap")


def test_what_is_left_out_goes_on_being_left_out(place: Path) -> None:
    """The log of a later backup goes on, and holds an install that the rows of the first know nothing of."""
    with regrouping(place / "world") as world:
        joiner = interrupted(world)
        joiner.checkpoint(world.now_ms)
        first = backed_up(joiner, place / "backups")
        world.drops = lambda message: False
        world.until(lambda: world.is_installed(joiner), 60_000)
        fill(world, "then", 2)
        last = backed_up(joiner, place / "more")
        assert last.manifest.log.needed <= first.manifest.log.end < last.manifest.log.end
        restore(first, place / "new", world.cluster, "r0-1", later=[last])
        with Reader(world.cluster, place / "new") as reader:
            assert held(reader.host).keys() == {SYSTEM_GROUP}


# --- rehearsals


def rejoined(world: Regrouping) -> Joiner:
    """A founder is back under a new id, in a region that no file names."""
    gone = world.replicas[1]
    world.stop(gone)
    world.evict(gone)
    joiner = world.join("r1-1")
    fill(world, "late", 3)
    world.run(500)
    for replica in world.replicas:
        replica.checkpoint(world.now_ms)
    return joiner


@pytest.mark.parametrize("has_file", [False, True])
def test_a_drill_of_any_member(place: Path, has_file: bool) -> None:
    with regrouping(place / "world") as world:
        joiner, other = rejoined(world), world.join("ap-1")
        other.checkpoint(world.now_ms)
        for at, replica in enumerate((world.first, joiner, other)):
            backup = backed_up(replica, place / f"backups-{at}")
            checks, figures = drill_restore(backup, world.cluster if has_file else None, None, place)
            assert [(check.what, check.why) for check in checks if not check.is_ok] == []
            assert len(checks) == 8
            assert figures["rto_s"] > 0
        result = CliRunner().invoke(main, ["drill", "restore", str(place / "backups-2"), "--json"])
        assert json.loads(result.stdout)["ok"]


@pytest.mark.parametrize("has_file", [False, True])
def test_a_drill_reaches_nobody(place: Path, has_file: bool) -> None:
    """The backup knows where members really are, and so does the cluster file."""
    with regrouping(place / "world") as world, socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        world.join("ap-1", gossip=address)
        world.first.checkpoint(world.now_ms)
        backup = backed_up(world.first, place / "backups")
        members = tuple(Member(member.replica, member.region, address) for member in world.cluster.members)
        file = Cluster(world.cluster.name, NONCE, members) if has_file else None
        assert all(check.is_ok for check in drill_restore(backup, file, None, place)[0])
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


# --- what is found


def test_damage_in_a_note_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with regrouping(place / "world") as world:
        world.join("ap-1")
        backup = backed_up(world.first, place / "backups")
        entries = list(backup.entries())
        at = next(at for at, (_, _, entry) in enumerate(entries) if entry.group == GROUP and not entry.origin)
        position, where, note = entries[at]
        ends = Ends(backup.manifest.cluster, Checkpoint())
        with pytest.raises(StorageError, match="not a note about members"):
            ends.take(note._replace(data=note.data[:-1]), position, where)


@pytest.mark.parametrize("is_installed", [False, True])
def test_whose_commits_follow_a_note(place: Path, is_installed: bool) -> None:
    """Of a group that no checkpoint names: they are the group's, unless its state was not here."""
    with regrouping(place / "world") as world:
        found = [entry for entry in entries_of(world.first.directory) if entry.group == GROUP]
        note = encode(Adopted(world.engine().configuration, is_installed))
    ends = Ends("backups", Checkpoint())
    assert ends.take(found[0], 0, "here") is Taken.ABOVE
    ends.take(Entry(GROUP, NO_ORIGIN, note), 10, "here")
    again = found[1] if is_installed else found[0]  # an install begins at what was stable
    assert ends.take(again, 20, "here") is (Taken.ABOVE if is_installed else Taken.NOTHING)
    assert (ends.commits, ends.groups) == ((2, [GROUP]) if is_installed else (0, []))


def test_a_node_that_nobody_knows_is_refused(place: Path) -> None:
    with regrouping(place / "world") as world:
        joiner = world.join("ap-1")
        backup = backed_up(joiner, place / "backups")
        assert restore(backup, place / "new", world.cluster, "ap-1").replica.startswith("ap-1.")
        with pytest.raises(UsageError, match=r"there are r0-1, r1-1, ap-1"):
            restore(backup, place / "other", world.cluster, "sa-1")
