"""The order of the wire and the order of memory: there and back nothing is lost, and finals stand in for who is settled."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from crdtstore.configuration import Configuration
from crdtstore.engine.membership.shape import Shape
from crdtstore.errors import ProtocolError
from crdtstore.messages import Ack, Digest, Frame, Row, Segment, Want
from tests.unit.test_changes import line, member

HASH = 32


def known_by(random: Random, configuration: Configuration) -> list[Any]:
    """The table of some replica: everybody of the configuration in the order in which it heard of them, and others."""
    known = [*configuration.ids, *(removed.replica for removed in configuration.removed)]
    known += [member(900 + at).replica for at in range(random.randrange(3))]
    random.shuffle(known)
    return known


def shaped(seed: int) -> tuple[Configuration, list[Any], Shape, Random]:
    random = Random(seed)
    configuration = random.choice(line(seed, length=40))
    known = known_by(random, configuration)
    return configuration, known, Shape(configuration, known), random


def dense(configuration: Configuration, known: list[Any], random: Random) -> Row:
    """A row as a member keeps it."""
    vector = [random.randrange(100) if replica in configuration.origins else 0 for replica in known]
    for replica, final in configuration.finals.items():
        vector[known.index(replica)] = final
    chains = [random.randbytes(HASH) if replica in configuration.origins else b"" for replica in known]
    return Row(configuration.id, vector, random.randrange(1 << 60), chains, random.randrange(9), random.random() < 0.5)


@given(st.integers(0, 1 << 32))
def test_there_and_back(seed: int) -> None:
    configuration, known, shape, random = shaped(seed)
    row = dense(configuration, known, random)
    told = shape.narrow(row)
    assert len(told.vector) == len(told.chains) == len(configuration.origins)
    assert dict(zip(configuration.origins, told.vector, strict=True)) == {
        replica: row.vector[known.index(replica)] for replica in configuration.origins
    }
    assert shape.widen(told) == row


@given(st.integers(0, 1 << 32))
def test_two_that_know_each_other_in_other_orders_mean_the_same(seed: int) -> None:
    configuration, known, shape, random = shaped(seed)
    others = known_by(random, configuration)
    heard = Shape(configuration, others).widen(shape.narrow(row := dense(configuration, known, random)))
    mine, theirs = (
        {
            replica: (row.vector[at], row.chains[at])
            for at, replica in enumerate(table)
            if row.vector[at] or row.chains[at]
        }
        for table, row in ((known, row), (others, heard))
    )
    assert mine == theirs


@given(st.integers(0, 1 << 32))
def test_every_message_goes_there_and_back(seed: int) -> None:
    configuration, known, shape, random = shaped(seed)
    rows = [dense(configuration, known, random) if replica in configuration.ids else None for replica in known]
    origins = random.sample(shape.origins, random.randrange(1, len(shape.origins) + 1))
    messages = [
        Ack("g/0", configuration.id, dense(configuration, known, random)),
        Digest("g/0", configuration.id, dense(configuration, known, random), rows, True, False),
        Frame("g/0", configuration.id, [Segment(at, 3, b"x" * HASH) for at in origins], [0], [b"data"]),
    ]
    for message in messages:
        told = shape.give(message)
        if isinstance(told, Digest):
            assert len(told.others) == len(configuration.members)
        again = structs.replace(told)
        shape.take(again)
        assert again == message
    want = Want("g/0", configuration.id, "c", "k", 1, 0, 0)
    sends = [(0, messages[2]), (1, messages[2]), (1, want)]
    given_all = shape.give_all(sends)  # type: ignore[arg-type]
    assert [peer for peer, _ in given_all] == [0, 1, 1]
    assert given_all[0][1] is given_all[1][1], "one frame for several peers is made once"
    assert given_all[2][1] is want


@given(st.integers(0, 1 << 32))
def test_what_is_not_of_this_shape_is_refused(seed: int) -> None:
    configuration, known, shape, random = shaped(seed)
    row = shape.narrow(dense(configuration, known, random))
    size = len(configuration.origins)
    spoilt = [
        structs.replace(row, vector=[*row.vector, 0]),
        structs.replace(row, chains=row.chains[:-1]),
        structs.replace(row, vector=[], chains=[]),
        structs.replace(row, configuration=structs.replace(row.configuration, number=row.configuration.number + 1)),
    ]
    for each in spoilt:
        with pytest.raises(ProtocolError, match="another configuration or size"):
            shape.widen(each)
        with pytest.raises(ProtocolError):
            shape.take(Ack("g/0", configuration.id, each))
    rows: list[Row | None] = [None] * (len(configuration.members) + 1)
    with pytest.raises(ProtocolError, match="rows for"):
        shape.take(Digest("g/0", configuration.id, row, rows, True))
    if shape.origins != list(range(len(known))):
        for origin in (-1, size):
            with pytest.raises(ProtocolError, match="somewhere at a member"):
                shape.take(Frame("g/0", configuration.id, [Segment(origin, 0, b"")], [], []))


def test_a_final_that_is_left_out_would_be_missed() -> None:
    """The checker can fail: a shape that does not fill finals in gives another row back."""
    for seed in range(200):
        configuration, known, shape, random = shaped(seed)
        if any(configuration.finals.values()):
            row = dense(configuration, known, random)
            shape._finals = []
            assert shape.widen(shape.narrow(row)) != row
            return
    raise AssertionError("no line with a final")
