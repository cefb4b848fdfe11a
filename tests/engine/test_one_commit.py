"""Several operations of one commit on one key: what stands is decided by their order in the commit."""

from __future__ import annotations

from random import Random
from typing import Any

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.events import Persisted
from crdtstore.engine.options import Options
from crdtstore.host import Host
from crdtstore.service import Request, Service


def _one_node() -> Service:
    me = make_replica_id("us-1", 1)
    return Service(Host(Cluster("test", bytes(16), (Member(me, "us"),)), me, Options(), Random(1)))


def _ask(service: Service, do: str, **fields: Any) -> Any:
    out = service.step([Request(1, do, fields)], 1_700_000_000_000)
    replies = out.replies
    if out.persist_number:
        replies += service.step([Persisted(out.persist_number)], 1_700_000_000_000).replies
    return replies[0][1]


def test_of_one_event_id_appended_twice_in_a_commit_the_first_is_read() -> None:
    service = _one_node()
    _ask(service, "declare_domain", domain="shop")
    _ask(service, "declare", domain="shop", collection="events", type="event_log")
    op = {"collection": "events", "key": "k", "op": "append", "id": "e"}
    _ask(service, "commit", domain="shop", ops=[{**op, "body": "first"}, {**op, "body": "second"}])
    read = _ask(service, "read", domain="shop", collection="events", key="k")
    assert [event["body"] for event in read["value"]] == ["first"]


def test_of_one_register_set_twice_in_a_commit_the_last_is_read() -> None:
    service = _one_node()
    _ask(service, "declare_domain", domain="shop")
    _ask(service, "declare", domain="shop", collection="names", type="lww_register")
    op = {"collection": "names", "key": "k", "op": "set"}
    _ask(service, "commit", domain="shop", ops=[{**op, "value": "first"}, {**op, "value": "second"}])
    assert _ask(service, "read", domain="shop", collection="names", key="k")["value"] == "second"
