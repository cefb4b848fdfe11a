"""Values: what users may store, and its one canonical form.

The question this file turns on: two replicas compare digests, so one value must have one sequence of bytes, however it was written.
Hence integers are shortest first, maps are sorted, floats are always eight bytes, and integers beyond 64 bits travel as msgpack
extension 1 (two's complement, big-endian, shortest), because msgpack itself raises OverflowError there.

In JSON bytes are ``{"$bytes": "<base64>"}``; a map of the user's own with a key that begins with ``$`` gets one more ``$``.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

import msgpack
import msgspec

from crdtstore.errors import UsageError

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER_BYTES",
    "MAX_VALUE_BYTES",
    "check_element",
    "check_integer",
    "check_text",
    "check_value",
    "element_order",
    "ext_hook",
    "from_json",
    "from_msgpack",
    "pack",
    "show",
    "to_json",
    "to_json_bytes",
    "to_msgpack",
    "unpack",
]

MAX_DEPTH = 32
MAX_INTEGER_BYTES = 1024
MAX_VALUE_BYTES = 1 << 20
_MAX_SUM_BYTES = MAX_INTEGER_BYTES + 8
"""A counter's reading may be longer than its amounts; what comes in is checked against ``MAX_INTEGER_BYTES`` where it is stored."""
_MAX_SUM_DIGITS = len(str(256**_MAX_SUM_BYTES))
"""Python itself refuses more than 4,300."""
_BIG_INTEGER = 1
_PLAIN = (bool, int, float, type(None))
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1


# --- canonical bytes ---------------------------------------------------------------------------------------------------------------


def ext_hook(code: int, data: memoryview) -> Any:
    """What msgspec calls for an extension: an integer beyond 64 bits in its one form, ValueError for anything else."""
    return _big_integer(code, bytes(data), MAX_INTEGER_BYTES)


def _big_integer(code: int, data: bytes, max_bytes: int) -> int:
    if code != _BIG_INTEGER:
        raise ValueError(f"unknown msgpack extension {code}")
    if len(data) > max_bytes:
        raise ValueError(f"an integer of {len(data)} bytes, at most {MAX_INTEGER_BYTES} are allowed")
    number = int.from_bytes(data, "big", signed=True)
    if _INT64_MIN <= number <= _UINT64_MAX:
        raise ValueError("an integer that fits 64 bits must not travel as an extension")
    if _integer_bytes(number) != data:
        raise ValueError("an extension integer must be as short as possible")
    return number


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(ext_hook=ext_hook)


