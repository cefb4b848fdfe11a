"""A session says what HTTP says: the same requests, good and bad, to two nodes of one name, one asked each way."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from msgspec import Raw

from crdtstore.errors import CrdtStoreError
from crdtstore.types import REGISTRY
from crdtstore_node.api import session_frames
from crdtstore_node.node import Node
from tests.node.running import MSGPACK, Nodes, call, declare, exchange
from tests.node.talking import Talk, talk

_pack = msgspec.msgpack.encode
BIG = msgspec.msgpack.Ext(1, (1 << 80).to_bytes(11, "big"))


def _deep(levels: int) -> Raw:
    return Raw(b"\x91" * levels + b"\x01")


VALUES: list[Any] = [
    None, True, 0, -1, 1 << 62, (1 << 64) - 1, 1.5, "", "text", "ž", b"", b"bytes", [], {}, [1, "a", None], {"a": 1, "b": [2]},
    [[1]], {"a": {"b": 1}}, [b"x"], {"a": b"x"}, BIG, [BIG], {"a": BIG}, "x" * 300, math.nan, math.inf, [math.nan],
    msgspec.msgpack.Ext(1, b"\x01"), msgspec.msgpack.Ext(1, b"\x00" + (1 << 80).to_bytes(11, "big")), msgspec.msgpack.Ext(2, b"x"),
    msgspec.msgpack.Ext(1, b"\x7f" * 1030), msgspec.msgpack.Ext(1, b"\x7f" * 1024), msgspec.msgpack.Ext(1, b"\x7f" * 1033),
    _deep(31), _deep(33), _deep(200),
    Raw(b"\x82\xa1a\x01\xa1a\x01"), Raw(b"\x81\x01\x01"), Raw(b"\x81\xa1a\x81\x01\x02"), Raw(b"\x81\xc4\x01a\x01"), Raw(b"\xa1\xff"),
    Raw(b"\xa3\xed\xa0\x80"), Raw(b"\xd1\x00\x01"), Raw(b"\xd9\x01a"), Raw(b"\xdc\x00\x01\x01"), Raw(b"\xca\x3f\xc0\x00\x00"),
    Raw(b"\x81\xd9\x01a\x01"), Raw(b"\x81\xc0\x01"), Raw(b"\x82\xa1a\x91\x81\xa1b\x01\xa1a\x01"),
]  # fmt: skip
"""As they come over the wire: good ones in short and long forms, and what no value may be."""
NAMES = [
    "counter",
    "aw_set",
    "lww_register",
    "lww_map",
    "event_log",
    "or_map",
    "mv_register",
    "ew_flag",
    "max_register",
    "none",
    "Bad!",
    "",
]
KEYS = ["k", "a/b", "ž", "x" * 513, ".", "a\x01", "\x85"]
ARGUMENTS = [
    "amount",
    "value",
    "elements",
    "fields",
    "element",
    "id",
    "body",
    "path",
    "ttl_ms",
    "if_match",
    "field",
    "other",
]


class Both:
    """Asks both ways and compares."""

    def __init__(self, http: Node, session: Talk) -> None:
        self._http, self._session = http, session
        self.token: str | None = None
        self.outcomes: dict[str, int] = {}

    async def commit(self, body: dict[str, Any], collection: str, key: str, key_of_op: str | None) -> None:
        path = f"/v1/data/shop/{quote(collection, safe='@')}/{quote(key, safe='')}"
        headers = {"Idempotency-Key": key_of_op} if key_of_op is not None else {}
        over_http = await self._post(path, _pack(body), headers)
        fields: dict[str, Any] = {"domain": "shop", **body}
        if isinstance(body.get("ops"), list):
            place = {"collection": collection, "key": key}
            fields["ops"] = [{**place, **op} if isinstance(op, dict) else op for op in body["ops"]]
        if key_of_op is not None:
            fields["id"] = key_of_op
        await self._compare(over_http, "commit", fields)

    async def look(self, do: str, path: str, place: dict[str, Any], query: dict[str, Any]) -> None:
        asked = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        over_http = await call(
            self._http, "GET", f"{path}?{urlencode(asked)}" if asked else path, accept=MSGPACK, headers=self._headers()
        )
        await self._compare(over_http.body, do, {**place, **query})

    async def put(self, do: str, path: str, place: dict[str, Any], body: dict[str, Any]) -> None:
        lines = f"PUT {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
        over_http = await self._exchange(lines, _pack(body), {})
        await self._compare(over_http, do, {**place, **body})

    def _headers(self) -> dict[str, str]:
        return {} if self.token is None else {"Crdtstore-Token": self.token}

    async def _post(self, path: str, raw: bytes, headers: dict[str, str]) -> Any:
        return await self._exchange(f"POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n", raw, headers)

    async def _exchange(self, lines: str, raw: bytes, headers: dict[str, str]) -> Any:
        sent = {
            "Content-Type": MSGPACK,
            "Accept": MSGPACK,
            "Content-Length": str(len(raw)),
            **headers,
            **self._headers(),
        }
        lines += "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        return (await exchange(self._http.api.port, f"{lines}\r\n".encode() + raw)).body

    async def _compare(self, over_http: Any, do: str, fields: dict[str, Any]) -> None:
        message = {"n": 7, "do": do, **fields}
        if self.token is not None:
            message["token"] = self.token
        await self._session.socket.send_bytes(_pack(message))
        (reply,) = await self._session.replies(1)
        assert reply.pop("n") == 7
        reply = reply.get("problem", reply)
        for each in (over_http, reply):
            if each.get("code") == "bad-request" and each["detail"].startswith("there is no field"):
                each["detail"] = each["detail"].partition(";")[
                    0
                ]  # which there are differs: here some stand in the path
        assert _timeless(reply) == _timeless(over_http), message
        outcome = reply.get("code", "ok")
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if "token" in reply and outcome == "ok":
            self.token = reply["token"]


def _timeless(body: Any) -> Any:
    """Without the times at which events were written: two nodes have two clocks."""
    if isinstance(body, list):
        return [_timeless(each) for each in body]
    return {name: _timeless(each) for name, each in body.items() if name != "time"} if isinstance(body, dict) else body


def _op(random: Random, name: str) -> dict[str, Any]:
    """One that the type has, more or less."""
    mutators = REGISTRY[name].mutators if name in REGISTRY else {}
    if not mutators or random.random() < 0.1:
        return {
            "op": random.choice(["add", "set", "delete", "nothing", 7]),
            random.choice(ARGUMENTS): random.choice(VALUES),
        }
    mutator = random.choice(sorted(mutators))
    if mutator in ("expire", "reserve"):
        mutator = min(mutators)
    op: dict[str, Any] = {"op": mutator}
    for argument in mutators[mutator].arguments:
        good = {
            "amount": [1, -5, BIG], "elements": [["a"], [1, b"b"], [BIG], []], "value": ["v", 5, {"a": 1}, b"b"],
            "fields": [{"a": 1}, {"b": [1]}, {}], "id": ["e1"], "body": [{"x": 1}, "t"], "field": ["f"],
        }.get(argument.name, VALUES)  # fmt: skip
        if random.random() < 0.95:
            op[argument.name] = random.choice(good if random.random() < 0.6 else VALUES)
    if random.random() < 0.1:
        op[random.choice(ARGUMENTS)] = random.choice(VALUES)
    return op


async def _ask(both: Both, random: Random) -> None:
    collection, key = random.choice(NAMES if random.random() < 0.3 else NAMES[:9]), random.choice(KEYS[:3])
    if random.random() < 0.05:
        key = random.choice(KEYS)
    place = {"domain": "shop", "collection": collection, "key": key}
    path = f"shop/{quote(collection, safe='@')}/{quote(key, safe='')}"
    wait = {"wait_ms": random.choice([0, 5, -1])} if random.random() < 0.2 else {}
    limit = {"limit": random.choice([1, 5, 0, 1000, 1001])} if random.random() < 0.4 else {}
    match random.randrange(12):
        case 0 | 1:
            more = {"consistency": random.choice(["session", "local", "stable"])} if random.random() < 0.3 else {}
            await both.look("read", f"/v1/data/{path}", place, {**more, **wait})
        case 2:
            query = {**limit, **wait, **({"values": random.random() < 0.5} if random.random() < 0.5 else {})}
            del place["key"]
            await both.look("list", f"/v1/data/shop/{quote(collection, safe='@')}", place, query)
        case 3:
            has = {"has": random.choice(["a", "k", "žž"])} if random.random() < 0.3 else limit
            await both.look("members", f"/v1/data/{path}/members", place, {**has, **wait})
        case 4:
            del place["key"]
            where = f"/v1/domains/shop/collections/{quote(collection, safe='@')}"
            if random.random() < 0.5:
                await both.look("collection", where, place, wait)
            else:
                body = {
                    "type": random.choice(["counter", "aw_set", "none", 7]),
                    "options": random.choice([{}, {"grow_only": True}, 5, {"x": 1}, {"fields": {"a": "counter"}}]),
                }
                await both.put("declare", where, place, body)
        case _:
            body = {"ops": [_op(random, collection) for _ in range(random.choice([1, 1, 1, 2, 3]))]}
            if random.random() < 0.2:
                body[random.choice(["reason", "wait_ms", "regions", "ops", "other"])] = random.choice(
                    [5, "why", None, 1.0, [], [5], True, -1]
                )
            own = random.choice([None, None, f"key-{random.randrange(30)}", "~bad", "x" * 129])
            await both.commit(body, collection, key, own)


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_requests_get_the_same_answers(make_nodes: Callable[..., Nodes], seed: int) -> None:
    http, other = [await make_nodes(name=name).start("us") for name in ("http", "session")]
    for node in (http, other):
        await declare(node, "shop", *NAMES[:9])
    random = Random(seed)
    async with talk(other) as session:
        both = Both(http, session)
        for _ in range(250):
            await _ask(both, random)
        assert both.outcomes["ok"] > 60, both.outcomes
        assert both.outcomes["bad-request"] > 15, both.outcomes
        assert both.outcomes["invalid-value"] > 5, both.outcomes


def test_every_value_takes_the_short_way_only_if_the_long_one_says_the_same() -> None:
    """The planted bug that this would find: a decoder that takes a field twice, or a map of numbers, and says nothing."""
    short = 0
    for value in VALUES:
        op = {"collection": "c", "key": "k", "op": "set", "value": value}
        frame = _pack([{"n": 1, "do": "commit", "domain": "shop", "ops": [op]}])
        try:
            found = session_frames._many(frame)
        except Exception:
            continue
        if len(_pack(found)) != len(frame):
            continue
        short += 1
        (strict,) = session_frames._split(frame)
        assert _pack(session_frames._parse(bytes(strict)).ops) == _pack(found[0].ops)
    assert short > 15


def test_no_short_float_makes_up_for_what_stands_there_twice() -> None:
    """It is longer when it is written again, by just so much as the other number here."""
    short, n = Raw(b"\xca\x3f\xc0\x00\x00"), {"n": Raw(b"\xcc\xc8")}
    head = _pack({"do": "commit", "domain": "d"})[1:]
    ops = _pack({"ops": [{"collection": "c", "key": "k", "op": "set", "value": short}]})[1:]
    once = b"\x84" + head + _pack(n)[1:] + ops
    twice = b"\x85" + head + _pack(n)[1:] + _pack(n)[1:] + ops
    for frame in (once, b"\x91" + once):
        (request,), bad = session_frames.decode(frame)
        assert (request.n, bad) == (200, [])
    for frame in (twice, b"\x91" + twice):
        good, (refused,) = session_frames.decode(frame)
        assert (good, refused.n) == ([], 200)


def test_a_glance_accepts_nothing_that_a_look_refuses() -> None:
    """What is plain is checked by a glance; it must say what the check says that HTTP gets."""
    good = {"n": 1, "domain": "shop", "collection": "orders", "key": "k"}
    bad: dict[str, list[Any]] = {
        "domain": ["", "Shop", "shop@2", "x" * 64, "a b", "known@1"],
        "collection": ["", "orders@counter", "orders@none", "Orders", "shop"],
        "key": ["", ".", "..", ".a", "a\n", "\x7f", "ž", "x" * 512, "x" * 513, "ž" * 257, "\u2028", " "],
        "wait_ms": [0, -1, 1 << 40],
        "consistency": ["local", "", "stable"],
        "max_staleness_ms": [0, -1],
        "id": ["", "x" * 128, "x" * 129, "ž" * 64, "ž" * 65, "\x00", "~"],
        "ops": [[], [{}] * 1000, [{}] * 1001],
        "regions": [0, 1, -1, 255, 256, 1 << 40],
        "reason": ["", "x" * 1024, "x" * 1025],
        "traceparent": ["", "x"],
    }
    for do, kind, plain in (
        ("read", session_frames._FlatRead, session_frames._Read),
        ("commit", session_frames._FlatCommit, session_frames._Commit),
    ):
        base = {**good, "ops": [{}]} if do == "commit" else dict(good)
        for name in ("collection", "key") if do == "commit" else ():
            del base[name]
        kind(**base).check()
        assert {"shop", "orders"} <= session_frames._known or do == "read"
        compared = 0
        for name in bad.keys() & set(kind.__struct_fields__):
            for value in bad[name]:
                said = []
                for each in (kind, plain):
                    try:
                        each(**{**base, name: value}).check()
                        said.append("")
                    except CrdtStoreError as error:
                        said.append(error.detail)
                assert said[0] == said[1], (do, name, value)
                compared += 1
        assert compared > 15
    for number in range(5_000):  # however many names there are
        session_frames._remember(f"name-{number}")
    assert len(session_frames._known) <= session_frames._MOST_KNOWN
