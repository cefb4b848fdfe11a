"""When a data directory may be taken for a replica, and when not."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from crdtstore.causal import make_replica_id, node_of
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import PUT_BACK, StorageError, UsageError
from crdtstore_node.config import load
from crdtstore_node.identity import (
    FILE_NAME,
    LOG_NAME,
    SEAL_NAME,
    Joining,
    check_identity,
    mark_joined,
    read_identity,
    take_identity,
)
from crdtstore_node.identity.document import replace_identity
from crdtstore_node.node import Opened
from tests.node.running import Nodes, call, declare, until

US, EU = Member(make_replica_id("us-1", 1), "us"), Member(make_replica_id("eu-1", 2), "eu")
CLUSTER = Cluster("test", bytes(16), (US, EU))


def test_an_empty_directory_takes_its_id_only_when_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--bootstrap"):
        take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False)
    assert list(tmp_path.iterdir()) == []
    assert take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True) == (US, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, LOG_NAME, SEAL_NAME]
    assert take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True) == (US, False)
    assert take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False) == (US, False)


def test_a_directory_of_somebody_else_is_refused_by_name(tmp_path: Path) -> None:
    take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(UsageError, match=r"belongs to us-1\.0000000000000001.*eu-1"):
        take_identity(tmp_path, CLUSTER, "eu-1", is_bootstrap=True)
    renewed = Cluster("test", bytes(16), (Member(make_replica_id("us-1", 3), "us"), EU))
    with pytest.raises(UsageError, match=r"belongs to us-1\.0+1, but the cluster file gives us-1 the id us-1\.0+3"):
        take_identity(tmp_path, renewed, "us-1", is_bootstrap=True)
    other = Cluster("other", bytes(15) + b"\x01", (US,))
    with pytest.raises(UsageError, match=r"belongs to the cluster test .*not to other"):
        take_identity(tmp_path, other, "us-1", is_bootstrap=True)
    with pytest.raises(UsageError, match="ap-1 is not in the cluster file; there are us-1, eu-1"):
        take_identity(tmp_path, CLUSTER, "ap-1", is_bootstrap=True)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("is_bootstrap", [False, True])
def test_a_log_without_an_identity_is_no_empty_directory(tmp_path: Path, is_bootstrap: bool) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "00000001.log").write_bytes(b"x")
    with pytest.raises(StorageError, match="there is a log but no identity"):
        take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=is_bootstrap)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "cluster": 5}'])
def test_an_identity_that_cannot_be_read_is_not_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(StorageError, match=rf"{FILE_NAME}: not the identity .*Put it back") as refused:
        take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True)
    assert ".." not in refused.value.detail
    assert (tmp_path / FILE_NAME).read_text() == text


def test_what_the_disk_says_is_not_said_of_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(data: Path) -> str:
        with pytest.raises(StorageError) as error:
            take_identity(data, CLUSTER, "us-1", is_bootstrap=False)
        assert str(data / FILE_NAME) in error.value.detail
        assert "not the identity" not in error.value.detail
        assert "Errno" not in error.value.detail
        return error.value.detail

    (tmp_path / "file").touch()
    assert f"Not a directory. {tmp_path / 'file'} has to be a directory" in refused(tmp_path / "file")
    (tmp_path / "folder" / FILE_NAME).mkdir(parents=True)
    assert "Is a directory. A directory stands where the file" in refused(tmp_path / "folder")
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(Path, "read_bytes", lambda self: (_ for _ in ()).throw(denied))
    assert "Permission denied. Run this as the user" in refused(tmp_path / "other")


def test_an_identity_of_a_later_format_is_refused(tmp_path: Path) -> None:
    take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True)
    document = json.loads((tmp_path / FILE_NAME).read_text()) | {"format": 2}
    (tmp_path / FILE_NAME).write_text(json.dumps(document))
    with pytest.raises(StorageError, match="format 2"):
        take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False)


def test_a_later_format_is_named_even_when_it_has_fields_of_its_own(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"format": 4, "cluster": 5, "new": []}')
    with pytest.raises(StorageError, match=r"format 4, this program reads 3\. Start the version that wrote it"):
        read_identity(tmp_path)


def test_formats_that_older_programs_wrote_are_read(tmp_path: Path) -> None:
    founder = {"cluster": "test", "nonce": "00" * 16, "replica": US.replica}
    source = {"replica": EU.replica, "manifest": "m", "taken": "t", "restored": "r"}
    for document in ({"format": 1}, {"format": 2, "restored_from": source}):
        (tmp_path / FILE_NAME).write_text(json.dumps(document | founder))
        identity = read_identity(tmp_path)
        assert identity is not None
        assert (identity.left, identity.state, identity.leaving) == (None, None, None)
        replace_identity(tmp_path, identity)
        assert read_identity(tmp_path) == identity  # of the same format: the older program goes on reading it


# --- joining

JOINING = Joining("ap", "127.0.0.1:7507")


def test_a_node_that_joins_takes_a_new_id_by_itself(tmp_path: Path) -> None:
    me, is_new = take_identity(tmp_path, CLUSTER, "ap-1", is_bootstrap=False, joining=JOINING)
    assert (is_new, node_of(me.replica), me.region, me.gossip) == (True, "ap-1", "ap", "127.0.0.1:7507")
    identity = read_identity(tmp_path)
    assert identity is not None
    assert (identity.format, identity.replica, identity.state, identity.left) == (3, me.replica, "joining", None)
    other, _ = take_identity(tmp_path / "other", CLUSTER, "ap-1", is_bootstrap=False, joining=JOINING)
    assert other.replica != me.replica
    for _ in range(2):
        assert take_identity(tmp_path, CLUSTER, "ap-1", is_bootstrap=False, joining=JOINING) == (me, False)
        mark_joined(tmp_path)
    moved = Joining("eu", "127.0.0.1:7508")
    assert take_identity(tmp_path, CLUSTER, "ap-1", is_bootstrap=False, joining=moved)[0].gossip == "127.0.0.1:7508"


def test_a_founder_that_lost_its_directory_joins_under_another_id(tmp_path: Path) -> None:
    joining = Joining("us", "127.0.0.1:7509")
    me, is_new = take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False, joining=joining)
    assert is_new
    assert me.replica != US.replica
    mark_joined(tmp_path)
    identity = read_identity(tmp_path)
    assert identity is not None
    assert identity.left is None  # whoever has the founding id may live: nobody is to be told that it was left
    again, is_new = take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False)
    assert (again.replica, is_new) == (me.replica, False)
    founder = tmp_path / "founder"
    assert take_identity(founder, CLUSTER, "us-1", is_bootstrap=True, joining=joining) == (US, True)


def test_who_may_not_take_an_id_is_told_why(tmp_path: Path) -> None:
    def refused(node: str, *, is_bootstrap: bool = False, joining: Joining | None = None) -> str:
        with pytest.raises(UsageError) as error:
            take_identity(tmp_path, CLUSTER, node, is_bootstrap=is_bootstrap, joining=joining)
        assert error.value.detail.endswith("Nothing changed.")
        return error.value.detail

    assert "ap-1 is not in the cluster file" in refused("ap-1")
    assert "configuration where it is and whom it asks: region and join" in refused("ap-1")
    assert "only its founders have an id to take" in refused("ap-1", is_bootstrap=True, joining=JOINING)
    assert "region: ap, but the cluster file says that us-1 is in us" in refused("us-1", joining=JOINING)
    assert "join anew under another id (join in its configuration)" in refused("us-1")
    assert list(tmp_path.iterdir()) == []
    take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True)
    assert "belongs to us-1.0000000000000001, not to the node ap-1" in refused("ap-1", joining=JOINING)


def test_looking_takes_nothing(tmp_path: Path) -> None:
    assert check_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True) is None
    assert check_identity(tmp_path, CLUSTER, "ap-1", is_bootstrap=False, joining=JOINING) is None
    assert list(tmp_path.iterdir()) == []
    take_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=True)
    assert check_identity(tmp_path, CLUSTER, "us-1", is_bootstrap=False) == US


# --- nodes


async def test_a_restart_continues_id_and_state(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes()
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    first = (await call(node, "POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add", "amount": 3}]})).body
    digests = [group["digest"] for group in node.status()["groups"]]
    await nodes.stop("us")
    node = await nodes.start("us", is_bootstrap=False)
    assert node.recovered == 3
    assert [group["digest"] for group in node.status()["groups"]] == digests
    second = (await call(node, "POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add", "amount": 4}]})).body
    assert (first["dot"], second["dot"]) == ("us-1.0000000000000001:1", "us-1.0000000000000001:2")
    assert second["values"] == [7]


async def test_one_directory_serves_one_process(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes()
    await nodes.start("us")
    config = load(nodes.directory / "us.toml", {})
    with pytest.raises(StorageError, match="in use"):
        Opened(config, is_bootstrap=True)


async def test_a_log_that_is_behind_its_checkpoint_is_refused_by_directory(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", engine={"checkpoint_ms": 100})
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    data = Path(node.config.data)
    shutil.copytree(data / "log", data / "older")
    for _ in range(3):
        assert (await call(node, "POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add"}]})).status == 200
    await until(lambda: node.status()["storage"]["checkpoint"]["unsaved_bytes"] == 0)
    await nodes.stop("us")
    shutil.rmtree(data / "log")
    (data / "older").rename(data / "log")
    with pytest.raises(StorageError, match="acknowledged commits are missing") as refused:
        Opened(load(nodes.directory / "us.toml", {}), is_bootstrap=False)
    assert refused.value.detail.startswith(f"{data}: ")
    assert PUT_BACK in refused.value.detail


async def test_a_log_of_other_members_is_refused(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", "eu")
    for node in await nodes.start_all():
        if node.host.me.region == "eu":
            await declare(node, "shop")
    await nodes.stop_all()
    text = (nodes.directory / "cluster.toml").read_text()
    (nodes.directory / "cluster.toml").write_text(text.replace("eu-1.0000000000000002", "eu-1.0000000000000009"))
    with pytest.raises(StorageError, match="does not fit the cluster file"):
        Opened(load(nodes.directory / "us.toml", {}), is_bootstrap=False)
