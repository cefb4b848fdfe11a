"""Which facts a seal compares: those that a restart keeps and a copy does not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from crdtstore_node.identity import seal
from crdtstore_node.identity.seal import Facts, difference, file_system_of, gather_facts

EXT4 = Facts("machine", "4ec2d5d3b6d007c7", os.makedev(254, 0), 12, 1_700_000_000_000_000_001)
XFS = EXT4._replace(file_system=None)
OLD_NFS = EXT4._replace(file_system=None, birth_ns=None)


def test_facts_of_a_real_directory(tmp_path: Path) -> None:
    before = time.time_ns()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    facts = gather_facts(one)
    assert facts == gather_facts(one)
    assert (facts.device, facts.inode) == (one.stat().st_dev, one.stat().st_ino)
    if facts.birth_ns is not None:  # where the file system says it
        assert abs(facts.birth_ns - before) < 10_000_000_000
    other = difference(facts, gather_facts(two))
    assert other is not None
    assert "inode" in other
    (one / "file").touch()
    assert gather_facts(one.rename(tmp_path / "three")) == facts


@pytest.mark.parametrize("facts", [EXT4, XFS])
def test_a_reboot_that_gives_the_device_another_number_changes_nothing(facts: Facts) -> None:
    """Overlay, btrfs and NFS get one at each mount, disks in the order in which they are found."""
    assert difference(facts, facts._replace(device=os.makedev(0, 77))) is None


def test_the_device_counts_where_nothing_better_is_known() -> None:
    assert difference(OLD_NFS, OLD_NFS) is None
    said = difference(OLD_NFS, OLD_NFS._replace(device=5))
    assert said is not None
    assert said.startswith(f"the device of the log's directory is 5, and was {OLD_NFS.device} when")


@pytest.mark.parametrize("facts", [EXT4, XFS, OLD_NFS, EXT4._replace(machine=None)])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"machine": "other"}, "machine"),  # a volume that was moved, or restored elsewhere
        ({"file_system": "ffff"}, "file system"),  # a snapshot of btrfs or ZFS: inode and birth are the same
        ({"inode": 13}, "inode"),  # a copy
        ({"birth_ns": 1}, "birth"),  # a copy that got the inode of what was removed before
    ],
)
def test_what_a_copy_differs_in_is_named(facts: Facts, change: dict[str, object], named: str) -> None:
    assert difference(facts, facts) is None
    for before, now in ((facts, facts._replace(**change)), (facts._replace(**change), facts)):
        said = difference(before, now)
        assert said is not None
        assert named in said.split(" is ")[0]


def test_a_fact_that_is_unknown_now_is_another() -> None:
    """Once more a join; the other way round a copy could hide."""
    for field in ("machine", "file_system", "birth_ns"):
        unknown = EXT4._replace(**{field: None})
        said = difference(EXT4, unknown)
        assert said is not None
        assert "is unknown, and was" in said
        assert difference(unknown, EXT4) is not None


@pytest.mark.parametrize(("major", "minor"), [(8, 1), (254, 0), (259, 3), (0, 300), (4095, 1_000_000)])
def test_a_device_number_is_no_id_of_a_file_system(major: int, minor: int) -> None:
    """XFS and f2fs give it as the kernel writes it; checked against huge_encode_dev of the kernel."""
    kernel = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    assert file_system_of(kernel, os.makedev(major, minor)) is None
    assert file_system_of(0, os.makedev(major, minor)) is None
    assert file_system_of(kernel + 1, os.makedev(major, minor)) == f"{kernel + 1:016x}"


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("", None), ("\n", None), ("uninitialized\n", None), ("ab12\n", "hash")]
)
def test_the_id_of_a_machine_is_only_told_as_a_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(seal, "_MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(seal, "_CONTAINER_MARKS", ())
    if text is not None:
        (tmp_path / "machine-id").write_text(text)
    machine = gather_facts(tmp_path).machine
    assert (machine is None) == (expected is None)
    if machine is not None:
        assert len(machine) == 16
        assert "ab12" not in machine


def test_the_machine_of_a_container_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman writes the container's id there: it would be another after each upgrade."""
    monkeypatch.setattr(seal, "_MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(seal, "_CONTAINER_MARKS", (tmp_path / "none", tmp_path / "mark"))
    (tmp_path / "machine-id").write_text("ab12\n")
    assert gather_facts(tmp_path).machine is not None
    (tmp_path / "mark").touch()
    assert gather_facts(tmp_path).machine is None


def test_without_statx_there_is_no_birth_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.ctypes, "CDLL", lambda name: object())
    assert gather_facts(tmp_path).birth_ns is None
