"""``crdtstore log dump`` and ``stats``: every commit and every count, filtered, bounded, harmless to a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crdtstore.storage import segment
from crdtstore.storage.segment import OVERHEAD_BYTES
from tests.node.logs import EU, US, entry, flip, make, run

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def test_dump_shows_a_line_per_commit(tmp_path: Path) -> None:
    positions = make(tmp_path)
    lines = run("dump", tmp_path).stdout.splitlines()
    assert len(lines) == 180
    size = len(entry("shop/0", EU, 2).data)
    assert lines[4].split() == [
        *(str(positions[1]), f"{EU}:2", "2025-11-20T12:00:02.000Z", "shop/0", "by", "web", "2", "effects"),
        *(str(size), "B"),
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--group", "_sys"], 60),
        (["--origin", US], 120),
        (["--origin", "eu-1"], 60),
        (["--origin", US, "--since", "2025-11-20T12:01:01Z"], 0),
        (["--since", "2025-11-20T12:00:51Z"], 30),
        (["--since", "2025-11-20T12:00:51", "--group", "_sys"], 10),
        (["--limit", "7"], 7),
        (["--limit", "0"], 180),
    ],
)
def test_dump_filters(tmp_path: Path, options: list[str], count: int) -> None:
    make(tmp_path)
    result = run("dump", tmp_path, "--json", *options)
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(documents) == count
    assert ("there are more" in result.stderr) == (count == 7)
    if documents:
        assert set(documents[0]) == {"position", "dot", "time", "stamp", "group", "author", "effects", "bytes"}


def test_dump_goes_on_where_it_ended(tmp_path: Path) -> None:
    positions = make(tmp_path)
    document: dict[str, Any] = json.loads(
        run("dump", tmp_path, "--json", "--from", str(positions[40])).stdout.splitlines()[0]
    )
    assert (document["position"], document["dot"]) == (positions[40], f"{US}:41")


def test_dump_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    make(tmp_path, 2, author="\x1b[31mred\n" + "x" * 5000)
    stdout = run("dump", tmp_path).stdout
    assert len(stdout.splitlines()) == 6
    assert "\x1b" not in stdout
    assert '"\\u001b[31mred\\nxxx' in stdout
    assert len(stdout) < 6 * 500


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    make(tmp_path, 2)
    result = run("dump", tmp_path, "--since", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is no time like" in result.output


def test_stats_count_everything(tmp_path: Path) -> None:
    positions = make(tmp_path)
    document = json.loads(run("stats", tmp_path, "--json").stdout)
    log = tmp_path / "log"
    assert document["syncs"] == document["records"] // 2 == 60
    assert document["commits"] == 180
    assert document["file_bytes"] == sum(file.stat().st_size for file in log.glob("*.log"))
    assert document["segments"] + document["prepared"] == len(segment.generations(log))
    assert positions[-1] < document["bytes"] < positions[-1] + 1000
    assert (document["first"], document["last"]) == ("2025-11-20T12:00:01.000Z", "2025-11-20T12:01:00.000Z")
    assert [(each["group"], each["origin"], each["commits"]) for each in document["groups"]] == [
        ("_sys", US, 60),
        ("shop/0", EU, 60),
        ("shop/0", US, 60),
    ]
    assert sum(document["sync_bytes"]["at_most"].values()) == 60
    shown = run("stats", tmp_path).stdout
    assert "commits   180, " in shown
    assert f"shop/0  {EU}  60 commits" in shown


def test_an_empty_log_has_nothing_to_show(tmp_path: Path) -> None:
    make(tmp_path, 0)
    assert "sound: 0 blocks with 0 records, 0 B in 0 segments" in run("verify", tmp_path).stdout
    assert run("dump", tmp_path).stdout == ""
    assert "blocks    0" in run("stats", tmp_path).stdout


@pytest.mark.parametrize("option", ["--group", "--origin"])
def test_a_name_that_is_nobodys_is_refused(tmp_path: Path, option: str) -> None:
    make(tmp_path, 3)
    result = run("dump", tmp_path, option, "nix")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{option}: no commit that was looked at is of 'nix', but of: " in result.stderr
    assert ("_sys, shop/0" if option == "--group" else f"eu-1, {EU}, us-1, {US}") in result.stderr


def test_one_is_not_many(tmp_path: Path) -> None:
    positions = make(tmp_path, 1)
    assert f"shop/0  {EU}  1 commit  " in run("stats", tmp_path).stdout
    positions = make(tmp_path / "other", 9)
    flip(tmp_path / "other", 1, OVERHEAD_BYTES + positions[1] + 60)
    assert "damaged   at 1 place: " in run("stats", tmp_path / "other").stdout
