"""Message-level scenarios as text: a command, ``----``, what came out of it. ``pytest --rewrite`` writes what happens now.

cluster us eu ap [option=value ...]     engines with these options, not connected
connect [us-eu ...]                     connections come up (without names: all)
cut us-eu                               a connection goes down, both sides know
add us 3 [key=k] [id=x]                 an add to a counter of ``us``
set us hello [id=x] · remove us x …     the same for the other types: see ``OPERATIONS``
sync us …                               the disk of ``us`` has written everything
deliver us-eu [n]                       the next n messages from us to eu arrive (without n: all)
lose us-eu                              what is on its way from us to eu is lost
tick 200                                so many ms pass, everybody ticks
crash us [keep=n]                       a power cut, and a start from what was synced (and n batches more)
settle                                  everything arrives and is written until all have the same
show                                    vectors, readings and whether the digests are equal
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdtstore.commit import operation_id, request_hash
from tests.engine.wire import Wire, op

SCENARIOS = sorted(Path(__file__).parent.glob("scenarios/*.txt"))

OPERATIONS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "add": ("counter", lambda text: {"amount": int(text)}),
    "set": ("lww_register", lambda text: {"value": text}),
    "put": ("aw_set", lambda text: {"elements": [text]}),
    "take": ("aw_set", lambda text: {"elements": [text]}),
}
_MUTATORS = {"put": "add", "take": "remove"}


class Stage:
    """Runs the commands of one scenario."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        assert self._wire is not None, "a scenario begins with cluster"
        return self._wire

    def run(self, command: str) -> str:
        self.lines = []
        name, *words = command.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if name in OPERATIONS or name == "delete":
            self._write(name, plain, options)
        else:
            getattr(self, f"_{name}")(plain, options)
        return "\n".join(self.lines) or "nothing"

    def _cluster(self, names: list[str], options: dict[str, str]) -> None:
        self._wire = Wire(*names, **{name: int(value) for name, value in options.items()})
        self._wire.watch = lambda where, what: self.lines.append(f"{where}  {what}")

    def _connect(self, pairs: list[str], options: dict[str, str]) -> None:
        self.wire.connect(*((pair.split("-")[0], pair.split("-")[1]) for pair in pairs))

    def _cut(self, pairs: list[str], options: dict[str, str]) -> None:
        for pair in pairs:
            self.wire.cut(*pair.split("-"))

    def _write(self, name: str, words: list[str], options: dict[str, str]) -> None:
        where, *text = words
        type_name, arguments = OPERATIONS.get(name, (options.get("type", "counter"), lambda text: {"amount": text}))
        given = arguments(*text) if text else {}
        key = options.get("key", "k")
        operation = (operation_id("anonymous", options["id"]), request_hash([name, given])) if "id" in options else None
        self.wire.write(where, op(type_name, key, _MUTATORS.get(name, name), **given), operation=operation)

    def _sync(self, names: list[str], options: dict[str, str]) -> None:
        self.wire.sync(*names)

    def _deliver(self, words: list[str], options: dict[str, str]) -> None:
        source, target = words[0].split("-")
        self.wire.deliver(source, target, *(int(word) for word in words[1:]))

    def _lose(self, pairs: list[str], options: dict[str, str]) -> None:
        for pair in pairs:
            self.lines.append(f"{self.wire.lose(*pair.split('-'))} lost")

    def _tick(self, words: list[str], options: dict[str, str]) -> None:
        self.wire.tick(int(words[0]))

    def _crash(self, words: list[str], options: dict[str, str]) -> None:
        self.wire.crash(words[0], int(options.get("keep", "0")))

    def _settle(self, words: list[str], options: dict[str, str]) -> None:
        watch, self.wire.watch = self.wire.watch, lambda where, what: None
        started = self.wire.now_ms
        self.wire.settle()
        self.wire.watch = watch
        self.lines.append(f"after {self.wire.now_ms - started} ms")

    def _show(self, words: list[str], options: dict[str, str]) -> None:
        for name, engine in self.wire.engines.items():
            vector = " ".join(f"{at}={seq}" for at, seq in zip(self.wire.names, engine.durability.vector, strict=True))
            keys = [
                f"{collection.partition(':')[2]} {key} = {json.dumps(self.wire.value(name, collection.partition(':')[2], key))}"
                for collection in sorted(engine.keyspace.tree.root.children)
                for key in engine.keyspace.tree.keys(collection)
            ]
            fenced = "  FENCED" if engine.is_fenced else ""
            self.lines.append(f"{name}  {vector}{fenced}  {', '.join(keys) or 'empty'}")
        digests = {engine.digest for engine in self.wire.engines.values()}
        self.lines.append("digests equal" if len(digests) == 1 else f"{len(digests)} digests")


def parse(text: str) -> list[tuple[str, str]]:
    """The blocks of a scenario: what stands before ``----`` (comments included) and what stands after."""
    return [(block.partition("\n----\n")[0], block.partition("\n----\n")[2]) for block in text.strip().split("\n\n")]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    stage, blocks = Stage(), []
    for head, expected in parse(path.read_text()):
        commands = [line for line in head.splitlines() if not line.startswith("#")]
        if not commands:
            blocks.append(head)
            continue
        found = "\n".join(stage.run(command) for command in commands)
        blocks.append(f"{head}\n----\n{found}")
        if not pytestconfig.getoption("--rewrite"):
            assert found == expected, f"{path.name}: {head}"
    for engine in stage.wire.engines.values():
        assert engine.digest == engine.keyspace.tree.share([])
    if pytestconfig.getoption("--rewrite"):
        path.write_text("\n\n".join(blocks) + "\n")


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 5
