"""What is wrong with a request, as its answer says it, over HTTP and over sessions alike.

The question: how does a user find the line in our log that belongs to an answer? By the trace id: that of the traceparent that came with
the request (W3C Trace Context), or one made here when we failed.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

from crdtstore.errors import CrdtStoreError, Unavailable, UsageError, problem
from crdtstore.values import show

__all__ = ["check_ops", "document_of", "failed", "trace_id_of", "unknown_fields"]

_log = logging.getLogger(__name__)
_TRACE = re.compile("00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = "0" * 32


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a traceparent; one that is malformed counts as absent."""
    found = _TRACE.fullmatch(traceparent) if traceparent is not None else None
    return found[1] if found is not None and found[1] != _NO_TRACE else None


def document_of(error: CrdtStoreError, trace_id: str | None, outcomes: dict[str, int]) -> dict[str, Any]:
    """The problem document of an error, counted."""
    if error.trace_id is None:
        error.trace_id = trace_id
    document = problem(error)
    outcomes[document["code"]] = outcomes.get(document["code"], 0) + 1
    return document


def failed(trace_id: str | None) -> Unavailable:
    """What is answered when we failed; called where the exception is handled."""
    trace_id = trace_id or secrets.token_hex(16)
    _log.exception("a request failed", extra={"fields": {"trace_id": trace_id}})
    detail = (
        "this node failed at this request; its log says more under the trace id. Whether anything changed is not known."
    )
    return Unavailable(detail, code="internal", trace_id=trace_id)


def unknown_fields(given: dict[str, Any], known: frozenset[str]) -> UsageError:
    """What is said of fields that are not among those known."""
    unknown = sorted(str(name)[:100] for name in given.keys() - known)
    return UsageError(
        f"there is no field {', '.join(map(repr, unknown[:5]))} here; there are {', '.join(sorted(known))}. Nothing changed."
    )


def check_ops(ops: Any) -> list[dict[str, Any]]:
    """The operations of a commit: a list of maps.

    Raises:  UsageError ``bad-request``; nothing changed.
    """
    if not isinstance(ops, list):
        raise UsageError("ops must be a list of operations. Nothing changed.")
    for op in ops:
        if not isinstance(op, dict):
            raise UsageError(f'an op is a map such as {{"op": "add"}}, got {show(op)}. Nothing changed.')
    return ops
