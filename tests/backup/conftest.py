"""Where backups are tested: in memory where there is room, since nothing here is about the power going, and syncs are dear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from tests.backup.world import World, random_life

_MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="crdtstore-test-", dir=_MEMORY) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _as_important_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup gives way to its node; run inside of a test, all later tests would."""
    monkeypatch.setattr(os, "nice", lambda increment: 0)


@pytest.fixture(autouse=True)
def _no_checkpoint_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of a node comes soon; a world here has those that its test asks for."""
    monkeypatch.setattr("crdtstore.saving._FIRST_MS", 3_600_000)


def a_life(place: Path) -> World:
    """A node alone, with a checkpoint and more behind it."""
    world = World(place / "world", 1)
    world.declare(0, "shop", "counter")
    op = {"collection": "counter", "key": "a", "op": "add"}
    world.ask(0, "commit", domain="shop", ops=[op], id="mine")  # an operation id is a row too
    random_life(world, 30, checkpoint_at=(15,))
    return world


@pytest.fixture
def folder(place: Path) -> Path:
    """A backup of several objects of each kind."""
    world = a_life(place)
    try:
        taken = take(world.first.directory, Folder(place / "backups"), chunk_bytes=1_500)
    finally:
        world.close()
    assert {part.kind for part in taken.manifest.objects} == {"rows", "blocks"}
    return place / "backups" / taken.name
