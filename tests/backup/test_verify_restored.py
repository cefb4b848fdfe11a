"""``crdtstore log verify`` of a restored directory: its log was written anew, so it need not reach as far as the one it comes from."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore_node.backup.source import open_backup
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from crdtstore_node.log_checkpoint import checkpoint_of
from tests.backup.world import make_world, random_life, restore


def test_a_restored_directory_is_sound(place: Path) -> None:
    target = place / "backups"
    target.mkdir()
    with make_world(place / "world", seed=3) as world:
        random_life(world, 60, checkpoint_at=(20, 55))
        taken = take(world.first.directory, Folder(target))
        cluster = world.cluster
        source = checkpoint_of(world.first.directory)
    assert source is not None
    assert source.logged > 0
    restore(open_backup(str(target / taken.name)), place / "new", cluster, "r0-1")
    found = checkpoint_of(place / "new")
    assert found is not None
    assert (found.needed, found.logged) == (source.needed, 0)
    result = CliRunner().invoke(main, ["log", "verify", "--chain", str(place / "new")])
    assert result.exit_code == 0, result.output
