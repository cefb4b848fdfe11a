"""``make types-page``: write docs/types.md from the registry, from words about each type, and from what happens when they are used.

The question: how does a catalogue stay true? Nothing in it that could be asked is written by hand: names, arguments and options come from
the registry, outcomes and costs from the engine, outputs from running the examples. A test compares the page with what this gives.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crdtstore.errors import CrdtStoreError
from crdtstore.types import REGISTRY, Argument, CrdtType
from crdtstore.types._arguments import KINDS
from crdtstore.values import to_json
from tools.catalogue import CATALOGUE, Case, Entry, Example, Op
from tools.catalogue._common import ABOUT, ENDING, ENDING_CASES, ENDING_TYPE, NOT_HERE, RUNNING
from tools.types_runs import Outcome, printed, run_case, run_cost, run_example

__all__ = ["PAGE", "head", "page", "section"]

PAGE = Path(__file__).parents[1] / "docs" / "types.md"

_WIDTH = 140
_UNITS = ((3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))


# --- cells


def _json(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False)


def _duration(ms: int) -> str:
    for size, unit in _UNITS:
        if ms >= size:
            count = ms // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{ms} ms"


def _op(op: Op) -> str:
    """An operation in short: its field, its name, its arguments."""
    arguments = [f"{name}={_json(value)}" for name, value in op.items() if name not in ("op", "path")]
    words = " ".join([op["op"], *arguments])
    return f"{'.'.join(op['path'])}: `{words}`" if "path" in op else f"`{words}`"


def _ops(ops: Sequence[Op], errors: Sequence[CrdtStoreError | None] = ()) -> str:
    cells = [
        _op(op) + (f" **refused**: {error.code}" if error is not None else "")
        for op, error in zip(ops, errors or [None] * len(ops), strict=True)
    ]
    return ", ".join(cells) or "nothing"


def _seen(case: Case) -> str:
    cell = _ops(case.before)
    if case.before_eu:
        return f"us {cell}, then eu {_ops(case.before_eu)}"
    return f"{cell}, then {_duration(case.wait_ms)}" if case.wait_ms else cell


def _reading(outcome: Outcome, case: Case) -> str:
    value, conflicts = outcome.reading["value"], outcome.reading["conflicts"]
    if outcome.reading["type"] == "event_log":
        value = [{"id": event["id"], "body": event["body"]} for event in value]
    cell = f"`{_json(value)}`"
    if case.later_ms:
        cell = f"{_duration(case.later_ms)} later {cell}"
    if conflicts:
        cell += f", {conflicts} conflict{'s' if conflicts > 1 else ''}"
    if outcome.rights:
        cell += "; rights: " + ", ".join(f"{region} {amount}" for region, amount in outcome.rights.items())
    return cell


def _argument(argument: Argument, kind: str) -> str:
    if argument.required:
        return f"`{argument.name}` ({kind})"
    return f"`{argument.name}` ({kind}; {_json(argument.default)} if left out)"


# --- parts of the page


def _prose(text: str) -> str:
    """Paragraphs, filled; but for what is set as it is to be."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(each if "```" in each else _fill(each) for each in paragraphs)


def _fill(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(head: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {head} |"
    yield "|" + "---|" * (head.count("|") + 1)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _cases(type_name: str, options: dict[str, Any], cases: Sequence[Case]) -> Iterator[str]:
    rows = []
    for case in cases:
        outcome = run_case(type_name, options, case)
        later = f"{_duration(case.between_ms)} later " if case.between_ms > 10 else ""
        cells = [_ops(case.us, outcome.us), later + _ops(case.eu, outcome.eu), _reading(outcome, case), case.because]
        rows.append([_seen(case), *cells])
    return _table("both have seen | us writes | eu writes | both read | because", rows)


def _operations(crdt: CrdtType, kinds: Mapping[str, str]) -> Iterator[str]:
    rows = []
    for mutator in sorted(crdt.mutators.values(), key=lambda each: each.name == "expire"):
        arguments = [
            _argument(each, kinds.get(f"{mutator.name}.{each.name}", KINDS[each.kind])) for each in mutator.arguments
        ]
        rows.append([f"`{mutator.name}`", ", ".join(arguments) or "none", " ".join(mutator.doc.split())])
    if crdt.deletable:
        rows.append(["`delete`", "none", "Remove what this region has seen of the key."])
    return _table("operation | arguments | what it does", rows)


def _facts(crdt: CrdtType, entry: Entry) -> str:
    options = [f"`{name}` (`{_json(value)}` if left out)" for name, value in crdt.options.items()]
    facts = [
        f"A key that was never written reads `{_json(crdt.empty)}`.",
        f"The reply to a write shows {'the value after it' if crdt.shows_value else 'no value'}.",
        f"Options: {', '.join(options)}." if options else "",
        "" if crdt.nestable else "It cannot be a field of an `or_map`.",
        "" if crdt.deletable else "It has no `delete` and no `expire`.",
        *(f"Below, `{name}` is `{_json(value)}`." for name, value in entry.options.items()),
    ]
    return _fill(" ".join(filter(None, facts)))


def _costs(type_name: str, entry: Entry) -> Iterator[str]:
    rows = []
    for cost in entry.costs:
        before, after = run_cost(type_name, dict(entry.options), cost)
        rows.append([cost.what, f"{before:,}", f"{after:,}"])
    return _table("writes kept of | until every region has them | from then on", rows)


def _imports(example: Example) -> Iterator[str]:
    """The imports of its module that an example uses."""
    names = {node.id for node in ast.walk(ast.parse(inspect.getsource(example))) if isinstance(node, ast.Name)}
    module = inspect.getmodule(example)
    assert module is not None
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom):
            used = [alias.name for alias in node.names if alias.name in names - {"Domain"}]
            if used:
                yield f"from {node.module} import {', '.join(used)}"


def _example(example: Example) -> Iterator[str]:
    yield "```python"
    if imports := list(_imports(example)):
        yield from [*imports, ""]
    yield from printed(inspect.getsource(example).splitlines(), run_example(example))
    yield "```"


def section(name: str) -> str:
    """What the page says of a type."""
    crdt, entry = REGISTRY[name], CATALOGUE[name]
    lines = [f"## {name}", f"*{crdt.question}* {entry.words[0].upper()}{entry.words[1:]}.", ""]
    lines += [_prose(entry.about), "", *_operations(crdt, entry.kinds), "", _facts(crdt, entry), ""]
    lines += [*_cases(name, dict(entry.options), entry.cases), ""]
    lines += [_prose(f"**Cost.** {entry.cost}"), "", *_costs(name, entry), ""]
    lines += _example(entry.example)
    return "\n".join(lines) + "\n"


def head() -> str:
    """What the page says before it comes to each type."""
    lines = ["# Which type for which question", _prose(ABOUT), ""]
    rows = [[f"*{REGISTRY[name].question}*", entry.words, f"[`{name}`](#{name})"] for name, entry in CATALOGUE.items()]
    lines += _table("question | for example | type", rows)
    lines += ["", _prose(NOT_HERE), ""]
    lines += ["## How to read this page", _prose(RUNNING), "", "## How keys end", _prose(ENDING), ""]
    lines += _cases(ENDING_TYPE, {}, ENDING_CASES)
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/types.md as it should be."""
    return "\n".join([head(), *map(section, CATALOGUE)])


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
