"""An install between real state files: what is pinned, written and found again there is what the doubles in memory say."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdtstore.storage.sqlite import SqliteState
from tests.engine.install_runs import check_rows, checkpoint, finish, loaded, readings, with_history, write
from tests.engine.installing import AP, EU, US, Site, World, watch_l7


class Disk(SqliteState):
    """A state file with the crashes of the double: what is not committed is gone, and so is every pin."""

    def crash(self) -> None:
        self.rollback()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    before = Site.__init__

    def with_disk(self: Site, world: World, me: object) -> None:
        before(self, world, me)  # type: ignore[arg-type]
        directory = tmp_path / self.me.node
        directory.mkdir(exist_ok=True)
        self.state = Disk.open(directory)  # type: ignore[assignment]

    monkeypatch.setattr(Site, "__init__", with_disk)
    return watch_l7(monkeypatch)


def test_it_has_what_the_others_have(broken: list[str]) -> None:
    world = loaded(World(), 300)
    site = world.join(AP)
    at = 0
    while not site.is_installed:
        write(world, US if at % 2 else EU, at)
        world.run(10)
        at += 1
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert readings(world, AP, 300) == readings(world, EU, 300)
    checkpoint(world, site)
    check_rows(site)
    assert not broken


@pytest.mark.parametrize("parts", [2, 3])
def test_it_crashes_and_begins_again(broken: list[str], parts: int) -> None:
    world = with_history()
    site = world.site(AP)
    world.parts.clear()
    site.start()
    world.run_until(lambda: len(world.parts) > parts)
    site.crash()
    site.start()
    finish(world)
    assert not broken
