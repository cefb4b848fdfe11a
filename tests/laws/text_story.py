"""A text that several regions edit: replicas without an engine, and stories made of chance.

The question: what is held to be true of any story? Each edit lands at its index; whoever has the same commits reads the same, and that is
what the model says; and one order of all characters that ever were agrees with every text that was ever shown anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

from crdtstore.causal import Dot, make_replica_id
from crdtstore.commit import EXPIRY, FORMAT, OPERATION, Commit
from crdtstore.engine.events import Op
from crdtstore.engine.keyspace import Keyspace
from crdtstore.leaves import SEQ_BITS
from crdtstore.types.text import Text
from tests.laws.facts import DELETE, STEP, Did
from tests.laws.text_model import text as model

__all__ = [
    "KEY",
    "PATH",
    "REPLICAS",
    "TEXT",
    "WIPE",
    "Call",
    "Region",
    "Sent",
    "Story",
    "cut",
    "did",
    "everywhere",
    "insert",
]

TEXT = Text()
REPLICAS = [make_replica_id(name, at + 1) for at, name in enumerate(("us-1", "eu-1", "ap-1"))]
PATH, KEY = "notes:text", "k"
Call = tuple[str, dict[str, Any]]


def insert(index: int, text: str) -> Call:
    return "insert", {"index": index, "text": text}


def cut(index: int, length: int = 1) -> Call:
    return "cut", {"index": index, "length": length}


WIPE: Call = (DELETE, {})


class Sent(NamedTuple):
    """A commit on its way."""

    origin: int
    seq: int
    cut: list[int]
    commit: Commit
    calls: tuple[Call, ...]
    operation: bytes | None


class Region:
    """A replica without an engine. Mutable."""

    def __init__(self, me: int, below: tuple[str, ...] = ()) -> None:
        self.me = me
        self.below = below
        self.keyspace = Keyspace(list(REPLICAS))
        self.applied = [0] * len(REPLICAS)

    def write(self, *calls: Call, hlc: int, operation: bytes | None = None) -> Sent:
        seq = self.applied[self.me] + 1
        cut_here = [*self.applied]
        cut_here[self.me] = seq
        ops = [self._op(*call) for call in calls]
        effects, _ = self.keyspace.judge(ops, self.me << SEQ_BITS | seq, hlc, cut_here, operation)
        attributes = [] if operation is None else [OPERATION, [operation, 7], EXPIRY, 1 << 62]
        commit = Commit(FORMAT, 0, seq, hlc, [], "anonymous", attributes, effects)
        sent = Sent(self.me, seq, [*self.applied], commit, calls, operation)
        self.apply(sent)
        return sent

    def _op(self, name: str, arguments: dict[str, Any]) -> Op:
        if name == DELETE:
            return Op(TEXT, PATH, KEY, None, {}, below=self.below)
        mutator = TEXT.mutators[name]
        return Op(TEXT, PATH, KEY, mutator, mutator.check(arguments), below=self.below)

    def is_ready(self, sent: Sent) -> bool:
        return sent.cut[sent.origin] == self.applied[sent.origin] and all(
            have >= need for have, need in zip(self.applied, sent.cut, strict=True)
        )

    def apply(self, *commits: Sent) -> None:
        for sent in commits:
            assert self.is_ready(sent)
            self.keyspace.apply(sent.origin << SEQ_BITS | sent.seq, sent.commit, sent.cut)
            self.applied[sent.origin] = sent.seq

    def hear(self, commits: Iterable[Sent], random: Random | None = None, most: int = 1 << 30) -> None:
        """Apply those of these commits that are not here yet, or so many of them, in some causal order."""
        coming = [sent for sent in commits if sent.seq > self.applied[sent.origin]]
        for _ in range(min(most, len(coming))):
            ready = [sent for sent in coming if self.is_ready(sent)]
            sent = random.choice(ready) if random else ready[0]
            self.apply(sent)
            coming.remove(sent)

    def known(self, commits: Iterable[Sent]) -> list[Sent]:
        return [sent for sent in commits if sent.seq <= self.applied[sent.origin]]

    @property
    def text(self) -> str:
        view = self.keyspace.view(PATH, KEY)
        for part in self.below:
            view = view.child(part)
        read = TEXT.read(view)
        assert view.exists == bool(read)
        return read

    @property
    def digest(self) -> int:
        assert self.keyspace.tree.digest == self.keyspace.tree.share([])
        return self.keyspace.tree.digest


def everywhere(*commits: Sent) -> str:
    """What these commits say, read by replicas that apply them in many orders."""
    read = set()
    for seed in range(8):
        region = Region(0)
        region.hear(commits, Random(seed))
        read.add((region.text, region.digest))
    assert len(read) == 1, "the same commits read differently"
    return read.pop()[0]


def did(commits: Iterable[Sent]) -> list[Did]:
    """The same commits as the model is told of them."""
    groups: dict[Any, list[Sent]] = {}
    for sent in commits:
        groups.setdefault(sent.operation or (sent.origin, sent.seq), []).append(sent)
    found = []
    for group in groups.values():
        attempts = tuple(
            (sent.commit.hlc, Dot(REPLICAS[sent.origin], sent.seq), dict(zip(REPLICAS, sent.cut, strict=True)))
            for sent in group
        )
        hlc, dot, deps = min(attempts, key=lambda attempt: attempt[:2])
        for at, (op, arguments) in enumerate(group[0].calls):
            one = Did((hlc, *dot, STEP * at + 1), frozenset(dot for _, dot, _ in attempts), deps, op, arguments)
            found.append(one._replace(attempts=attempts))
    return found


class Story:
    """Regions that hear of each other now and then, and edit near where they edited last. Mutable.

    Every character that is ever inserted is another. Those of operations that are attempted in several regions are left out of the one
    order of all: an attempt that turns out to count may stand elsewhere.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.regions = [Region(at) for at in range(len(REPLICAS))]
        self.commits: list[Sent] = []
        self._next_char = 0x100
        self._cursor = 0
        self._repeated = [self._new(2), self._new(3)]
        self._follows: dict[str, set[str]] = {}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.end()

    def step(self) -> None:
        """One region hears of some commits and makes one."""
        random = self.random
        here = random.choice(self.regions)
        here.hear(self.commits, random, random.choice([0, 1, 2, 99]))
        stamp = (random.randrange(4) << 16) + len(self.commits)
        again = random.randrange(len(self._repeated)) if random.random() < 0.2 else None
        if again is None:
            calls, wanted = self._edits(here.text)
            self.commits.append(here.write(*calls, hlc=stamp))
            assert here.text == wanted, "an edit did not land at its index"
        else:
            name, new = b"operation-id-%03d" % again, self._repeated[again]
            if not any(sent.operation == name for sent in here.known(self.commits)):
                calls = [insert(0, new), cut(1)]
                wanted = new[0] + new[2:] + here.text
                self.commits.append(here.write(*calls, hlc=stamp, operation=name))
                assert here.text == wanted, "an edit did not land at its index"
        self._look(here)

    def end(self) -> None:
        """Everybody hears of everything."""
        for region in self.regions:
            region.hear(self.commits, self.random)
            assert region.digest == self.regions[0].digest, "false convergence"
            self._look(region)
        leads_to = {one: set(others) for one, others in self._follows.items()}
        while leads_to:
            last = [one for one, others in leads_to.items() if not any(other in leads_to for other in others)]
            assert last, "no one order of all characters agrees with what was shown"
            for one in last:
                del leads_to[one]

    def _look(self, region: Region) -> None:
        shown = region.text
        assert shown == model(did(region.known(self.commits))).value, "not what the model says"
        steady = [char for char in shown if not any(char in new for new in self._repeated)]
        for one, other in pairwise(steady):
            self._follows.setdefault(one, set()).add(other)

    def _new(self, count: int) -> str:
        self._next_char += count
        return "".join(chr(self._next_char - count + number) for number in range(count))

    def _edits(self, text: str) -> tuple[Sequence[Call], str]:
        """A few edits that fit the text, and what it must say after them."""
        calls: list[Call] = []
        random = self.random
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            if random.random() < 0.2:
                self._cursor = random.randrange(len(text) + 1)
            index = self._cursor = min(max(0, self._cursor + random.choice([-1, 0, 0, 1])), len(text))
            if random.random() < 0.65 or index == len(text):
                new = self._new(random.choice([1, 1, 2, 4]))
                calls.append(insert(index, new))
                text = text[:index] + new + text[index:]
                self._cursor += random.choice([0, len(new)])
            elif random.random() < 0.05:
                calls.append(WIPE)
                text = ""
            else:
                upto = min(len(text), index + random.choice([1, 1, 3]))
                calls.append(cut(index, upto - index))
                text = text[:index] + text[upto:]
        return calls, text
