"""``crdtstore log verify``: what it says of a log, what a script learns from it, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from crdtstore.storage import segment
from crdtstore.storage.inspection import Started, inspect
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.segment import OVERHEAD_BYTES
from crdtstore_node import log_checks, state_checks
from crdtstore_node.log_checkpoint import Checkpoint, checkpoint_of
from crdtstore_node.log_checks import Chains, log_of, verify
from tests.node.logs import CLUSTER, EU, US, entry, files, flip, heads, make, run
from tests.node.running import Nodes, call, declare

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def test_a_sound_log_is_sound_by_either_directory_and_nothing_is_changed(tmp_path: Path) -> None:
    make(tmp_path)
    before = files(tmp_path)
    for directory in (tmp_path, tmp_path / "log"):
        for options in ([], ["--chain"]):
            result = run("verify", directory, *options)
            assert result.exit_code == 0, result.output
            assert "sound: 60 blocks with 120 records, " in result.output
    assert run("dump", tmp_path).exit_code == run("stats", tmp_path).exit_code == 0
    assert files(tmp_path) == before


def test_damage_is_named_by_segment_and_byte_and_the_exit_code_is_1(tmp_path: Path) -> None:
    positions = make(tmp_path)
    flip(tmp_path, 1, OVERHEAD_BYTES + positions[2] + 60)
    flip(tmp_path, 1, OVERHEAD_BYTES + positions[4] + 60)
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    first, second, last = result.stdout.splitlines()
    offset, size = OVERHEAD_BYTES + positions[2], positions[3] - positions[2]
    assert first.endswith(f"0000000001.log: damaged at byte {offset}: {size} bytes: no valid block")
    assert f"damaged at byte {OVERHEAD_BYTES + positions[4]}: " in second
    assert last.startswith(f"DAMAGED at 2 places, {size + positions[5] - positions[4]} bytes. Sound are 58 blocks")
    document = json.loads(run("verify", tmp_path, "--json").stdout)
    assert (document["sound"], document["damaged_places"], document["blocks"]) == (False, 2, 58)
    assert document["damage"][0] == {
        "file": str(segment.path_of(tmp_path / "log", 1)),
        "offset": OVERHEAD_BYTES + positions[2],
        "bytes": positions[3] - positions[2],
        "why": "no valid block",
    }
    assert run("dump", tmp_path).exit_code == 1
    assert "damaged   at 2 places" in run("stats", tmp_path).stdout


def test_more_places_than_are_listed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_checks, "MOST_LISTED", 2)
    positions = make(tmp_path)
    for number in (1, 3, 5, 7):
        flip(tmp_path, 1, OVERHEAD_BYTES + positions[number] + 60)
    result = run("verify", tmp_path)
    assert "... and 2 more places" in result.stdout
    assert "DAMAGED at 4 places" in result.stdout


def test_a_torn_tail_is_said_and_no_failure(tmp_path: Path) -> None:
    positions = make(tmp_path)
    last = max(segment.generations(tmp_path / "log"), key=lambda each: _position(tmp_path, each))
    offset = OVERHEAD_BYTES + positions[-1] - _position(tmp_path, last)
    flip(tmp_path, last, offset + 70)
    result = run("verify", tmp_path)
    assert result.exit_code == 0
    assert f"{last:010d}.log: torn tail at byte {offset}, " in result.stdout
    assert json.loads(run("verify", "--json", tmp_path).stdout)["torn"]["offset"] == offset
    assert run("dump", tmp_path).exit_code == 0


def _position(data: Path, generation: int) -> int:
    header = segment.read_header(segment.path_of(data / "log", generation))
    return header.position if header is not None and header.generation == generation else -1


def test_it_works_beside_the_owner_of_the_log(tmp_path: Path) -> None:
    make(tmp_path)
    with SegmentedLog.open(tmp_path / "log", 4096) as log:
        list(log.replay())
        log.write([log.encode([entry("shop/0", US, 61)])])
        assert run("verify", "--chain", tmp_path).exit_code == 0
        log.write([log.encode([entry("shop/0", US, 62)])])


# --- chains


def test_chain_hashes_are_those_of_the_store(tmp_path: Path) -> None:
    make(tmp_path, 20)
    result = run("verify", "--chain", "--json", tmp_path)
    document = json.loads(result.stdout)
    assert document["commits"] == 60
    assert document["heads"] == [
        {"group": group, "origin": origin, "seq": seq, "chain": chain.hex()}
        for (group, origin), (seq, chain) in sorted(heads(20).items())
    ]
    assert f"shop/0  {EU}:20  {heads(20)['shop/0', EU][1].hex()}" in run("verify", "--chain", tmp_path).stdout


def test_a_gap_in_an_origins_commits_is_damage_though_every_checksum_is_right(tmp_path: Path) -> None:
    make(tmp_path, 5)
    with SegmentedLog.open(tmp_path / "log", 4096) as log:
        list(log.replay())
        position = log.write([log.encode([entry("shop/0", EU, 7)])])
        log.write([log.encode([entry("shop/0", EU, 8)])])
    assert run("verify", tmp_path).exit_code == 0
    result = run("verify", "--chain", tmp_path)
    assert result.exit_code == 1
    assert f"damaged at byte {OVERHEAD_BYTES + position}: commit 7 after commit 5 of {EU} in shop/0" in result.stdout
    assert result.stdout.count("damaged at") == 1


def test_a_log_that_was_cut_is_followed_from_the_heads_of_the_checkpoint(tmp_path: Path) -> None:
    positions = make(tmp_path, 60, cut=True)
    log = log_of(tmp_path)[1]
    assert min(segment.generations(log)) > 1
    chains = Chains(CLUSTER)
    assert verify(log, chains).is_sound
    assert chains.unchecked == 3
    assert "not checked: the log begins after its first commit" in run("verify", "--chain", tmp_path).stdout
    chains = Chains(CLUSTER, Checkpoint(positions[40], heads(40), heads(50)))
    assert verify(log, chains, positions[40]).is_sound
    assert chains.unchecked == 0
    assert chains.heads == heads(60)
    wrong = {origin: (seq, bytes(32)) for origin, (seq, _) in heads(40).items()}
    report = verify(log, Chains(CLUSTER, Checkpoint(positions[40], wrong, heads(50))))
    assert [damage.why.split(" of ")[0] for damage in report.damage] == [
        "the state has another chain hash after commit 50"
    ] * 3


def test_what_the_state_holds_and_the_log_lacks_is_damage(tmp_path: Path) -> None:
    """However sound the log is by itself: here it ends too early."""
    make(tmp_path, 10)
    chains = Chains(CLUSTER, Checkpoint(0, heads(4), heads(11)))
    report = verify(tmp_path / "log", chains)
    assert [damage.why for damage in report.damage] == [
        f"the log ends with commit 10, the state holds 11 of {origin} in {group}" for group, origin in heads(11)
    ]


def test_heads_of_the_checkpoint_that_the_log_contradicts_are_damage(tmp_path: Path) -> None:
    make(tmp_path, 10)
    wrong = heads(4) | {("shop/0", EU): (4, bytes(32))}
    report = verify(tmp_path / "log", Chains(CLUSTER, Checkpoint(0, wrong, heads(10))))
    damage = report.damage[0]
    assert damage.why == f"the state has another chain hash after commit 4 of {EU} in shop/0"


def test_what_the_checkpoint_needs_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = make(tmp_path, 60, cut=True)
    for needed, is_sound in ((positions[30], True), (positions[3], False), (positions[-1] + 10_000, False)):
        checkpoint = Checkpoint(needed, {}, {})
        monkeypatch.setattr(state_checks, "checkpoint_of", lambda _, found=checkpoint: found)
        result = run("verify", tmp_path)
        assert result.exit_code == (0 if is_sound else 1), result.output
        assert is_sound or f"{needed}" in result.stdout


def test_what_a_cut_left_below_what_is_needed_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that were removed become durable in any order, and nobody needs what they named."""
    positions = make(tmp_path)
    log = tmp_path / "log"
    starts = [each.position for each in inspect(log) if isinstance(each, Started)]
    assert len(starts) > 4
    segment.path_of(log, 2).unlink()
    assert run("verify", tmp_path).exit_code == 1
    for needed, is_sound in ((starts[2], True), (positions[-1], True), (starts[2] - 1, False), (starts[1], False)):
        checkpoint = Checkpoint(needed, {}, {})
        monkeypatch.setattr(state_checks, "checkpoint_of", lambda _, found=checkpoint: found)
        assert run("verify", tmp_path).exit_code == (0 if is_sound else 1)


