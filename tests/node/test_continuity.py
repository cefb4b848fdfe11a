"""What is concluded at a start from identity, seal and anchor: with real files, real locks, real copies."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crdtstore.errors import StorageError
from crdtstore_node.identity import (
    FILE_NAME,
    LOG_NAME,
    SEAL_NAME,
    RestoredFrom,
    Verdict,
    continuity,
    seal,
    write_identity,
)
from tests.node.machines import CLUSTER, US, Machine, Run, copy, put_back

# --- the same directory


def test_an_id_that_was_taken_just_now_is_fresh(machine: Machine) -> None:
    run = machine.start(machine.directory / "data", is_bootstrap=True)
    assert run.found.verdict is Verdict.FRESH
    assert not run.found.must_leave
    assert not run.found.must_ask
    run.kill()


def test_a_start_in_the_same_boot_is_proven(machine: Machine) -> None:
    data = machine.new()
    for _ in range(3):
        run = machine.start(data)
        assert run.found.verdict is Verdict.PROVEN, run.found
        run.go_on()
        run.commit()
        run.kill()


def test_a_log_that_reaches_further_than_the_anchor_is_proven(machine: Machine) -> None:
    """The process was killed between the sync and the anchor."""
    data = machine.new()
    run = machine.start(data)
    run.go_on()
    before, run.anchor = run.anchor, None
    run.commit()
    run.anchor = before
    run.kill()
    assert machine.check(data).verdict is Verdict.PROVEN


def test_who_goes_on_holds_what_was_not_held_before(machine: Machine) -> None:
    """Else a copy of what the anchor knew last could be put back."""
    data = machine.new()
    older = copy(data, machine.directory / "older")
    run = machine.start(data)
    run.commit()  # and killed before the anchor
    run.kill()
    run = machine.start(data)
    run.go_on()
    run.kill()
    put_back(older, data)
    assert machine.check(data).verdict is Verdict.FORGOTTEN


def test_a_crash_before_the_anchor_is_no_contradiction_in_an_emptied_directory(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = machine.new()
    for _ in range(3):  # each makes an anchor anew
        shutil.rmtree(machine.memory)
        machine.memory.mkdir()
        run = machine.start(data)
        run.go_on()
        run.kill()
    for path in (data / FILE_NAME, data / SEAL_NAME, *(data / LOG_NAME).glob("*.log")):
        path.unlink()
    run = machine.start(data)  # takes a new id: it joins
    with monkeypatch.context() as patch:
        patch.setattr(continuity, "make_anchor", lambda *_: None)
        run.go_on()
    run.kill()
    assert machine.check(data).verdict is Verdict.SEALED


def test_a_moved_directory_is_the_same_one(machine: Machine) -> None:
    data = machine.new()
    moved = data.rename(machine.directory / "moved")
    assert machine.check(moved).verdict is Verdict.PROVEN
    machine.boot()
    assert machine.check(moved).verdict is Verdict.SEALED


def test_after_a_reboot_it_is_sealed_until_it_goes_on(machine: Machine) -> None:
    data = machine.new()
    machine.boot()
    for _ in range(2):  # asking is no proof
        found = machine.check(data)
        assert found.verdict is Verdict.SEALED
        assert found.must_ask
        assert not found.must_leave
    run = machine.start(data)
    run.go_on()
    run.kill()
    assert machine.check(data).verdict is Verdict.PROVEN


def test_an_anchor_of_another_boot_proves_nothing(machine: Machine) -> None:
    """Its folder is on a disk after all."""
    data = machine.new()
    kept = {path: path.read_bytes() for path in machine.memory.rglob("*") if path.is_file()}
    machine.boot()
    for path, held in kept.items():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(held)
        path.chmod(0o600)
    assert machine.check(data).verdict is Verdict.SEALED


@pytest.mark.parametrize("missing", ["places", "folder", "boot id"])
def test_without_a_memory_every_start_asks(machine: Machine, missing: str) -> None:
    if missing == "places":
        machine.places = []
    elif missing == "folder":
        machine.places = [machine.directory / "none"]
    else:
        machine.boot_without_id()
    data = machine.new()
    run = machine.start(data)
    assert run.found.verdict is Verdict.SEALED
    run.go_on()
    assert run.anchor is None
    run.commit()
    run.kill()
    assert machine.check(data).verdict is Verdict.SEALED


def test_a_crash_before_the_anchor_was_made_is_no_contradiction(machine: Machine) -> None:
    run = machine.start(machine.directory / "data", is_bootstrap=True)
    run.kill()
    assert machine.check(run.data).verdict is Verdict.SEALED


def test_a_crash_between_seal_and_identity_is_a_bootstrap_again(machine: Machine) -> None:
    data = machine.new()
    (data / FILE_NAME).unlink()
    for path in (data / LOG_NAME).glob("*.log"):
        path.unlink()
    run = machine.start(data, is_bootstrap=True)
    assert run.found.verdict is Verdict.FRESH
    run.go_on()
    run.kill()
    assert machine.check(data).verdict is Verdict.PROVEN


# --- seals


def change_seal(data: Path, **fields: object) -> None:
    path = data / SEAL_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("machine", "0" * 16, r"the machine .* and was 0000000000000000 when"),
        ("file_system", "ffff", "the file system of the log's directory is .*, and was ffff when"),
        ("inode", 5, "the inode .* and was 5 when"),
        ("birth_ns", 5, "the birth time .* and was 5 when"),
        ("birth_ns", None, "the birth time .* and was unknown when"),
        ("replica", "us-1.00000000000000ff", r"the seal is of us-1\.00000000000000ff"),
        ("format", 2, "seal.json has format 2, this program reads 1"),
        ("anchor", "x", "seal.json is not what was written there: .*anchor"),
        ("more", 1, "seal.json is not what was written there: .*more"),
    ],
)
def test_an_altered_seal_is_named(machine: Machine, field: str, value: object, said: str) -> None:
    data = machine.new()
    machine.boot()
    change_seal(data, **{field: value})
    found = machine.check(data)
    assert found.verdict is Verdict.UNPROVEN
    assert re.search(said, found.reason), found.reason


def test_without_a_seal_nothing_says_that_it_is_no_copy(machine: Machine) -> None:
    data = machine.new()
    (data / SEAL_NAME).unlink()
    found = machine.check(data)
    assert (found.verdict, found.reason) == (
        Verdict.UNPROVEN,
        "there is no seal.json, so nothing says that this is no copy",
    )


def test_a_seal_that_cannot_be_read_ends_no_id(machine: Machine) -> None:
    data = machine.new()
    (data / SEAL_NAME).unlink()
    (data / SEAL_NAME).mkdir()
    with pytest.raises(StorageError, match=r"seal\.json: Is a directory"):
        machine.check(data)


def test_a_machine_that_gets_another_id_while_it_runs_is_sealed_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = machine.new()
    monkeypatch.setattr(seal, "_machine", lambda: "another")
    run = machine.start(data)
    assert run.found.verdict is Verdict.PROVEN
    run.go_on()
    run.kill()
    assert machine.check(data).verdict is Verdict.PROVEN
    machine.boot()
    assert machine.check(data).verdict is Verdict.SEALED


def test_a_restored_directory_is_never_continued(machine: Machine) -> None:
    data = machine.new()
    source = RestoredFrom(replica="eu-1.0000000000000002", manifest="m", taken="t", restored="r")
    write_identity(data, CLUSTER, US.replica, source)
    found = machine.check(data)
    assert found.verdict is Verdict.UNPROVEN
    assert found.reason == "restored from a backup of eu-1.0000000000000002, and never joined"


def test_a_full_disk_stops_no_start_and_makes_no_anchor(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    data = machine.new()
    machine.boot()
    run = machine.start(data)
    before = (data / SEAL_NAME).read_bytes()

    def full(code: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "replace", fail)

    full(errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        run.go_on()
    full(errno.ENOSPC)
    run.go_on()
    monkeypatch.undo()
    assert run.anchor is None
    assert (data / SEAL_NAME).read_bytes() == before
    assert not (data / (SEAL_NAME + ".new")).exists()
    run.kill()


# --- processes


_PROCESS = """
import sys
from pathlib import Path
from tests.node.machines import Run
run = Run(Path(sys.argv[1]), [Path(sys.argv[2])], is_bootstrap=True)
print(run.found.verdict, flush=True)
run.go_on()
while True:
    run.commit()
    print(run.log.position, flush=True)
"""


def test_a_process_that_is_killed_amid_writes_is_proven(tmp_path: Path) -> None:
    data, memory = tmp_path / "data", tmp_path / "memory"
    memory.mkdir()
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": f"{root}:{root / 'node'}"}
    verdicts, told = [], 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(data), str(memory)], stdout=subprocess.PIPE, text=True, env=environ
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20)]
            process.kill()
            lines += process.stdout.readlines()
        verdicts.append(lines[0].strip())
        told = int([line for line in lines[1:] if line.endswith("\n")][-1])
    assert verdicts == ["fresh", "proven", "proven", "proven"]
    run = Run(data, [memory])
    assert run.log.position >= told
    run.kill()
