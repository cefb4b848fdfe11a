"""Changes and lines of configurations: nobody returns, quorums meet, and of two lines it is told which is which."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from crdtstore.causal import make_replica_id
from crdtstore.configuration import MAX_MEMBERS, MAX_REMOVED, Configuration, ConfigurationId, Member, Removed
from crdtstore.engine.membership.changes import Change, Evict, Final, Join, check_value, forced, is_done, successor
from crdtstore.errors import ProtocolError
from crdtstore.leaves import SEQ_MASK

NONCE = b"n" * 16


def member(at: int) -> Member:
    return Member(make_replica_id(f"m{at}", at), f"r{at % 3}")


def founders(size: int) -> Configuration:
    return Configuration(0, ((0, NONCE),), tuple(member(at) for at in range(size)))


def a_change(random: Random, before: Configuration, fresh: int) -> Change:
    """Any change, sensible or not."""
    kind = random.randrange(3)
    everybody = [*before.ids, *(removed.replica for removed in before.removed), member(fresh).replica]
    at = before.id if random.random() < 0.9 else ConfigurationId(before.number + 1, NONCE)
    if kind == 0:
        chosen = random.choice(everybody)
        return Join(next(each for each in map(member, range(fresh + 1)) if each.replica == chosen))
    if kind == 1:
        return Evict(tuple(random.sample(everybody, random.randrange(min(3, len(everybody)) + 1))), at)
    return Final(random.choice(everybody), random.randrange(9), at)


def line(seed: int, size: int = 3, length: int = 25) -> list[Configuration]:
    """A line, as orders of all kinds and operators make it."""
    random, configurations, fresh = Random(seed), [founders(size)], size
    for _ in range(length):
        before = configurations[-1]
        if random.random() < 0.1:
            kept = random.sample(before.ids, random.randrange(1, len(before.ids) + 1))
            after: Configuration | None = forced(before, kept, random.randbytes(16))
        else:
            change = a_change(random, before, fresh)
            after = successor(before, change, random.choice(before.ids))
            assert after is None or is_done(after, change)
        if after is not None:
            configurations.append(after)
            fresh += 1
    return configurations


@given(st.integers(0, 1 << 32), st.integers(1, 5))
def test_whatever_is_ordered_follows(seed: int, size: int) -> None:
    made = line(seed, size)
    for at, after in enumerate(made):
        after.check()
        for before in made[: at + 1]:
            after.check_follows(before)
            assert before.precedes(after)
            assert before is after or not after.precedes(before)
        if at and after.epochs == made[at - 1].epochs:
            check_value(made[at - 1], after)


@given(st.integers(0, 1 << 32))
def test_who_was_removed_never_returns_and_keeps_its_final(seed: int) -> None:
    gone: dict[str, int | None] = {}
    for configuration in line(seed, length=60):
        for replica, final in gone.items():
            removal = configuration.removal(replica)
            assert removal is not None
            assert configuration.member(replica) is None
            assert final is None or removal.final == final
            assert successor(configuration, Join(removal.member), configuration.ids[0]) is None
        gone = {removed.replica: removed.final for removed in configuration.removed}
        assert configuration.origins == (*configuration.ids, *(each for each, final in gone.items() if final is None))


@given(st.integers(0, 1 << 32))
def test_the_oldest_stays_the_oldest(seed: int) -> None:
    for before, after in zip(made := line(seed), made[1:], strict=False):
        stayed = [replica for replica in before.ids if after.member(replica) is not None]
        assert list(after.ids[: len(stayed)]) == stayed


@pytest.mark.parametrize("size", range(1, 8))
def test_any_two_quorums_share_a_member(size: int) -> None:
    configuration = founders(size)
    ids = configuration.ids
    quorums = [
        set(some) for count in range(size + 1) for some in combinations(ids, count) if configuration.is_quorum(some)
    ]
    assert all(one & other for one in quorums for other in quorums)
    assert set(ids) in quorums
    assert min(map(len, quorums)) == (size + 1) // 2
    halves = [each for each in quorums if 2 * len(each) == size]
    assert all(ids[0] in each for each in halves)
    assert len(halves) == (len(list(combinations(ids[1:], size // 2 - 1))) if size % 2 == 0 else 0)
    assert not configuration.is_quorum(["somebody.else", *ids[: (size - 1) // 2]]) or size == 1


@given(st.integers(0, 1 << 32), st.integers(0, 1 << 32), st.integers(0, 8))
def test_lines_that_part_do_not_precede_each_other(one: int, other: int, shared: int) -> None:
    """Reflexive, antisymmetric, transitive; and after a force on both sides neither is behind."""
    trunk = line(one, length=shared)
    here, there = Random(one), Random(other)
    left = [*trunk, forced(trunk[-1], trunk[-1].ids, b"left" + here.randbytes(12))]
    right = [*trunk, forced(trunk[-1], trunk[-1].ids, b"right" + there.randbytes(11))]
    for branch, random in ((left, here), (right, there)):
        for at in range(6):
            after = successor(branch[-1], Join(member(1_000 + at)), random.choice(branch[-1].ids))
            assert after is not None
            branch.append(after)
    ours, theirs = left[len(trunk) :], right[len(trunk) :]
    assert not any(a.precedes(b) or b.precedes(a) for a in ours for b in theirs)
    assert all(a.precedes(b) for a in trunk for b in ours + theirs)
    everything = [*left, *theirs]
    for a in everything:
        assert a.precedes(a)
        for b in everything:
            assert a is b or not (a.precedes(b) and b.precedes(a))
            assert not a.precedes(b) or all(a.precedes(c) for c in everything if b.precedes(c))


@given(st.integers(0, 1 << 32))
def test_an_eviction_and_a_final_hold_where_they_were_ordered_only(seed: int) -> None:
    made = line(seed, length=30)
    for before in made:
        for after in made:
            if after.id != before.id:
                assert successor(after, Evict((after.ids[0],), before.id), after.ids[-1]) is None
                for removed in after.removed:
                    assert successor(after, Final(removed.replica, 1, before.id), after.ids[0]) is None


def test_nobody_evicts_itself_or_nobody_or_strangers() -> None:
    three = founders(3)
    us, eu, ap = three.ids
    at = three.id
    assert successor(three, Evict((us,), at), us) is None
    assert successor(three, Evict((), at), us) is None
    assert successor(three, Evict((eu, member(9).replica), at), us) is None
    assert successor(three, Final(eu, 3, at), us) is None, "it is a member"
    two = successor(three, Evict((eu,), at), us)
    assert two is not None
    assert (two.ids, two.removed, two.origins) == ((us, ap), (Removed(member(1)),), (us, ap, eu))
    assert not is_done(two, Final(eu, 3, two.id))
    done = successor(two, Final(eu, 3, two.id), ap)
    assert done is not None
    assert (done.origins, done.finals) == ((us, ap), {eu: 3})
    assert successor(done, Final(eu, 4, done.id), ap) is None
    assert is_done(done, Final(eu, 4, done.id)), "whoever did it"


def test_no_join_leads_to_where_nobody_follows() -> None:
    full = founders(MAX_MEMBERS)
    full.check()
    assert successor(full, Join(member(9_999)), full.ids[0]) is None
    gone = tuple(Removed(member(at), 0) for at in range(1, MAX_REMOVED))
    old = structs.replace(founders(1), removed=gone)
    old.check()
    assert successor(old, Join(member(9_999)), old.ids[0]) is None
    younger = structs.replace(old, removed=gone[:-1])
    grown = successor(younger, Join(member(9_999)), old.ids[0])
    assert grown is not None
    last = successor(grown, Evict((old.ids[0],), grown.id), member(9_999).replica)
    assert last is not None
    last.check()


# --- what a peer may say


def spoilt(configuration: Configuration, **changes: Any) -> Configuration:
    return structs.replace(configuration, **changes)


GONE = Configuration(
    2, ((0, NONCE), (2, b"o" * 16)), (member(0), member(1)), (Removed(member(2), 5), Removed(member(3)))
)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda made: spoilt(made, members=()), "nobody"),
        (lambda made: spoilt(made, members=tuple(map(member, range(10_000)))), "too many"),
        (lambda made: spoilt(made, removed=tuple(Removed(member(at)) for at in range(9, 9 + 5_000))), "too many"),
        (lambda made: spoilt(made, members=(member(0), member(0))), "twice"),
        (lambda made: spoilt(made, members=(member(2), member(0))), "twice"),
        (lambda made: spoilt(made, members=(Member("us", "us"),)), "replica id is"),  # type: ignore[arg-type]
        (lambda made: spoilt(made, members=(structs.replace(member(0), region="Ä"),)), "in no region"),
        (lambda made: spoilt(made, members=(structs.replace(member(0), gossip="x" * 301),)), "nowhere"),
        (lambda made: spoilt(made, removed=(Removed(structs.replace(member(5), region="")),)), "in no region"),
        (lambda made: spoilt(made, epochs=()), "does not lead"),
        (lambda made: spoilt(made, epochs=((1, NONCE),)), "does not lead"),
        (lambda made: spoilt(made, epochs=((0, NONCE), (0, b"o"))), "does not lead"),
        (lambda made: spoilt(made, epochs=((0, NONCE), (2, b"o"), (1, b"p"))), "does not lead"),
        (lambda made: spoilt(made, epochs=((0, NONCE), (3, b"o"))), "does not lead"),
        (lambda made: spoilt(made, epochs=((0, NONCE * 3),)), "number and a nonce"),
        (lambda made: spoilt(made, number=(1 << 64) - 1), "number and a nonce"),
        (lambda made: spoilt(made, number=-1, epochs=((0, NONCE),)), "does not lead"),
        (lambda made: spoilt(made, removed=(Removed(member(2), -1),)), "counts from zero"),
        (lambda made: spoilt(made, removed=(Removed(member(2), SEQ_MASK + 1),)), "counts from zero"),
    ],
)
def test_what_is_no_configuration(spoil: Callable[[Configuration], Configuration], why: str) -> None:
    GONE.check()
    with pytest.raises(ProtocolError, match=why):
        spoil(GONE).check()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda made: spoilt(made, number=3, members=(member(0),)), "vanished"),
        (lambda made: spoilt(made, number=3, removed=made.removed[:1]), "is not so"),
        (
            lambda made: spoilt(made, number=3, members=(*made.members, member(2)), removed=made.removed[1:]),
            "is not so",
        ),
        (lambda made: spoilt(made, number=3, removed=(Removed(member(2), 6), made.removed[1])), "is not so"),
        (lambda made: spoilt(made, number=3, removed=(Removed(member(2)), made.removed[1])), "is not so"),
        (lambda made: spoilt(made, number=3, members=made.members[::-1]), "another order"),
        (lambda made: spoilt(made, number=3, members=(member(7), *made.members)), "another order"),
        (lambda made: spoilt(made, number=3, removed=made.removed[::-1]), "another order"),
        (lambda made: spoilt(made, removed=(made.removed[0], Removed(member(3), 1))), "two configurations"),
        (lambda made: spoilt(made, members=(*made.members, member(7))), "two configurations"),
    ],
)
def test_what_cannot_follow(spoil: Callable[[Configuration], Configuration], why: str) -> None:
    spoil(GONE).check()
    with pytest.raises(ProtocolError, match=why):
        spoil(GONE).check_follows(GONE)


@pytest.mark.parametrize(
    "value",
    [
        GONE,
        spoilt(GONE, number=4),
        spoilt(GONE, number=3, epochs=(*GONE.epochs, (3, b"p" * 16))),
        spoilt(GONE, number=3, members=(member(0),)),
        spoilt(GONE, number=3, members=(*GONE.members, Member("x", "x"))),  # type: ignore[arg-type]
    ],
)
def test_what_no_vote_is_about(value: Configuration) -> None:
    check_value(GONE, spoilt(GONE, number=3))
    with pytest.raises(ProtocolError):
        check_value(GONE, value)
