"""Bodies in JSON and msgpack: which one a request has, which one its answer gets.

The question: what is a body that says nothing of itself? Refused: guessing would make ``1`` and ``"1"`` one value. An answer is msgpack
only for those who ask for it; who cannot be pleased gets JSON, and with it the words that say what was wrong.
"""

from __future__ import annotations

from typing import Any

import msgspec

from crdtstore.errors import UsageError
from crdtstore.values import from_json, from_msgpack, show, to_json_bytes, to_msgpack

__all__ = ["JSON", "MSGPACK", "PROBLEM_JSON", "decode", "encode", "wants_msgpack"]

JSON, MSGPACK, PROBLEM_JSON = "application/json", "application/msgpack", "application/problem+json"
_PLAIN = frozenset((str, int, bool, type(None)))
_encode_json = msgspec.json.Encoder().encode


def wants_msgpack(accept: str | None) -> bool:
    """Whether an answer is to be msgpack, from the Accept header."""
    if accept is None or accept in (JSON, "*/*"):
        return False
    if accept == MSGPACK:
        return True
    weights = {MSGPACK: 0.0, JSON: 0.0}
    for part in accept.lower().split(","):
        media, _, parameters = part.strip().partition(";")
        weight = _weight(parameters)
        media = media.strip()
        if media in weights:
            weights[media] = weight
        elif media in ("*/*", "application/*"):
            weights[JSON] = max(weights[JSON], weight)
    return weights[MSGPACK] > 0 and weights[MSGPACK] >= weights[JSON]


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0


def decode(raw: bytes, content_type: str | None, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The fields of a body.

    Raises:  UsageError ``unsupported-media-type`` or ``bad-request`` with what was wrong; nothing changed.
    """
    if not raw:
        if may_be_empty:
            return {}
        raise UsageError("the body is empty; expected a map of fields. Nothing changed.")
    try:
        if _is_json(content_type):
            body = from_json(raw)
        elif content_type == MSGPACK:
            body = from_msgpack(raw, max_bytes=len(raw))
        else:
            said = "no Content-Type" if content_type is None else f"Content-Type {content_type[:100]!r}"
            raise UsageError(
                f"a body is {JSON} or {MSGPACK}, got {said}. Nothing changed.", code="unsupported-media-type"
            )
    except ValueError as error:
        raise UsageError(f"the body cannot be read: {error}. Nothing changed.") from None
    if not isinstance(body, dict):
        raise UsageError(f"a body is a map of fields, got {show(body)}. Nothing changed.")
    return body


def _is_json(content_type: str | None) -> bool:
    if content_type is None or content_type == JSON:
        return content_type is not None
    media, _, parameters = content_type.partition(";")
    if media.strip().lower() != JSON:
        return False
    name, _, charset = parameters.strip().partition("=")
    return not name or (name.strip().lower() == "charset" and charset.strip().strip('"').lower() == "utf-8")


def encode(body: dict[str, Any], is_msgpack: bool) -> bytes:
    """The bytes of an answer."""
    if is_msgpack:
        return to_msgpack(body)
    if _is_plain(body):
        try:
            return _encode_json(body)
        except (OverflowError, ValueError):  # an integer beyond 64 bits
            pass
    return to_json_bytes(body)


def _is_plain(body: dict[str, Any]) -> bool:
    """Whether the fast encoder writes this as the other one would: nothing in it needs a ``$``."""
    for value in body.values():
        if type(value) is list:
            for item in value:
                if type(item) not in _PLAIN:
                    return False
        elif type(value) not in _PLAIN:
            return False
    return True
