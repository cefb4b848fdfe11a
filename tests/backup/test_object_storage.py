"""Backups in an object storage, by the command line and the real client; and what of a secret may be seen, which is nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.errors import UsageError
from crdtstore_node.backup.target import _said, open_target
from tests.backup.bucket import NAME, Storage, storage
from tests.backup.world import Reader, make_world, random_life, state_of

SECRET = "hunter2-hunter2-hunter2"
URL = f"s3://{NAME}/of/us-1"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    with storage() as server:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "AKIA-not-secret",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


def crdtstore(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    assert SECRET not in result.output
    return result.output


def test_there_and_back(place: Path, bucket: Storage) -> None:
    with make_world(place / "world", 1) as world:
        random_life(world, 20, checkpoint_at=(10,))
        taken = json.loads(crdtstore("backup", URL, "--data", str(world.first.directory), "--json"))
        assert all(key.startswith(f"of/us-1/{taken['name']}/") for key in bucket.objects)
        assert any("AWS4-HMAC-SHA256" in each for each in bucket.authorizations)
        source = f"{URL}/{taken['name']}"
        assert taken["name"] in crdtstore("backup", "list", URL)
        assert "ok" in crdtstore("backup", "verify", source)
        assert f"holds the backups {taken['name']}" in crdtstore("backup", "verify", URL, code=2)
        member = world.cluster.members[0]
        cluster = (
            f'cluster = "backups"\nnonce = "{world.cluster.nonce.hex()}"\n[[member]]\nnode = "r0-1"\nregion = "r0"\n'
        )
        (place / "cluster.toml").write_text(f'{cluster}replica = "{member.replica}"\ngossip = "127.0.0.1:1"\n')
        arguments = ["--data", str(place / "new"), "--cluster", str(place / "cluster.toml"), "--node", "r0-1"]
        crdtstore("restore", source, *arguments)
        with Reader(world.cluster, place / "new") as reader:
            assert state_of(reader.host) == state_of(world.first.host)
        assert crdtstore("drill", "restore", URL, "--json")
    name = next(key for key in bucket.objects if "blocks" in key)
    data = bucket.objects.pop(name)
    assert f"s3://{NAME}/{name}: there is no such object" in crdtstore("backup", "verify", source, code=1)
    bucket.objects[name] = data[:-1]
    assert f"s3://{NAME}/{name}: {len(data) - 1} bytes" in crdtstore("backup", "verify", source, code=1)
    del bucket.objects[f"of/us-1/{taken['name']}/manifest.json"]
    assert "not finished" in crdtstore("backup", "list", URL)
    assert f"removed {taken['name']}" in crdtstore("backup", "prune", URL, "--older-than-hours", "0")
    assert bucket.objects == {}


def test_what_a_storage_says_is_shown_without_secrets(place: Path, bucket: Storage) -> None:
    with make_world(place / "world", 1) as world:
        bucket.refuse = f"no such key: {SECRET}"
        output = crdtstore("backup", URL, "--data", str(world.first.directory), code=1)
        assert "storage-failed" in output
        assert f"s3://{NAME}/of/us-1/" in output


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"az://container/x?sig={SECRET}",
        f"gs://bucket/x#{SECRET}",
        f"nfs://u:{SECRET}@h/x",
        f"s3:/key:{SECRET}@b",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_target(url)
    assert SECRET not in str(refused.value)
    assert url.partition(":")[0] in str(refused.value)


def test_an_address_that_is_no_url_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="no URL") as refused:
        open_target(f"s3://[{SECRET}")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "said",
    [
        f"request to https://host/x?sig={SECRET}&a=b failed",
        f"request to https://key:{SECRET}@host/x failed",
        f"bad credential={SECRET}",
        f"the key is {SECRET}",
        f"first line\nSecretKey: {SECRET}",
    ],
)
def test_words_of_a_storage_are_cleaned(said: str) -> None:
    shown = _said(ValueError(said), {"AZURE_STORAGE_ACCOUNT_KEY": SECRET, "PATH": "/bin:/usr/bin"})
    assert SECRET not in shown
    assert shown


def test_a_file_url_is_a_folder(place: Path) -> None:
    target = open_target(f"file://{place}/a%20b")
    target.put("x/y", b"1")
    assert (place / "a b" / "x" / "y").read_bytes() == b"1"
    assert target.names() == ["x/y"]
    target.delete("x/y")
    target.delete("x/y")
    assert not (place / "a b" / "x").exists()
