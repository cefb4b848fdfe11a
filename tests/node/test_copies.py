"""What is concluded of a directory that is a copy, or that was put back from one."""

from __future__ import annotations

from crdtstore.storage.log import SegmentedLog
from crdtstore_node.identity import (
    LOG_NAME,
    RestoredFrom,
    Verdict,
    leave_identity,
    write_identity,
)
from tests.node.machines import CLUSTER, US, Machine, copy, put_back


def test_a_copy_is_unproven_and_the_original_is_not(machine: Machine) -> None:
    data = machine.new()
    clone = copy(data, machine.directory / "clone")
    for _ in range(2):
        found = machine.check(clone)
        assert found.verdict is Verdict.UNPROVEN
        assert found.must_leave
        assert "copied or moved: the inode of the log's directory is" in found.reason
        machine.boot()
    assert machine.check(data).verdict is Verdict.SEALED


def test_a_copy_in_the_place_of_the_original_is_unproven(machine: Machine) -> None:
    data = machine.new()
    older = copy(data, machine.directory / "older")
    data.rename(machine.directory / "bad")
    older.rename(data)
    assert machine.check(data).verdict is Verdict.UNPROVEN


def test_a_copied_log_in_the_same_directory_is_unproven(machine: Machine) -> None:
    """The lock is in the log's directory: a process that still has the old one would not be noticed."""
    data = machine.new()
    copy(data / LOG_NAME, data / "copy")
    (data / LOG_NAME).rename(machine.directory / "elsewhere")
    (data / "copy").rename(data / LOG_NAME)
    assert machine.check(data).verdict is Verdict.UNPROVEN


def test_an_older_copy_put_back_in_place_is_forgotten(machine: Machine) -> None:
    data = machine.new()
    older = copy(data, machine.directory / "older")
    run = machine.start(data)
    run.go_on()
    run.commit()
    run.kill()
    put_back(older, data)
    found = machine.check(data)
    assert found.verdict is Verdict.FORGOTTEN
    assert found.must_leave
    assert "bytes before where it was durable" in found.reason


def test_a_copy_that_is_not_older_may_be_put_back_in_place(machine: Machine) -> None:
    data = machine.new()
    same = copy(data, machine.directory / "same")
    put_back(same, data)
    assert machine.check(data).verdict is Verdict.PROVEN


def test_after_a_reboot_only_peers_can_tell_an_older_copy_put_back_in_place(machine: Machine) -> None:
    data = machine.new()
    older = copy(data, machine.directory / "older")
    run = machine.start(data)
    run.go_on()
    run.commit()
    run.kill()
    put_back(older, data)
    machine.boot()
    assert machine.check(data).verdict is Verdict.SEALED


def test_a_copy_of_an_earlier_boot_is_forgotten_when_the_log_is_as_long(machine: Machine) -> None:
    data = machine.new()
    older = copy(data, machine.directory / "older")
    machine.boot()
    run = machine.start(data)
    run.go_on()
    run.kill()
    put_back(older, data)
    found = machine.check(data)
    assert found.verdict is Verdict.FORGOTTEN
    assert "since then us-1.0000000000000001 ran here" in found.reason


def test_a_state_from_before_an_id_was_left_is_forgotten(machine: Machine) -> None:
    data = machine.new()
    older = copy(data, machine.directory / "older")
    log = SegmentedLog.open(data / LOG_NAME)
    new = leave_identity(data, "fenced", machine.places)
    log.close()
    run = machine.start(data)
    assert (run.replica, run.found.verdict) == (new, Verdict.SEALED)
    run.go_on()
    run.kill()
    assert machine.check(data).verdict is Verdict.PROVEN
    put_back(older, data)
    assert machine.check(data).verdict is Verdict.FORGOTTEN


def test_a_torn_tail_that_was_promised_is_forgotten(machine: Machine) -> None:
    data = machine.new()
    path = data / LOG_NAME / "0000000001.log"
    held = bytearray(path.read_bytes())
    held[len(held.rstrip(b"\0")) - 1] ^= 1
    path.write_bytes(held)
    assert machine.check(data).verdict is Verdict.FORGOTTEN


def test_an_older_anchor_in_another_place_proves_nothing(machine: Machine) -> None:
    """A session's folder was there once, and is again."""
    data = machine.new()
    older = copy(data, machine.directory / "older")
    other = machine.directory / "other"
    other.mkdir()
    machine.places = [other]
    run = machine.start(data)
    assert run.found.verdict is Verdict.SEALED
    run.go_on()
    run.commit(2)
    run.kill()
    machine.places = [machine.memory]
    assert machine.check(data).verdict is Verdict.SEALED
    machine.places = [machine.memory, other]
    assert machine.check(data).verdict is Verdict.PROVEN
    put_back(older, data)
    assert machine.check(data).verdict is Verdict.FORGOTTEN


def test_an_operator_may_vouch_for_a_copy_but_not_for_what_forgot(machine: Machine) -> None:
    data = machine.new()
    clone = copy(data, machine.directory / "clone")
    found = machine.check(clone, is_vouched=True)
    assert found.verdict is Verdict.SEALED  # and peers are asked
    assert found.reason.startswith("the operator says that this is the only copy; copied or moved: the inode")
    run = machine.start(data)
    run.go_on()
    run.commit()
    run.kill()
    put_back(clone, data)
    assert machine.check(data, is_vouched=True).verdict is Verdict.FORGOTTEN
    source = RestoredFrom(replica="eu-1.0000000000000002", manifest="m", taken="t", restored="r")
    write_identity(clone, CLUSTER, US.replica, source)
    assert machine.check(clone, is_vouched=True).verdict is Verdict.UNPROVEN
