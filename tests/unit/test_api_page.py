"""docs/api.md names every type, operation, option and limit as the code has it."""

from __future__ import annotations

from pathlib import Path

from crdtstore.types import REGISTRY

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def _row(name: str) -> str:
    return next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))


def test_every_type_has_its_operations_and_options() -> None:
    for name, crdt in REGISTRY.items():
        row = _row(name)
        for mutator in crdt.mutators.values():
            arguments = [
                f"{each.name}={each.default}" if each.kind == "integer" else each.name for each in mutator.arguments
            ]
            assert " ".join([f"`{mutator.name}", *arguments]) + "`" in row, (name, mutator.name)
        for option in crdt.options:
            assert f"`{option}`" in row
    undeletable = [name for name, crdt in REGISTRY.items() if not crdt.deletable]
    assert undeletable == ["event_log"]
