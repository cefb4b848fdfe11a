"""What ``crdtstore backup list`` says of a target, and what ``prune`` removes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.errors import StorageError
from crdtstore_node.backup.checkpoint import open_rows
from crdtstore_node.backup.source import open_backup
from crdtstore_node.backup.target import Bucket

EMPTY = "20260105T100000Z-us-1-0123abcd"


def crdtstore(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_a_list_says_whose_when_and_how_much(folder: Path) -> None:
    target, manifest = str(folder.parent), open_backup(str(folder)).manifest
    (folder.parent / EMPTY).mkdir()
    head, *lines = crdtstore("backup", "list", target).splitlines()
    assert head.split() == ["name", "node", "taken", "commits", "size"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    commits = sum(sum(part.end.vector.values()) for part in manifest.groups.values())
    assert rows[folder.name] == ["r0-1", f"{manifest.taken[:19]}Z", str(commits), "0.0", "MiB", "whole"]
    assert rows[EMPTY][:5] == ["us-1", "2026-01-05T10:00:00Z", "-", "-", "not"]
    by_name = {each["name"]: each for each in json.loads(crdtstore("backup", "list", target, "--json"))}
    assert by_name[folder.name]["bytes"] == sum(part.bytes for part in manifest.objects)
    assert by_name[EMPTY]["finished"] is False


def test_a_folder_with_nothing_in_it_is_pruned(folder: Path) -> None:
    (folder.parent / EMPTY).mkdir()
    assert crdtstore("backup", "prune", str(folder.parent)) == f"removed {EMPTY}\n"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_manifest_hides_no_other_backup(folder: Path) -> None:
    other = folder.parent / EMPTY
    other.mkdir()
    (other / "manifest.json").write_text("{")
    lines = crdtstore("backup", "list", str(folder.parent)).splitlines()
    assert f"damaged: {other}/manifest.json" in lines[1]
    assert lines[2].endswith("whole")


def test_what_is_no_target_is_wrong_use(folder: Path) -> None:
    assert "there is no such folder" in crdtstore("backup", "list", f"{folder}-typo", code=2)
    assert "there is no such folder" in crdtstore("backup", "prune", f"{folder}-typo", code=2)
    assert "is a backup itself" in crdtstore("backup", "list", str(folder), code=2)


@pytest.mark.parametrize(
    "said", ["PUT http://169.254.169.254/latest/api/token 403", "http://metadata.google.internal/x"]
)
def test_no_credentials_is_one_line(said: str) -> None:
    bucket = Bucket(None, "s3://bucket/x", {})  # type: ignore[arg-type]
    error = bucket._failed("name", ValueError(f"Generic S3 error\n{said}"))
    assert error.detail.startswith(
        "s3://bucket/x/name: there are no credentials for it in the environment: set AWS_ACCESS"
    )
    assert "\n" not in error.detail


@pytest.mark.parametrize(("flag", "told"), [(os.ST_RDONLY, "on a read-only file system: copy it"), (0, "as the user")])
def test_a_source_that_cannot_be_written_says_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, flag: int, told: str
) -> None:
    def fail(data: Path) -> None:
        raise StorageError(f"{data}/state.sqlite: unable to open database file (SQLITE_CANTOPEN)")

    monkeypatch.setattr("crdtstore_node.backup.checkpoint.SqlitePin.open", fail)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flag))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="CANTOPEN") as refused, open_rows(place):
        pass
    assert told in refused.value.detail