def test_a_first_segment_that_is_missing_is_blamed_and_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = make(tmp_path)
    log = tmp_path / "log"
    second = next(each for each in inspect(log) if isinstance(each, Started) and each.generation == 2)
    monkeypatch.setattr(state_checks, "checkpoint_of", lambda _: Checkpoint(positions[1], {}, {}))
    for what, chain in (("no file", []), ("no file", ["--chain"]), ("no valid header", [])):
        if what == "no file":
            segment.path_of(log, 1).unlink(missing_ok=True)
        else:
            segment.create(segment.path_of(log, 1), 4096)
        result = run("verify", tmp_path, *chain)
        assert result.exit_code == 1
        begins = f"the log begins at position {second.position}, but everything from {positions[1]} on is needed"
        lost = second.position - positions[1]
        assert f"0000000001.log: damaged at byte 0: {lost:,} bytes: {what}, {begins}" in result.stdout
        assert second.path.name not in result.stdout, "that one is whole"


def test_how_much_is_lost_is_said_as_far_as_it_is_known(tmp_path: Path) -> None:
    positions = make(tmp_path, 9)
    with SegmentedLog.open(tmp_path / "log", 4096) as log:
        list(log.replay())
        log.write([log.encode([entry("shop/0", EU, 11)])])
    assert "DAMAGED at 1 place. Sound are" in run("verify", "--chain", tmp_path).stdout
    flip(tmp_path, 1, OVERHEAD_BYTES + positions[1] + 60)
    size = positions[2] - positions[1]
    assert re.search(
        rf"DAMAGED at \d places, at least {size} bytes. Sound are", run("verify", "--chain", tmp_path).stdout
    )


