"""``crdtstore log verify`` of what a node has left: it says ``sound`` of nothing that a start refuses, and blames the file that it is."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.engine.checkpoint import read_node
from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.inspection import Part, Started, inspect
from crdtstore.storage.rows import LEAVES, OPERATIONS, PREFIX_BYTES, row_path
from crdtstore.storage.sqlite import FILE_NAME, SqliteState
from crdtstore.storage.sqlite_file import PAGE_BYTES
from crdtstore_node.log_checkpoint import checkpoint_of
from tests.node.running import Nodes, call, declare, until


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


async def refused(nodes: Nodes) -> str:
    with pytest.raises(StorageError) as error:
        await nodes.start("us")
    return error.value.detail


@pytest.fixture
async def nodes(make_nodes: Callable[..., Nodes]) -> Nodes:
    """One that was stopped; its log was cut, and goes on behind its last checkpoint."""
    engine = {"checkpoint_ms": 100, "checkpoint_bytes": 4096, "history_bytes": 1024, "retain_bytes": 1024}
    nodes = make_nodes("us", engine=engine, log={"segment_bytes": 1 << 16})
    node = await nodes.start("us")
    await declare(node, "shop", "lww_register")

    async def write(number: int) -> None:
        ops = {"ops": [{"op": "set", "value": f"{number}" * 200}]}
        headers = {"Idempotency-Key": f"write-{number}"}
        assert (
            await call(node, "POST", f"/v1/data/shop/lww_register/k{number % 50}", ops, headers=headers)
        ).status == 200

    number = 0
    async with asyncio.timeout(30):
        while node.log.held[0] == 0 or number < 100:
            number += 1
            await write(number)
    saving = node.host.saving
    assert saving is not None
    done = saving.checkpoints
    await write(number + 1)
    await until(lambda: saving.checkpoints > done and not saving.is_under_way)
    await nodes.stop("us")
    return nodes


def data_of(nodes: Nodes) -> Path:
    return nodes.directory / "data-us"


def edit(data: Path, statement: str, *parameters: bytes) -> None:
    with closing(sqlite3.connect(data / FILE_NAME, isolation_level=None)) as connection:
        assert connection.execute(statement, parameters).rowcount == 1


def parts(data: Path) -> list[Part]:
    return [part._replace(payload=memoryview(b"")) for part in inspect(data / "log") if isinstance(part, Part)]


async def test_what_a_node_leaves_is_sound(nodes: Nodes) -> None:
    data = data_of(nodes)
    for options, state in (([], "the file of the state (with --chain its rows too)"), (["--chain"], "the state with ")):
        result = run("verify", data, *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1].startswith("sound: ")
        assert state in result.stdout
    document = json.loads(run("verify", data, "--chain", "--json").stdout)
    with SqliteState.open(data) as store:
        node = read_node(store)
    assert node is not None
    assert document["state"] == {
        "file": str(data / FILE_NAME),
        "is_there": True,
        "rows": sum(node.counts.values()),
        "damage": [],
    }
    assert node.logged > node.needed > 0


@pytest.mark.parametrize("lose", ["cut short", "zeroed"])
async def test_a_log_that_ends_before_the_checkpoint_was_made_is_damaged(nodes: Nodes, lose: str) -> None:
    """Every block that is left is whole, so by itself nothing seems to be wrong."""
    data = data_of(nodes)
    checkpoint = checkpoint_of(data)
    assert checkpoint is not None
    last = next(part for part in parts(data) if part.position == checkpoint.logged)
    assert checkpoint.needed < last.position
    for later in {part.path for part in parts(data) if part.path > last.path}:  # all behind it is lost too
        later.unlink()
    content = last.path.read_bytes()
    spoilt = content[: last.offset + 40]
    last.path.write_bytes(spoilt + (bytes(len(content) - len(spoilt)) if lose == "zeroed" else b""))
    result = run("verify", data)
    assert result.exit_code == 1
    assert (
        f"{last.path.name}: damaged at byte {last.offset}: 40 bytes: the log ends at position {last.position}"
        in result.stdout
    )
    assert f"a block at {checkpoint.logged} was durable. Acknowledged commits are missing" in result.stdout
    assert "torn" not in result.stdout
    assert json.loads(run("verify", data, "--json").stdout)["torn"] is None


async def test_a_log_that_was_cut_needs_its_checkpoint(nodes: Nodes) -> None:
    data = data_of(nodes)
    first = next(each for each in inspect(data / "log") if isinstance(each, Started))
    (data / FILE_NAME).unlink()
    result = run("verify", data)
    assert result.exit_code == 1
    missing = segment.path_of(data / "log", first.generation - 1)
    why = f"no file, the log begins at position {first.position}, but everything from 0 on is needed"
    assert f"{missing}: damaged at byte 0: {first.position:,} bytes: {why}" in result.stdout
    assert first.path.name not in result.stdout, "that one is whole"
    assert f"{missing}: damaged at byte 0: {why}" in await refused(nodes)


async def test_without_a_checkpoint_a_log_from_its_beginning_is_sound(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us")
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    await nodes.stop("us")
    (data_of(nodes) / FILE_NAME).unlink()
    result = run("verify", data_of(nodes), "--chain")
    assert result.exit_code == 0, result.output
    assert "; there is no state beside it" in result.stdout


@pytest.mark.parametrize("command", ["verify", "dump", "stats"])
async def test_a_log_that_was_removed_is_not_wrong_use(nodes: Nodes, command: str) -> None:
    data = data_of(nodes)
    for file in (data / "log").glob("*.log"):
        file.unlink()
    for directory in (data, data / "log"):
        result = run(command, directory)
        assert result.exit_code == 1
        assert f"{data / 'log'}: no segment is there, but state.sqlite is: the log was removed" in result.output
    (data / FILE_NAME).unlink()
    result = run(command, data)
    assert result.exit_code == 1
    assert "no segment and no state.sqlite is there, but identity.json is" in result.output


@pytest.mark.parametrize(
    "statement", ["UPDATE state SET data = CAST(data || x'00' AS BLOB)", "DELETE FROM state"], ids=["other", "gone"]
)
@pytest.mark.parametrize("space", [LEAVES, OPERATIONS])
async def test_a_row_that_is_not_what_was_written_is_found_with_chain(nodes: Nodes, statement: str, space: int) -> None:
    data = data_of(nodes)
    with SqliteState.open(data) as store:
        node = read_node(store)
        assert node is not None
        number = node.groups["shop/0"]
        start = row_path(number, space, [])
        [[path, _]] = store.rows(start, row_path(number, space + 1, []), 1)
    edit(data, f"{statement} WHERE path = ?", path)
    assert len(path) > PREFIX_BYTES
    assert run("verify", data).exit_code == 0, "not looked at, as it says"
    result = run("verify", "--chain", data)
    assert result.exit_code == 1
    first, *_, last = result.stdout.splitlines()
    assert first.startswith(f"{data / FILE_NAME}: ")
    if "DELETE" in statement:
        assert "shop/0: the " in first
        assert ("state digest" if space == LEAVES else f"it was written with {node.counts['shop/0']}") in first
    else:
        assert "damaged" in first
    assert last.startswith("DAMAGED at 1 place. Sound are ")
    document: dict[str, Any] = json.loads(run("verify", "--chain", "--json", data).stdout)
    assert not document["sound"]
    assert document["damaged_places"] == 0
    assert [each["file"] for each in document["state"]["damage"]] == [str(data / FILE_NAME)]


@pytest.mark.parametrize("size", [0, 50, 4096, 12_000])
async def test_a_state_that_is_cut_short_is_damaged(nodes: Nodes, size: int) -> None:
    data = data_of(nodes)
    content = (data / FILE_NAME).read_bytes()
    (data / FILE_NAME).write_bytes(content[:size])
    result = run("verify", data)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{data / FILE_NAME}: ")
    assert "sound: " not in result.stdout
    assert (data / FILE_NAME).read_bytes() == content[:size]


async def test_pages_of_the_state_that_are_spoilt_are_found(nodes: Nodes, tmp_path: Path) -> None:
    """Without reading rows where it breaks the structure of the file; a page may be free, and then nothing is wrong."""
    content = (data_of(nodes) / FILE_NAME).read_bytes()
    pages = len(content) // PAGE_BYTES
    looks = min(8, pages - 1)
    copy = tmp_path / "copy"
    shutil.copytree(data_of(nodes), copy)
    found = {"zeroed": 0, "flipped": 0}
    for number in range(1, looks + 1):
        at = number * pages // (looks + 1) * PAGE_BYTES
        for what in found:
            spoilt = bytearray(content)
            if what == "zeroed":
                spoilt[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)
            else:
                spoilt[at + 2000 : at + 2040] = bytes(byte ^ 0x55 for byte in spoilt[at + 2000 : at + 2040])
            (copy / FILE_NAME).write_bytes(spoilt)
            found[what] += run("verify", copy, *(["--chain"] if what == "flipped" else [])).exit_code
    assert min(found.values()) >= looks // 2
