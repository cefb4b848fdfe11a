"""A law: whatever is done with directories, no two of them go on under one id, and none goes back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crdtstore.storage.log import SegmentedLog
from crdtstore_node.identity import LOG_NAME, continuity, leave_identity
from tests.node.machines import Machine, copy, put_back

STEPS = ["commit", "go on", "copy", "swap", "put back", "boot", "leave"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=["leave", "put back", "commit"])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=12))
def test_no_two_directories_continue_one_id(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(steps, Machine(tmp_path_factory.mktemp("machine"), monkeypatch))


@pytest.mark.parametrize(
    ("plant", "value", "steps"),
    [
        ("difference", lambda sealed, now: None, ["copy"]),
        ("_forgotten", lambda *_: None, ["commit", "put back"]),
        ("_forgotten", lambda *_: None, ["leave", "put back"]),
        ("find_anchors", lambda *_: [], ["commit", "put back"]),
    ],
)
def test_the_law_is_broken_by_who_looks_away(
    plant: str, value: object, steps: list[str], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(steps, machine)
    monkeypatch.setattr(continuity, plant, value)
    with pytest.raises(AssertionError, match=r"lives in|forgot"):
        play(steps, Machine(machine.directory / "planted", monkeypatch))


def play(steps: list[str], machine: Machine) -> None:
    """One directory at most may have an id, and in one boot it never goes back."""
    first = machine.new()
    directories, older = [first], copy(first, machine.directory / "older")
    durable: dict[str, float] = {}
    for at, step in enumerate(steps):
        chosen = directories[at % len(directories)]
        if step == "boot":
            machine.boot()
            durable.clear()
        elif step == "copy":
            directories.append(copy(chosen, machine.directory / f"copy-{at}"))
        elif step == "put back":
            put_back(older, chosen)
        elif step == "swap":
            other = directories[0]
            chosen.rename(machine.directory / "aside")
            if other != chosen:
                other.rename(chosen)
            (machine.directory / "aside").rename(other)
        else:
            _run(machine, chosen, step, durable)
        _check(machine, directories, durable)


def _run(machine: Machine, data: Path, step: str, durable: dict[str, float]) -> None:
    run = machine.start(data)
    if run.found.must_leave or step == "leave":
        run.kill()
        with SegmentedLog.open(data / LOG_NAME):
            leave_identity(data, run.found.reason, machine.places)
        if not run.found.must_leave:
            durable[run.replica] = math.inf  # no log reaches as far
        run = machine.start(data)
        assert not run.found.must_leave
    run.go_on()
    run.commit(step == "commit")
    durable[run.replica] = run.log.position
    run.kill()


def _check(machine: Machine, directories: list[Path], durable: dict[str, float]) -> None:
    holders: dict[str, Path] = {}
    for data in directories:
        run = machine.start(data)
        run.kill()
        if not run.found.must_leave:
            assert run.replica not in holders, f"{run.replica} lives in {data} and {holders[run.replica]}"
            holders[run.replica] = data
            assert run.log.position >= durable.get(run.replica, 0), (
                f"{data} forgot what was durable, or that {run.replica} was left"
            )
