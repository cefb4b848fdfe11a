"""A machine that is started again, with data directories that are started, killed, copied and put back on it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore_node.identity import (
    LOG_NAME,
    Anchor,
    Continuity,
    Joining,
    anchor,
    check_continuity,
    continue_identity,
    take_identity,
)

US = Member(make_replica_id("us-1", 1), "us")
CLUSTER = Cluster("test", bytes(16), (US, Member(make_replica_id("eu-1", 2), "eu")))
JOINING = Joining("us", "127.0.0.1:7501")


class Machine:
    """A machine with a memory, a boot, and directories that are started and killed on it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.memory = directory / "memory"
        self.memory.mkdir(parents=True)
        self.places = [self.memory]
        self._monkeypatch = monkeypatch
        self.boots = 0
        self.boot()

    def boot(self) -> None:
        """Start the machine again: another boot id, and nothing in memory."""
        self.boots += 1
        shutil.rmtree(self.memory)
        self.memory.mkdir()
        self._boot_id(f"boot-{self.boots}")

    def _boot_id(self, name: str | None) -> None:
        self._monkeypatch.setattr(anchor, "boot_id", lambda: name)

    def boot_without_id(self) -> None:
        self._boot_id(None)

    def start(self, data: Path, *, is_bootstrap: bool = False) -> Run:
        return Run(data, self.places, is_bootstrap=is_bootstrap)

    def check(self, data: Path, *, is_vouched: bool = False) -> Continuity:
        """What a start would find."""
        run = self.start(data)
        run.check(is_vouched=is_vouched)
        run.kill()
        return run.found

    def new(self, name: str = "data", size: int = 100) -> Path:
        """A directory that ran, with three commits of a size, and was killed."""
        data = self.directory / name
        run = self.start(data, is_bootstrap=True)
        run.go_on()
        run.commit(3, size)
        run.kill()
        return data


class Run:
    """A process that has a directory: takes it as the node does."""

    def __init__(self, data: Path, places: list[Path], *, is_bootstrap: bool = False) -> None:
        self.data, self.places = data, places
        self.anchor: Anchor | None = None
        self.log = SegmentedLog.open(data / LOG_NAME, 1 << 16)
        try:
            member, is_new = take_identity(
                data, CLUSTER, "us-1", is_bootstrap=is_bootstrap, joining=JOINING, places=places
            )
            self.replica = member.replica
            for _ in self.log.replay():
                pass
            self._is_new = is_new
            self.check()
        except BaseException:
            self.log.close()
            raise

    def check(self, *, is_vouched: bool = False) -> None:
        end = self.log.position
        self.found = check_continuity(self.data, end, self.places, is_new=self._is_new, is_vouched=is_vouched)

    def go_on(self) -> None:
        self.anchor = continue_identity(self.data, self.replica, self.log.position, self.places)

    def commit(self, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            self.log.write([self.log.encode([Entry("_sys/0", self.replica, b"x" * size)])])
            if self.anchor is not None:
                self.anchor.hold(self.log.position)

    def kill(self) -> None:
        self.log.close()
        if self.anchor is not None:
            self.anchor.close()


def copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def put_back(older: Path, data: Path) -> None:
    """As rsync --inplace --delete does: the files become the older ones, the directories stay what they are."""
    for directory in (data / LOG_NAME, data):
        for path in directory.iterdir():
            if path.is_file():
                path.unlink()
    for path in older.rglob("*"):
        if path.is_file():
            shutil.copy2(path, data / path.relative_to(older))
