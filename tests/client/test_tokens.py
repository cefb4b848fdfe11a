"""The algebra of a session's tokens: nothing seen is lost, whatever order replies come in, and the set stays small."""

import random

import pytest

from crdtstore_client import connect
from crdtstore_client import session as session_rules
from crdtstore_client.session import Held, Session
from tests.client.fakes import US, FakeCluster

ALL = 1 << 20
EU, AP = "eu-1.0123456789abcdef", "ap-1.0123456789abcdef"


def begin(session: Session) -> tuple[Held, ...]:
    shown = session.begin(ALL)
    assert shown is not None
    return shown


def test_a_reply_replaces_exactly_what_it_was_shown() -> None:
    session = Session("a")
    first, second = begin(session), begin(session)
    session.end(first, "b")
    assert session.token == "b"
    session.end(second, "c")
    assert session.token == "b,c"
    session.end(begin(session), "d")
    assert session.token == "d"


def test_a_request_without_an_answer_changes_nothing() -> None:
    session = Session("a, b,,a")
    session.end(begin(session), None)
    assert session.token == "a,b"


def test_the_same_token_twice_is_kept_once() -> None:
    session = Session()
    first, second = begin(session), begin(session)
    session.end(first, "b")
    session.end(second, "b")
    assert session.token == "b"


def test_later_commits_of_a_replica_cover_earlier_ones() -> None:
    session = Session("base")
    first, second, third, other = (begin(session) for _ in range(4))
    session.end(second, "t2", "shop", f"{EU}:2")
    session.end(first, "t1", "shop", f"{EU}:1")
    assert session.token == "t2"
    session.end(other, "x", "crm", f"{EU}:1")  # another domain: another line of commits
    assert session.token == "t2,x"
    session.end(third, "t3", "shop", f"{AP}:9")
    assert session.token == "t2,x,t3"


def test_a_later_commit_does_not_cover_what_its_request_was_not_shown() -> None:
    session = Session()
    write = begin(session)
    session.end(begin(session), "read")
    early = begin(session)  # shown the token of the read
    session.end(early, "t1", "shop", f"{EU}:1")
    session.end(write, "t2", "shop", f"{EU}:2")  # was not
    assert session.token == "t1,t2"


def test_too_many_tokens_are_merged_in_parts() -> None:
    session = Session(",".join(f"token-{n}" for n in range(10)))
    assert session.begin(30) is None
    part = session.part(30)
    assert [held.text for held in part] == ["token-0", "token-1", "token-2"]
    session.end(part, "m")
    assert session.token == ",".join([*(f"token-{n}" for n in range(3, 10)), "m"])
    assert len(session.part(1)) == 2


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("has_wires", [False, True])
def test_nothing_seen_is_ever_lost(seed: int, has_wires: bool) -> None:
    """Model: a token's true content is a set; a reply covers what was shown and what its replica has; on a wire it has a number."""
    rng = random.Random(seed)
    session = Session()
    content: dict[str, frozenset[tuple[str, int]]] = {}
    seen: set[tuple[str, int]] = set()
    replicas: dict[str, set[tuple[str, int]]] = {EU: set(), AP: set()}
    under_way: list[tuple[tuple[Held, ...], str, tuple[str, int] | None, str | None, set[tuple[str, int]]]] = []
    widest = 0
    for step in range(300):
        if len(under_way) < 12 and (rng.random() < 0.6 or not under_way):
            shown = begin(session)
            assert seen <= set().union(*(content[held.text] for held in shown))
            replica = rng.choice([EU, AP])
            known = replicas[replica]
            known |= set().union(*(content[held.text] for held in shown))  # the node waits for what it is shown
            dot = None
            if rng.random() < 0.6:
                seq = 1 + sum(origin == replica for origin, _ in known)
                known.add((replica, seq))
                dot = f"{replica}:{seq}"
            text = f"t{step}"
            content[text] = frozenset(known)
            heard = (f"#{replica}{step // 100}", step + 1) if has_wires and dot is None and rng.random() < 0.8 else None
            under_way.append((shown, text, heard, dot, set(known)))
        else:
            shown, text, heard, dot, observed = under_way.pop(rng.randrange(len(under_way)))
            session.end(shown, text, "shop", dot, heard=heard)
            seen |= observed
        held = [text for text in session.token.split(",") if text]
        widest = max(widest, len(held))
        assert seen <= set().union(*(content[text] for text in held))
        if rng.random() < 0.1:  # replicas gossip
            both = replicas[EU] | replicas[AP]
            replicas[EU] |= both
            replicas[AP] |= both
    assert widest <= 13


