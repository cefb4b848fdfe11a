"""docs/types.md is what its generator gives now: every example runs, every outcome is that of the engine."""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec
import pytest

from crdtstore.types import REGISTRY
from tools.catalogue import CATALOGUE, Op, do
from tools.types_page import PAGE, head, section
from tools.types_runs import COLLECTION, KEY, Pair


def _shown() -> dict[str, str]:
    """The page in parts, by the heading of each; what stands before the first type is under no name."""
    first, *rest = re.split(r"\n(?=## (?:" + "|".join(CATALOGUE) + r")\n)", PAGE.read_text())
    return {"": first, **{part.split("\n", 1)[0].removeprefix("## "): part for part in rest}}


def test_every_type_is_on_the_page() -> None:
    assert list(_shown()) == ["", *CATALOGUE]
    assert sorted(CATALOGUE) == sorted(REGISTRY), "a type needs a file in tools/catalogue and a line there"


def test_what_is_said_of_all_types_is_true() -> None:
    assert _shown()[""] == head(), "run make types-page"


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_is_said_of_a_type_is_true(name: str) -> None:
    assert _shown()[name].rstrip() == section(name).rstrip(), "run make types-page"


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_says_enough(name: str) -> None:
    shown, entry = _shown()[name], CATALOGUE[name]
    assert shown.count("```python") == 1
    assert re.search(r"(?m)^.*print\(.*\n?.*# \S", shown), "an example shows what it prints"
    assert any(case.us and case.eu for case in entry.cases), "what becomes of two concurrent writes?"
    assert not [line for line in shown.splitlines() if len(line) > 140 and not line.startswith("|")]


def test_its_links_lead_somewhere() -> None:
    page = PAGE.read_text()
    headings = re.findall(r"(?m)^## (.+)$", page)
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert target.removeprefix("#") in headings or (PAGE.parent / target).exists(), target


# --- figures in words


def _bytes(held: Any, seen: set[int]) -> int:
    """What something takes in memory, with all it refers to that was not met before."""
    if id(held) in seen or held is None:
        return 0
    seen.add(id(held))
    parts: list[Any] = []
    if isinstance(held, msgspec.Struct):
        parts = [getattr(held, name) for name in held.__struct_fields__ if name != "order"]
    elif isinstance(held, dict):
        parts = [*held, *held.values()]
    elif isinstance(held, list | tuple):
        parts = list(held)
    return sys.getsizeof(held) + sum(_bytes(part, seen) for part in parts)


def _bytes_each(type_name: str, ops: list[Op], *, has_id: bool = True) -> float:
    """Bytes that an operation takes until every region has it."""
    pair = Pair(type_name, {})
    for op in ops:
        if has_id:
            assert pair.write("us", op) is None
        else:
            pair.commit("us", {"collection": COLLECTION, "key": KEY, **op})
    return _bytes(pair.entry("us", type_name), set()) / len(ops)


@pytest.mark.parametrize(
    ("said", "type_name", "op", "has_id"),
    [
        (150, "aw_set", lambda n: do("add", elements=[10**9 + n]), True),
        (20, "counter", lambda n: do("add", amount=1000 + n), True),
        (16, "counter", lambda n: do("add", amount=1000 + n), False),
        (300, "text", lambda n: do("insert", index=n, text="x"), True),
    ],
)
def test_bytes_are_about_what_is_said(said: int, type_name: str, op: Any, has_id: bool) -> None:
    measured = _bytes_each(type_name, [op(n) for n in range(2_000)], has_id=has_id)
    value = sys.getsizeof(10**9) if type_name == "aw_set" else 0
    assert 0.75 * said < measured - value < 1.35 * said
    assert re.search(rf"\b{said} (bytes|if)", PAGE.read_text())
