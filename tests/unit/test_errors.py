"""The table of codes: what each says to a machine, and that a problem document carries an error whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crdtstore.errors import (
    CODES,
    AccessError,
    Compacted,
    CrdtStoreError,
    DecodeError,
    HoldEnded,
    InsufficientRights,
    InvariantViolation,
    NotReplicated,
    OutcomeUnknown,
    PreconditionFailed,
    ProtocolError,
    ReplicaBehind,
    StorageError,
    Unavailable,
    UsageError,
    from_problem,
    problem,
)

TABLE = {
    "bad-request": (UsageError, 400, "none", False),
    "not-declared": (UsageError, 404, "none", False),
    "no-such-route": (UsageError, 404, "none", False),
    "method-not-allowed": (UsageError, 405, "none", False),
    "type-mismatch": (UsageError, 409, "none", False),
    "membership-changed": (UsageError, 409, "none", False),
    "confirm-needed": (UsageError, 409, "none", False),
    "not-one-line": (UsageError, 409, "none", False),
    "too-large": (UsageError, 413, "none", False),
    "unsupported-media-type": (UsageError, 415, "none", False),
    "cross-shard": (UsageError, 422, "none", False),
    "invalid-op": (UsageError, 422, "none", False),
    "invalid-value": (UsageError, 422, "none", False),
    "not-deletable": (UsageError, 422, "none", False),
    "schema-violation": (UsageError, 422, "none", False),
    "key-reused": (UsageError, 422, "none", False),
    "key-expired": (UsageError, 422, "none", False),
    "foreign-token": (UsageError, 422, "none", False),
    "unauthenticated": (AccessError, 401, "none", False),
    "forbidden": (AccessError, 403, "none", False),
    "precondition-failed": (PreconditionFailed, 412, "none", False),
    "insufficient-rights": (InsufficientRights, 409, "none", True),
    "hold-ended": (HoldEnded, 409, "none", False),
    "compacted": (Compacted, 410, "none", False),
    "token-lost": (Compacted, 410, "none", False),
    "replica-behind": (ReplicaBehind, 503, "none", True),
    "overloaded": (Unavailable, 503, "none", True),
    "not-ready": (Unavailable, 503, "none", True),
    "leaving": (Unavailable, 503, "none", True),
    "no-quorum": (Unavailable, 503, "unknown", True),
    "fenced": (Unavailable, 503, "none", True),
    "identity-unproven": (Unavailable, 503, "none", True),
    "storage-failed": (Unavailable, 503, "none", True),
    "storage-full": (Unavailable, 507, "none", True),
    "rate-limited": (Unavailable, 429, "none", True),
    "unreachable": (Unavailable, 503, "none", True),
    "wrong-worker": (Unavailable, 421, "none", True),
    "not-replicated": (NotReplicated, 202, "applied", False),
    "outcome-unknown": (OutcomeUnknown, 504, "unknown", True),
    "internal": (Unavailable, 500, "unknown", True),
}
"""API 3, told a second time."""


def test_the_table_is_the_one_of_the_api() -> None:
    assert {code: (row.error, row.status, row.effect, row.retryable) for code, row in CODES.items()} == TABLE


@pytest.mark.parametrize("code", CODES)
def test_a_problem_document_is_an_error_and_back(code: str) -> None:
    row = CODES[code]
    error = row.error("what was wrong. Nothing changed.", code=code, retry_after=1.5, trace_id="t", regions=["eu"])
    document = json.loads(json.dumps(problem(error)))
    assert document["type"] == f"urn:crdtstore:problem:{code}"
    assert {name: document[name] for name in ("title", "status", "effect", "retryable")} == {
        "title": row.title,
        "status": row.status,
        "effect": row.effect,
        "retryable": row.retryable,
    }
    back = from_problem(document)
    assert type(back) is row.error
    assert problem(back) == document
    assert (back.code, back.detail, back.retry_after, back.trace_id) == (code, error.detail, 1.5, "t")
    assert str(back) == f"{code}: what was wrong. Nothing changed."


@pytest.mark.parametrize(
    "cls",
    sorted(
        {row.error for row in CODES.values()} | {DecodeError, ProtocolError, StorageError}, key=lambda cls: cls.__name__
    ),
    ids=lambda cls: cls.__name__,
)
def test_every_class_has_a_code_of_its_own_by_default(cls: type[CrdtStoreError]) -> None:
    error = cls("x")
    assert error.code in CODES
    assert issubclass(cls, CrdtStoreError)
    assert cls.__name__ not in dir(__builtins__)


def test_what_errors_say_beside_their_sentence() -> None:
    rights = InsufficientRights("x", here=3, elsewhere={"us": 15, "ap": 5}, requested=5)
    assert (rights.here, rights.elsewhere, rights.requested) == (3, 20, 5)
    assert rights.by_region == {"us": 15, "ap": 5}
    assert (HoldEnded("x", outcome="expired").outcome, HoldEnded("x").outcome) == ("expired", None)
    assert InsufficientRights("x").here == InsufficientRights("x").elsewhere == 0
    assert Compacted("x", snapshot="s").snapshot == "s"
    assert Compacted("x").snapshot is None
    assert ReplicaBehind("x", regions=["eu"]).regions == ["eu"]
    assert ReplicaBehind("x").regions == []
    assert NotReplicated("x", durable_in=["eu"]).durable_in == ["eu"]
    assert OutcomeUnknown("x", op_id="~1").op_id == "~1"
    assert UsageError("x", retryable=True).retryable


@pytest.mark.parametrize(
    "document", [{}, {"code": "of-the-future", "effect": "applied", "retryable": True, "detail": "d", "x": 1}]
)
def test_an_unknown_problem_is_an_error_all_the_same(document: dict[str, Any]) -> None:
    error = from_problem(document)
    assert isinstance(error, CrdtStoreError)
    assert error.effect == document.get("effect", "unknown")
    assert error.retryable == document.get("retryable", True)


def test_the_effect_that_a_problem_names_counts_before_that_of_its_code() -> None:
    error = Unavailable("no space", code="storage-full")
    assert error.effect == "none"
    error.effect = "unknown"
    back = from_problem(json.loads(json.dumps(problem(error))))
    assert (type(back), back.code, back.effect) == (Unavailable, "storage-full", "unknown")


def test_an_unknown_code_leaves_the_node_as_internal() -> None:
    document = problem(CrdtStoreError("x", code="surprise"))
    assert (document["code"], document["status"], document["effect"]) == ("internal", 500, "unknown")


def test_a_sentence_can_always_be_carried_by_a_reply() -> None:
    error = UsageError("got \ud800 and " + "x" * 5_000)
    assert len(error.detail.encode()) < 1_100
    assert "\\ud800" in error.detail
    json.dumps(problem(error), ensure_ascii=False).encode()


def test_our_own_bugs_are_no_answer_to_a_user() -> None:
    assert not issubclass(InvariantViolation, CrdtStoreError)