def test_many_writes_at_once_leave_one_token() -> None:
    session = Session("base")
    order = list(range(1, 65))
    random.Random(1).shuffle(order)
    shown = {seq: begin(session) for seq in order}
    for seq in order:
        session.end(shown[seq], f"t{seq}", "shop", f"{EU}:{seq}")
    assert session.token == "t64"


def test_many_reads_at_once_over_one_connection_leave_one_token() -> None:
    session = Session("base")
    order = list(range(1, 65))
    random.Random(1).shuffle(order)
    shown = {number: begin(session) for number in order}
    for number in order:
        session.end(shown[number], f"t{number}", "shop", heard=("#1", number))
    assert session.token == "t64"
    session.end(begin(session), "t65", "shop", None, 1, ("#1", 65))
    assert session.token == "t65", "it was shown the other"
    both = begin(session), begin(session)
    session.end(both[0], "t66", "shop", None, 0, ("#1", 66))
    session.end(both[1], "t67", "shop", None, 1, ("#1", 67))
    assert session.token == "t66,t67", "another shard has an order of its own"


def test_what_connections_bring_is_forgotten_in_time() -> None:
    session = Session()
    for number in range(2_000):
        session.end(begin(session), f"t{number}", "shop", heard=(f"#{number}", 1))
    assert session.token == "t1999"
    assert all(len(held.commits) <= 257 for held in begin(session))


def test_what_is_forgotten_of_a_token_lets_no_other_one_take_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_rules, "MAX_LINES", 4)
    session = Session()
    for shard in range(4):
        session.end(begin(session), f"t{shard}", "shop", None, shard, ("#1", 1))
    early, late = begin(session), begin(session)
    session.end(session.begin_without(), "aside", "shop", None, 9, ("#1", 1))
    session.end(early, "early", "shop", None, 3, ("#1", 2))
    session.end(begin(session), "all", "shop", None, 3, ("#1", 3))
    assert session.token == "all"
    session.end(late, "late", "shop", None, 3, ("#1", 4))
    assert session.token == "all,late", "the late one was never shown what was read aside"


def test_descriptions_stay_small() -> None:
    session = Session()
    for n in range(1000):
        session.end(begin(session), f"read-{n}")
    assert all(len(held.items) <= 65 for held in begin(session))


async def test_a_store_shows_its_tokens_and_sessions_have_their_own() -> None:
    cluster = FakeCluster()
    async with connect(US, transport=cluster, token="mine") as store:
        shop = store.domain("shop")
        await shop.declare("orders", "counter")
        assert cluster.seen[0].headers["Crdtstore-Token"] == "mine"
        ack = await shop.counter("orders")["de"].add(1)
        assert store.token == ack.token
        other = store.session(token="cookie")
        assert other.token == "cookie"
        await other.domain("shop").counter("orders")["de"].get()
        assert cluster.seen[-1].headers["Crdtstore-Token"] == "cookie"
        assert store.token == ack.token
        fresh = store.session()
        await fresh.domain("shop").counter("orders")["de"].get()
        assert "Crdtstore-Token" not in cluster.seen[-1].headers
        await other.close()
        assert not cluster.closed
    assert cluster.closed


async def test_tokens_too_long_for_one_header_are_merged_by_reads_first() -> None:
    cluster = FakeCluster()
    token = ",".join(f"{n:03}-" + "x" * 996 for n in range(20))
    async with connect(US, transport=cluster) as store:
        await store.domain("shop").declare("orders", "counter")
        cluster.seen.clear()
        session = store.session(token)
        await session.domain("shop").counter("orders")["de"].add(1)
    assert [seen.method for seen in cluster.seen] == ["GET", "GET", "GET", "POST"]
    shown = {text for seen in cluster.seen for text in seen.headers["Crdtstore-Token"].split(",")}
    assert set(token.split(",")) <= shown
    assert all(len(seen.headers["Crdtstore-Token"]) <= 6000 for seen in cluster.seen)
    assert len(cluster.seen[-1].headers["Crdtstore-Token"].split(",")) <= 6