def _integer_bytes(number: int) -> bytes:
    length = ((number if number >= 0 else ~number).bit_length() // 8) + 1
    return number.to_bytes(length, "big", signed=True)


def _packable(value: Any) -> Any:
    """The same value with integers beyond 64 bits replaced by their extension form."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if _INT64_MIN <= value <= _UINT64_MAX else msgspec.msgpack.Ext(_BIG_INTEGER, _integer_bytes(value))
    if isinstance(value, (list, tuple)):
        return [_packable(item) for item in value]
    if isinstance(value, dict):
        return {key: _packable(item) for key, item in value.items()}
    return value


def pack(value: Any) -> bytes:
    """Canonical msgpack bytes of a value that ``check_value`` accepts (or of lists and tuples of such)."""
    try:
        return _encoder.encode(value)
    except OverflowError:
        return _encoder.encode(_packable(value))


def unpack(data: bytes | memoryview) -> Any:
    """The value whose bytes ``pack`` made.

    Raises:  ValueError for anything else; nothing changed.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


# --- checks at the origin -----------------------------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as an error message may quote it: short, and never a number Python refuses to print."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _invalid(detail: str) -> UsageError:
    return UsageError(f"{detail}. Nothing changed.", code="invalid-value")


def check_text(value: Any, what: str) -> str:
    """Text that is valid UTF-8 (no lone surrogates), else ``invalid-value``."""
    if not isinstance(value, str):
        raise _invalid(f"{what} must be text, got {show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _invalid(f"{what} must be valid Unicode, got a lone surrogate") from None
    return value


def check_integer(value: Any, what: str) -> int:
    """An integer of at most 1,024 bytes, else ``invalid-value``; booleans and 1.0 are no integers."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid(f"{what} must be an integer, got {show(value)}")
    if value.bit_length() >= MAX_INTEGER_BYTES * 8:
        raise _invalid(f"{what} must be an integer of at most {MAX_INTEGER_BYTES} bytes, got {show(value)}")
    return value


def check_element(value: Any, what: str) -> str | int | bytes:
    """An element of a set: text, integer or bytes (1, 1.0 and true are one element in Python and three on the wire)."""
    if isinstance(value, str):
        value = check_text(value, what)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = check_integer(value, what)
    elif not isinstance(value, bytes):
        raise _invalid(f"{what} must be text, an integer or bytes, got {show(value)}")
    size = len(value) if isinstance(value, bytes) else len(value.encode()) if isinstance(value, str) else 0
    if size > MAX_VALUE_BYTES:
        raise _invalid(f"{what} is larger than {MAX_VALUE_BYTES} bytes")
    return value  # type: ignore[no-any-return]


def check_value(value: Any, what: str) -> Any:
    """A value of API: null, bool, integer, finite float, text, bytes, lists, maps with text keys; depth <= 32, <= 1 MiB."""
    if isinstance(value, str) and len(value) < MAX_VALUE_BYTES // 4:  # the common case, and no walk for it
        return check_text(value, what)
    _walk(value, what, 1)
    if not isinstance(value, _PLAIN) and len(pack(value)) > MAX_VALUE_BYTES:
        raise _invalid(f"{what} is larger than {MAX_VALUE_BYTES} bytes")
    return value


def _walk(value: Any, what: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _invalid(f"{what} is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, (bool, bytes)):
        return
    if isinstance(value, int):
        check_integer(value, what)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _invalid(f"{what} must be a finite number, got {value}")
    elif isinstance(value, str):
        check_text(value, what)
    elif isinstance(value, list):
        for item in value:
            _walk(item, what, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"a field name in {what}")
            _walk(item, what, depth + 1)
    else:
        raise _invalid(f"{what} must be null, bool, number, text, bytes, list or map, got a {type(value).__name__}")


def element_order(element: str | int | bytes) -> tuple[int, Any]:
    """Sort key of elements: integers, then text by code point (which is the order of its UTF-8 bytes), then bytes."""
    if isinstance(element, str):
        return (1, element)
    return (0, element) if isinstance(element, int) else (2, element)


# --- what crosses to users ----------------------------------------------------------------------------------------------------------


def _no_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields: dict[Any, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the field {show(name)} stands there twice")
        fields[name] = value
    return fields


def _json_pairs(pairs: list[tuple[str, Any]]) -> Any:
    fields = _no_duplicates(pairs)
    if len(fields) == 1 and "$bytes" in fields:
        try:
            return base64.b64decode(fields["$bytes"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ValueError("$bytes must be base64 text") from None
    for key in fields:
        if key.startswith("$") and not key.startswith("$$"):
            raise ValueError(f"the field {show(key)} begins with $; an own field needs one more $")
    return {key[1:] if key.startswith("$$") else key: value for key, value in fields.items()}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_int(text: str) -> int:
    if len(text) > _MAX_SUM_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits, at most {MAX_INTEGER_BYTES} bytes are allowed")
    return int(text)


_json = json.JSONDecoder(object_pairs_hook=_json_pairs, parse_constant=_no_constant, parse_int=_json_int)


def from_json(data: bytes) -> Any:
    """Plain values from a JSON body.

    Raises:  ValueError with what was wrong: not UTF-8, not JSON, a field twice, NaN, too deep.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        return _json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_json(value: Any) -> Any:
    """A value in the form ``json.dumps`` takes: bytes marked, own ``$`` fields escaped."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {"$" + key if key.startswith("$") else key: to_json(item) for key, item in value.items()}
    return value


def to_json_bytes(value: Any) -> bytes:
    """A JSON body; integers of any size are written as digits."""
    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _ext_in(code: int, data: bytes) -> Any:
    return _big_integer(code, data, _MAX_SUM_BYTES)


def from_msgpack(data: bytes, *, max_bytes: int = 4 << 20) -> Any:
    """Plain values from a msgpack body.

    Raises:  ValueError with what was wrong: malformed, trailing bytes, a field twice, too deep, over a limit.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes, at most {max_bytes} are allowed")
    try:  # no part of it can declare more than the whole has: msgpack sets its other limits from the length
        return msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_ext_in, object_pairs_hook=_no_duplicates)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(str(error) or "malformed msgpack") from None


def to_msgpack(value: Any) -> bytes:
    """A msgpack body: the canonical bytes of the value."""
    return pack(value)