def test_a_record_that_is_none_is_damage_for_who_decodes(tmp_path: Path) -> None:
    make(tmp_path, 3)
    with SegmentedLog.open(tmp_path / "log", 4096) as log:
        list(log.replay())
        log.write([b"\xc1"])
    assert run("verify", tmp_path).exit_code == 0
    for command in (["verify", "--chain"], ["dump"]):
        result = run(*command, tmp_path)
        assert result.exit_code == 1
        assert "the checksum is right, but not a record" in result.output
    assert json.loads(run("stats", "--json", tmp_path).stdout)["undecodable"] == 1


def test_without_an_identity_there_are_no_chains(tmp_path: Path) -> None:
    make(tmp_path, 3)
    (tmp_path / "identity.json").unlink()
    assert run("verify", tmp_path).exit_code == 0
    result = run("verify", "--chain", tmp_path)
    assert result.exit_code == 2
    assert "no identity.json" in result.output


def test_a_directory_without_a_log_is_wrong_use(tmp_path: Path) -> None:
    for command in ("verify", "dump", "stats"):
        result = run(command, tmp_path, "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)["code"] == "bad-request"
        assert "there is no log here" in result.stderr
        assert run(command, tmp_path / "nowhere").exit_code == 2


async def test_the_log_of_a_node_that_cuts_it_is_sound_while_it_runs_and_when_it_does_not(
    make_nodes: Callable[..., Nodes],
) -> None:
    """With what the checkpoint says of it, which is read beside the node; afterwards not even a file is made."""
    engine = {"checkpoint_ms": 100, "checkpoint_bytes": 4096, "history_bytes": 1024, "retain_bytes": 1024}
    nodes = make_nodes("us", engine=engine, log={"segment_bytes": 1 << 16})
    node = await nodes.start("us")
    data = nodes.directory / "data-us"
    assert checkpoint_of(data) is None
    await declare(node, "shop", "lww_register")

    async def write_until_it_was_cut() -> None:
        number = 0
        while node.log.held[0] == 0:
            number += 1
            ops = {"ops": [{"op": "set", "value": f"{number}" * 200}]}
            assert (await call(node, "POST", f"/v1/data/shop/lww_register/k{number % 50}", ops)).status == 200

    async with asyncio.timeout(30):
        await write_until_it_was_cut()
    for chain in ([], ["--chain"]):
        result = await asyncio.to_thread(run, "verify", *chain, data)
        assert result.exit_code == 0, result.output
    checkpoint = checkpoint_of(data)
    assert checkpoint is not None
    assert 0 < checkpoint.needed <= node.log.position
    await nodes.stop("us")
    before = files(data)
    document = json.loads(run("verify", "--chain", "--json", data).stdout)
    assert document["sound"]
    assert document["begins"] > 0
    assert [each["seq"] for each in document["heads"] if each["group"] == "shop/0"] == [
        node.host.groups["shop/0"].applied[0]
    ]
    assert all(each["chain"] for each in document["heads"])
    assert run("dump", data).exit_code == 0, "notes of a node to itself are no commits"
    assert json.loads(run("stats", "--json", data).stdout)["undecodable"] == 0
    assert files(data) == before
    found = checkpoint_of(data)
    assert found is not None
    first = next(each for each in inspect(data / "log") if isinstance(each, Started))
    assert first.position <= found.needed
    spoilt = bytearray(first.path.read_bytes())
    spoilt[:] = bytes(len(spoilt))
    first.path.write_bytes(spoilt)
    result = run("verify", data)
    assert result.exit_code == 1
    assert f"from {found.needed} on is needed" in result.stdout or f"saved at {found.needed}" in result.stdout
