"""README.md tells the truth: its outputs are those of the last real run, its figures follow from the data, its links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.readme import RUNS, TRANSCRIPTS, blocks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_an_output_is_that_of_the_last_run(name: str) -> None:
    assert blocks(README)[name] == (RUNS / f"{name}.txt").read_text(), "run make readme"


def test_the_outputs_are_of_runs_that_went_well() -> None:
    shown = blocks(README)
    assert "verdict: ok" in shown["demo"]
    assert "lose 267 of 5,175 departures (model); ours lost 0" in shown["demo"]
    assert re.search(r"departures, sum over 87 destinations +5,175 +5,175 +5,175 +5,175 +ok", shown["demo"])
    assert "converged: all regions hold the same" in shown["operator"]
    assert "checkers            convergence ok" in shown["researcher"]
    assert shown["developer"].rstrip().endswith("Nothing changed.")


def test_its_python_compiles() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert examples
    for example in examples:
        ast.parse(example)


def test_its_links_and_tests_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"`((?:tests|node|docs)/[\w/.-]+)`", README)
    assert links
    assert named
    for path in [*links, *named]:
        assert (ROOT / path).exists(), path
