"""docs/types.md is what its generator gives now: every example runs, every outcome is that of the engine."""

from __future__ import annotations

import re

import pytest

from crdtstore.types import REGISTRY
from tools.catalogue import CATALOGUE
from tools.types_page import PAGE, head, section


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
