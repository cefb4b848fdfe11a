"""docs/api.md names every type, operation, option and limit as the code has it."""

from __future__ import annotations

from pathlib import Path

from crdtstore.members import MAX_LOOKED, MAX_PAGE_BYTES
from crdtstore.ops import MAX_FIELD_BYTES, MAX_STEPS
from crdtstore.requests import MAX_LIST
from crdtstore.types import REGISTRY, Argument

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def _row(name: str) -> str:
    return next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))


def _shown(argument: Argument) -> str:
    is_plain = argument.required or argument.default is None
    return argument.name if is_plain else f"{argument.name}={argument.default}"


def test_every_type_has_its_operations_and_options() -> None:
    for name, crdt in REGISTRY.items():
        row = _row(name)
        for mutator in crdt.mutators.values():
            if mutator.name != "expire":  # said once for all types
                arguments = [_shown(each) for each in mutator.arguments]
                assert " ".join([f"`{mutator.name}", *arguments]) + "`" in row, (name, mutator.name)
        for option in crdt.options:
            assert f"`{option}`" in row
    for name in [name for name, crdt in REGISTRY.items() if not crdt.deletable]:
        assert name in ("bounded_counter", "event_log", "g_set")


def test_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_STEPS} steps" in PAGE
    assert f"at most {MAX_FIELD_BYTES} bytes" in PAGE
    assert f"a look at {MAX_LOOKED:,} keys" in PAGE
    assert (MAX_PAGE_BYTES, MAX_LIST) == (1 << 20, 1_000)
    assert "`limit=100` (to 1,000)" in PAGE
    assert "any type but `bounded_counter`" in PAGE
    assert [name for name, crdt in REGISTRY.items() if not crdt.nestable] in ([], ["bounded_counter"])
