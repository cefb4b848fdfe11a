"""``crdtstore log`` where members change: notes are told in words, are no commits, and what installs leave is no damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.membership.notes import Adopted, Leaving, encode
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.host import Host, HostOutput
from crdtstore.install.parts import End, decode_body
from crdtstore.messages import Message, Part
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import NO_ORIGIN, Entry
from crdtstore.storage.sqlite import FILE_NAME as STATE_NAME
from crdtstore_node.log_checkpoint import checkpoint_of
from tests.backup.regrouping import GROUP, Joiner, Regrouping, fill, regrouping
from tests.backup.world import OPTIONS, Replica
from tests.node.running import Nodes

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


def verified(data: Path, code: int = 0) -> dict[str, Any]:
    result = run("verify", "--chain", "--json", data)
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def dumped(data: Path, *options: str) -> list[dict[str, Any]]:
    result = run("dump", "--json", "--limit", "0", *options, data)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Regrouping]:
    with regrouping(tmp_path) as world:
        yield world


def change(world: Regrouping) -> tuple[Joiner, Replica]:
    """One joins, a founder is evicted, and everybody else writes."""
    joiner = world.join("ap-1")
    fill(world, "late", 10)
    world.run(1_000)
    gone = world.replicas[1]
    world.stop(gone)
    world.evict(gone)
    fill(world, "after", 3)
    world.run(1_000)
    return joiner, gone


def is_end(message: Message) -> bool:
    return isinstance(message, Part) and message.number >= 0 and isinstance(decode_body(message.body), End)


def interrupted(world: Regrouping) -> Joiner:
    """A joiner that has all of ``shop`` but the word that it is all; some of it is history."""
    world.drops = lambda message: isinstance(message, Part)
    joiner = world.join("ap-1", is_waited_for=False)
    world.until(lambda: all(joiner.me in each.host.groups[GROUP].configuration.ids for each in world.replicas[:2]))
    for at in (0, 1):
        for number in range(15):
            world.write(at, f"shop/counter/history-{number}", op="add", amount=1)
    world.run(200)
    world.drops = lambda message: is_end(message) and getattr(message, "group", "") == GROUP
    world.until(lambda: world.engine(SYSTEM_GROUP, joiner).is_installed)
    world.run(3_000)
    assert not world.engine(GROUP, joiner).is_installed
    return joiner


# --- what is shown


def test_notes_are_told_in_words_and_are_no_commits(world: Regrouping) -> None:
    joiner, gone = change(world)
    for replica in world.replicas:
        document = verified(replica.directory)
        heads = {(head["group"], head["origin"]): head["seq"] for head in document["heads"]}
        engine = world.engine(GROUP, replica)
        assert heads.items() >= {(GROUP, name): engine.applied[at] for at, name in enumerate(engine.replicas)}.items()
        assert all(head["chain"] for head in document["heads"]), "each is hashed from its beginning"
        commits = [each for each in dumped(replica.directory) if "dot" in each]
        notes = [each for each in dumped(replica.directory) if "note" in each]
        assert (document["commits"], document["notes"], document["arriving"]) == (len(commits), len(notes), [])
        numbers = json.loads(run("stats", "--json", replica.directory).stdout)
        assert (numbers["commits"], numbers["notes"], numbers["undecodable"]) == (len(commits), len(notes), 0)
        assert f"{len(notes)} about members" in run("stats", replica.directory).stdout
        assert f"{len(notes)} notes about members" in run("verify", "--chain", replica.directory).stdout
    last = [each for each in dumped(joiner.directory, "--group", GROUP) if each.get("note") == "configuration"][-1]
    final = world.engine().configuration.finals[gone.me]
    assert last["members"] == [world.first.me, joiner.me]
    assert last["removed"] == [{"replica": gone.me, "final": final}]
    shown = run("dump", joiner.directory).stdout
    assert f"configuration {last['configuration']}: members {world.first.me}, {joiner.me}" in shown
    assert f"removed {gone.me} (final {final})" in shown
    assert "installed: the state that the others had is here" in shown
    assert "a vote: promised ballot 1 of" in shown
    assert not [each for each in dumped(joiner.directory, "--origin", "ap-1") if "note" in each]


def test_a_stopped_node_says_the_same(world: Regrouping) -> None:
    joiner, _ = change(world)
    live = verified(joiner.directory)
    world.stop(joiner)
    assert verified(joiner.directory) == live
    assert run("verify", joiner.directory).exit_code == 0


def test_what_was_kept_of_an_id_that_was_left_is_looked_at_as_well(world: Regrouping) -> None:
    joiner, _ = change(world)
    live = verified(joiner.directory)
    world.stop(joiner)
    kept = joiner.directory / "left" / joiner.me
    kept.mkdir(parents=True)
    for path in [path for path in joiner.directory.iterdir() if path.name.startswith(("log", STATE_NAME))]:
        path.rename(kept / path.name)
    names = ("commits", "notes", "heads", "damage", "begins", "ends")
    assert [verified(kept)[name] for name in names] == [live[name] for name in names]


def test_who_leaves_says_so(world: Regrouping) -> None:
    joiner, out = world.join("ap-1"), HostOutput()
    joiner.host.leave(world.now_ms, out)
    joiner.host.finish(world.now_ms, out)
    joiner.step(world.now_ms, *joiner._carry_out(out))
    assert "leaving: this replica makes no commit any more" in run("dump", joiner.directory).stdout
    verified(joiner.directory)


async def test_the_counter_of_commits_leaves_out_notes(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes().start("us")
    before, out, now_ms = node.driver.commits_logged, HostOutput(), node.driver.clock.now_ms()
    records = node.driver.records
    node.host.leave(now_ms, out)
    node.host.finish(now_ms, out)
    assert [entry.data for entry in out.persist if entry.group] == [encode(Leaving())]
    node.driver._carry_out(out, now_ms)
    assert (node.driver.commits_logged, node.driver.records) == (before, records + 1)


# --- what installs leave


def test_an_install_under_way_is_no_damage(world: Regrouping) -> None:
    joiner = interrupted(world)
    joiner.checkpoint(world.now_ms)  # commits rows that nobody names yet
    document = verified(joiner.directory)
    assert document["arriving"] == [GROUP]
    assert {head["group"] for head in document["heads"]} == set(), "all of _sys was stable when it came"
    assert document["commits"] >= 30, "its history is in the log already"
    assert f"{GROUP}  its state is not here" in run("verify", "--chain", joiner.directory).stdout


def test_what_failed_attempts_left_is_passed_over(world: Regrouping) -> None:
    joiner = interrupted(world)
    world.run(25_000)  # nothing more is heard of its sender: it begins anew
    world.drops = lambda message: False
    world.until(lambda: world.is_installed(joiner))
    checkpoint = checkpoint_of(joiner.directory)
    assert checkpoint is not None
    assert checkpoint.begins[GROUP] > 0
    document = verified(joiner.directory)
    engine = world.engine(GROUP, joiner)
    dots = [each["dot"] for each in dumped(joiner.directory, "--group", GROUP) if "dot" in each]
    assert len(dots) > len(set(dots)), "what came twice stands there twice"
    assert {head["origin"]: head["seq"] for head in document["heads"]}.items() <= dict(
        zip(engine.replicas, engine.applied, strict=True)
    ).items()
    fill(world, "then", 2)
    world.run(500)
    verified(joiner.directory)


def test_a_start_passes_over_an_install_whose_first_note_was_cut_off(world: Regrouping) -> None:
    joiner = interrupted(world)
    world.replicas.remove(joiner)
    joiner.close()
    with SegmentedLog.open(joiner.directory / "log") as log:
        records = [
            (position, [entry for entry in entries if (entry.group, entry.origin) != (GROUP, NO_ORIGIN)])
            for position, entries in log.replay()
        ]
    assert any(entry.group == GROUP for _, entries in records for entry in entries)
    host = Host(world.cluster, joiner.member, OPTIONS, Random(1), MemoryState())
    with pytest.raises(ProtocolError, match="not declared before it"):
        host.recover(records)
    host = Host(world.cluster, joiner.member, OPTIONS, Random(1), MemoryState())
    assert host.saving is not None
    host.saving.needed = 1
    host.recover([(at, [each for each in entries if each.group == GROUP]) for at, entries in records])
    assert GROUP not in host.groups


# --- what is damaged


def test_a_joiner_without_its_state_is_damaged(world: Regrouping) -> None:
    joiner, _ = change(world)
    world.stop(joiner)
    for path in joiner.directory.glob(f"{STATE_NAME}*"):
        path.unlink()
    document = verified(joiner.directory, code=1)
    assert {place["why"].split()[0] for place in document["damage"]} == {GROUP, SYSTEM_GROUP}
    assert "what was taken over from others is missing" in document["damage"][0]["why"]
    with pytest.raises(StorageError, match="no checkpoint here holds it any more"):
        joiner.start()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda note: b"\xc1", "not a note about members"),
        (lambda note: encode(note)[:-1] + b"\x07", "not a note about members"),
        (lambda note: encode(note).replace(b"ap-1.", b"ap\xff1."), "not a note about members"),
        (lambda note: encode(Adopted(_altered(note, epochs=()))), "line does not lead to it"),
        (lambda note: encode(Adopted(_altered(note, number=0))), "does not follow"),
        (lambda note: encode(Adopted(_altered(note, members=note.configuration.members[1:]))), "vanished between"),
        (lambda note: encode(Adopted(_altered(note, members=note.configuration.members * 2))), "names somebody twice"),
    ],
    ids=["no note", "altered", "no text", "no line", "backwards", "vanished", "twice"],
)
def test_damage_in_a_note_is_found(world: Regrouping, spoil: Callable[[Adopted], bytes], why: str) -> None:
    """Its checksum is right: it was spoilt before it was written."""
    world.join("ap-1")
    replica = world.first
    world.replicas.remove(replica)
    replica.close()
    note = Adopted(world.engine(GROUP, world.replicas[0]).configuration)
    with SegmentedLog.open(replica.directory / "log") as log:
        list(log.replay())
        position = log.write([log.encode([Entry(GROUP, NO_ORIGIN, encode(note))])])
    verified(replica.directory)  # once more is no damage
    with SegmentedLog.open(replica.directory / "log") as log:
        list(log.replay())
        log.write([log.encode([Entry(GROUP, NO_ORIGIN, spoil(note))])])
    document = verified(replica.directory, code=1)
    assert document["damaged_places"] == 1
    assert why in document["damage"][0]["why"]
    assert document["damage"][0]["offset"] > position
    shown = run("dump", "--limit", "0", replica.directory)
    assert shown.exit_code == int(not why.startswith(("does not", "vanished"))), shown.output
    assert run("verify", replica.directory).exit_code == 0, "without --chain only checksums are looked at"


def _altered(note: Adopted, **fields: Any) -> Any:
    values = {name: getattr(note.configuration, name) for name in note.configuration.__struct_fields__}
    return type(note.configuration)(**{**values, **fields})


def test_a_flipped_bit_in_a_note_is_found(world: Regrouping) -> None:
    world.join("ap-1")
    replica = world.first
    where = next(each for each in dumped(replica.directory) if each.get("note") == "configuration")
    path = next((replica.directory / "log").glob("*1.log"))
    content = bytearray(path.read_bytes())
    content[where["position"] + 100] ^= 4
    path.write_bytes(content)
    assert verified(replica.directory, code=1)["damaged_places"] >= 1
