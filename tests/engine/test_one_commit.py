"""What one commit leaves in the state: of several operations on one key, tried on a copy, or repeated."""

from __future__ import annotations

from random import Random
from typing import Any

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.effects import Sibling, leaf_name
from crdtstore.engine.events import Persisted
from crdtstore.engine.options import Options
from crdtstore.host import Host
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, DROP, PUT, SEQ_BITS, Sum
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


def test_trying_a_commit_leaves_the_counter_it_is_tried_on_alone() -> None:
    """A delete that leaves one amount, then several adds in one commit: judged on a copy, whose pairs were once shared."""
    tree = Tree([make_replica_id("us-1", 1)])
    path = ["counts:counter", "k"]
    for seq in (1, 2):
        tree.apply(seq, seq, [seq - 1], [ADD, path, 5])
    tree.apply(3, 3, [1], [DROP, path, None])  # leaves the second amount, and no older ones
    tree.scratch([("counts:counter", "k")]).apply(4, 4, [4], [ADD, path, 100])
    tree.apply(5, 5, [4], [ADD, path, 1])
    tree.apply(6, 6, [1], [DROP, path, None])
    assert tree.digest == tree.share([])
    sum_leaf = tree.entry("counts:counter", "k")
    assert isinstance(sum_leaf, Sum)
    assert sum_leaf.total == 6
    assert [run.cut(2) for run in sum_leaf.runs] == [5]
    assert [run.total() for run in sum_leaf.runs] == [1]


def test_a_repetition_of_a_spent_operation_leaves_no_empty_key() -> None:
    us, eu = make_replica_id("us-1", 1), make_replica_id("eu-1", 2)
    tree = Tree([us, eu])
    path = ["names:lww_map", "k", "field"]
    tree.apply(1, 1, [0, 0], [PUT, path, "v"])
    tree.apply(2, 2, [1, 0], [DROP, path, None])
    again = 1 << SEQ_BITS | 1
    tree.apply(again, 3, [0, 0], [PUT, path, "v"], {leaf_name(path, PUT): [Sibling(1, 1)]})
    assert tree.entry("names:lww_map", "k") is None
    assert tree.digest == 0
