"""A backup of format 1, as it was once taken: every later version restores it, and reads the same.

Files are only ever added: ``--rewrite`` writes the folder when it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crdtstore_node.backup.source import open_backup, verify
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from tests.backup.world import Reader, entries_of, make_cluster, make_world, random_life, readings, replayed, restore

GOLDEN = Path(__file__).parents[1] / "golden" / "v1" / "backup"


def write(place: Path) -> None:
    GOLDEN.mkdir()
    with make_world(place / "world", seed=1) as world:
        world.declare(
            0,
            "shop",
            "counter",
            "bounded_counter",
            "lww_register",
            "or_map",
            "text",
            "event_log",
            "rw_set",
            "max_register",
        )
        op = {"collection": "counter", "key": "a", "op": "add"}
        world.ask(0, "commit", domain="shop", ops=[op], id="mine")
        world.write(0, "shop/bounded_counter/stock", op="grant", amount=10)
        world.write(0, "shop/bounded_counter/stock", op="reserve", amount=2, ttl_ms=600_000)
        world.write(0, "shop/or_map/m", op="set", path=[["name", "lww_register"]], value="Ada")
        world.write(0, "shop/text/t", op="insert", index=0, text="héllo")
        world.write(0, "shop/event_log/l", op="append", id="e1", body={"n": 1})
        world.write(0, "shop/rw_set/s", op="add", elements=[1, "one", "two"])
        world.write(0, "shop/rw_set/s", op="remove", elements=["two"])
        world.write(0, "shop/max_register/x", op="set", value=1 << 80)
        world.write(0, "shop/lww_register/gone", op="set", value=None)
        world.write(0, "shop/lww_register/gone", op="expire", ttl_ms=3_600_000)
        random_life(world, 30, checkpoint_at=(12, 24))
        taken = take(world.first.directory, Folder(GOLDEN))
        (GOLDEN / taken.name).rename(GOLDEN / "taken")
        expected = readings(replayed(world.cluster, entries_of(world.first.directory)))
    document: dict[str, Any] = {"manifest_sha256": taken.hash, "readings": expected}
    (GOLDEN / "expected.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def test_a_backup_of_format_1_is_still_restored(place: Path, pytestconfig: pytest.Config) -> None:
    if not GOLDEN.exists() and pytestconfig.getoption("--rewrite"):
        write(place)
    expected = json.loads((GOLDEN / "expected.json").read_text())
    backup = open_backup(str(GOLDEN / "taken"))
    assert backup.hash == expected["manifest_sha256"]
    assert [check.why for check in verify(backup)] == [None, None]
    cluster = make_cluster(3)
    restore(backup, place / "new", cluster, "r0-1")
    with Reader(cluster, place / "new") as reader:
        assert readings(reader.host) == expected["readings"]
        for engine in reader.host.groups.values():
            assert engine.keyspace.tree.share([]) == engine.digest
