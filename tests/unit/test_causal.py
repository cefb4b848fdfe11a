"""Replica ids, dots, vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import Dot, ReplicaId, covers, join, make_replica_id, node_of, parse_replica_id

REPLICAS = [make_replica_id(name, at) for at, name in enumerate(("us", "eu-1", "ap"))]
VECTORS = st.dictionaries(st.sampled_from(REPLICAS), st.integers(1, 5))


def test_a_replica_id_is_its_node_and_64_bits() -> None:
    replica = make_replica_id("eu-1", 0xABC)
    assert replica == "eu-1.0000000000000abc"
    assert node_of(replica) == "eu-1"
    assert parse_replica_id(replica) == replica


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eu",
        "eu.12",
        "EU.0000000000000abc",
        "eu.0000000000000ABC",
        ".0000000000000abc",
        "eu.0000000000000abc ",
        "1.0000000000000abc",
    ],
)
def test_what_is_no_replica_id(text: str) -> None:
    with pytest.raises(ValueError, match="a replica id is"):
        parse_replica_id(text)


def test_random_bits_must_fit() -> None:
    with pytest.raises(ValueError, match="a replica id is"):
        make_replica_id("eu", 1 << 64)


@given(st.sampled_from(REPLICAS), st.integers(0, 1 << 48))
def test_a_dot_is_written_and_read(replica: ReplicaId, seq: int) -> None:
    assert Dot.parse(str(Dot(replica, seq))) == Dot(replica, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "eu-1.0000000000000abc",
        "eu-1.0000000000000abc:",
        "eu-1.0000000000000abc:x",
        "eu-1.0000000000000abc:²",
        "eu:1",
    ],
)
def test_what_is_no_dot(text: str) -> None:
    with pytest.raises(ValueError, match="got"):
        Dot.parse(text)


@given(VECTORS, VECTORS)
def test_the_join_is_the_least_that_covers_both(left: dict[ReplicaId, int], right: dict[ReplicaId, int]) -> None:
    both = join((left, right))
    assert covers(both, left)
    assert covers(both, right)
    assert all(seq in (left.get(replica), right.get(replica)) for replica, seq in both.items())
    assert join((right, left)) == both
    assert join((both, left)) == both


@given(VECTORS, VECTORS)
def test_two_that_cover_each_other_are_equal(left: dict[ReplicaId, int], right: dict[ReplicaId, int]) -> None:
    assert (covers(left, right) and covers(right, left)) == (left == right)
    assert covers(left, {})
