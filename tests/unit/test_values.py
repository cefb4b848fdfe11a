"""Values: one canonical form, checks that name what was wrong, JSON and msgpack bodies."""

from __future__ import annotations

import json
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.errors import UsageError
from crdtstore.testing.strategies import elements, integers, values
from crdtstore.values import (
    MAX_INTEGER_BYTES,
    MAX_VALUE_BYTES,
    check_element,
    check_integer,
    check_text,
    check_value,
    element_order,
    from_json,
    from_msgpack,
    pack,
    show,
    to_json,
    to_json_bytes,
    to_msgpack,
    unpack,
)


def _id(value: Any) -> str:
    return repr(value).partition(" at 0x")[0][:30]  # an address would be another in every worker


BIG = (1 << (8 * MAX_INTEGER_BYTES - 1)) - 1


# --- canonical bytes


@given(values())
def test_pack_and_unpack_are_inverse(value: Any) -> None:
    data = pack(value)
    assert unpack(data) == value
    assert pack(unpack(data)) == data


@given(values(), values())
def test_bytes_are_equal_exactly_when_values_are(left: Any, right: Any) -> None:
    assert (pack(left) == pack(right)) == (_typed(left) == _typed(right))


def _typed(value: Any) -> Any:
    """The value with its types, for Python holds 1, 1.0 and True for equal, and 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return type(value), repr(value) if isinstance(value, float) else value


@given(st.permutations(["b", "a", "ä", "aa", "$", "Z"]))
def test_the_order_of_fields_leaves_no_trace(names: list[str]) -> None:
    assert pack(dict.fromkeys(names, 1)) == pack(dict.fromkeys(sorted(names), 1))


@pytest.mark.parametrize(
    ("number", "head"),
    [
        ((1 << 64) - 1, b"\xcf"),
        (-(1 << 63), b"\xd3"),
        (1 << 64, b"\xc7\x09\x01"),
        (-(1 << 63) - 1, b"\xc7\x09\x01"),
        (BIG, b"\xc8\x04\x00\x01"),
    ],
    ids=_id,
)
def test_integers_beyond_64_bits_are_extension_1(number: int, head: bytes) -> None:
    data = pack([number])
    assert data[1 : 1 + len(head)] == head
    assert unpack(data) == [number]


@pytest.mark.parametrize(
    ("code", "data", "why"),
    [
        (1, (5).to_bytes(1, "big"), "fits 64 bits"),
        (1, (1 << 64).to_bytes(10, "big"), "as short as possible"),
        (1, b"\x01" * (MAX_INTEGER_BYTES + 9), "at most 1024"),
        (2, b"x", "unknown msgpack extension 2"),
    ],
    ids=_id,
)
def test_an_extension_has_one_form(code: int, data: bytes, why: str) -> None:
    for read in (unpack, from_msgpack):
        with pytest.raises(ValueError, match=why):
            read(msgpack.packb(msgpack.ExtType(code, data)))


@pytest.mark.parametrize("total", [1 << 8 * MAX_INTEGER_BYTES, -(10**2_470)], ids=("positive", "negative"))
def test_a_sum_may_be_longer_than_its_amounts(total: int) -> None:
    """A counter reads as the sum of amounts of up to 1,024 bytes each: who asks must be able to take it in."""
    assert from_msgpack(to_msgpack({"value": total})) == {"value": total}
    assert from_json(to_json_bytes({"value": total})) == {"value": total}
    with pytest.raises(UsageError, match="at most 1024 bytes"):
        check_integer(total, "amount")
    with pytest.raises(ValueError, match="at most 1024"):
        unpack(pack(total))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01", b"\xa2\xff\xff", b"\x91" * 5000 + b"\x01"], ids=_id
)
def test_bytes_that_are_no_value(data: bytes) -> None:
    for read in (unpack, from_msgpack):
        with pytest.raises(ValueError, match=r"."):
            read(data)


# --- checks


def _levels(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return value


@given(values())
def test_every_value_of_api_is_accepted(value: Any) -> None:
    assert check_value(value, "value") is value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "finite"),
        ([float("inf")], "finite"),
        ({"a": -float("inf")}, "finite"),
        ("\ud800", "surrogate"),
        (["\udfff"], "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({1: 2}, "must be text"),
        ({b"a": 2}, "must be text"),
        (BIG + 1, "at most 1024 bytes"),
        (_levels(33), "deeper than 32"),
        ({"a": _levels(32)}, "deeper than 32"),
        ("x" * MAX_VALUE_BYTES, "larger than"),
        ("ä" * (MAX_VALUE_BYTES // 2), "larger than"),
        (b"x" * MAX_VALUE_BYTES, "larger than"),
        (["x" * 1000] * 1050, "larger than"),
        ((1, 2), "got a tuple"),
        ({1}, "got a set"),
        (object(), "got a object"),
        (msgpack.Timestamp(1, 0), "got a Timestamp"),
    ],
    ids=_id,
)
def test_what_is_no_value(value: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        check_value(value, "value")
    assert caught.value.code == "invalid-value"
    assert caught.value.detail.endswith("Nothing changed.")


def test_the_limits_themselves_are_allowed() -> None:
    check_value(_levels(32), "value")
    check_value(BIG, "value")
    check_value(-BIG, "value")
    check_value("x" * (MAX_VALUE_BYTES - 5), "value")


@pytest.mark.parametrize("value", [True, 1.0, None, [1], {}, "\ud800", BIG + 1, 1.5], ids=_id)
def test_what_is_no_element(value: Any) -> None:
    with pytest.raises(UsageError):
        check_element(value, "each of elements")


def test_an_element_has_its_bytes_counted() -> None:
    for value in ("x" * (MAX_VALUE_BYTES + 1), "ä" * (MAX_VALUE_BYTES // 2 + 1), b"x" * (MAX_VALUE_BYTES + 1)):
        with pytest.raises(UsageError, match="larger than"):
            check_element(value, "each of elements")


@given(elements())
def test_every_element_is_accepted(element: Any) -> None:
    assert check_element(element, "element") == element


@pytest.mark.parametrize("value", [True, 1.0, "1", None, BIG + 1], ids=_id)
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(UsageError, match="must be an integer"):
        check_integer(value, "amount")


def test_text_is_text() -> None:
    with pytest.raises(UsageError, match="must be text, got 5"):
        check_text(5, "id")


@given(st.lists(elements()))
def test_elements_have_one_order(found: list[Any]) -> None:
    order = sorted(found, key=element_order)
    assert [element_order(element) for element in order] == sorted(element_order(element) for element in found)
    texts = [element for element in order if isinstance(element, str)]
    assert texts == sorted(texts, key=str.encode)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1 << 9000, "an integer of 9001 bits"),
        ("\ud800", '"\\ud800"'),
        ("ä", '"ä"'),
        ("x" * 100, '"' + "x" * 56 + "..."),
        (b"x", "a bytes"),
        (True, "true"),
    ],
    ids=_id,
)
def test_an_error_quotes_what_it_was_given(value: Any, shown: str) -> None:
    assert show(value) == shown
    show(value).encode()


# --- JSON


@given(values())
def test_json_there_and_back(value: Any) -> None:
    assert _typed(from_json(to_json_bytes(value))) == _typed(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\x00\xff", {"$bytes": "AP8="}),
        ({"$bytes": "AP8="}, {"$$bytes": "AP8="}),
        ({"$$a": {"$b": b""}}, {"$$$a": {"$$b": {"$bytes": ""}}}),
        ([b"a", {"a": [b"b"]}], [{"$bytes": "YQ=="}, {"a": [{"$bytes": "Yg=="}]}]),
        ((1, 2), [1, 2]),
    ],
    ids=_id,
)
def test_bytes_and_own_dollars_in_json(value: Any, written: Any) -> None:
    assert to_json(value) == written
    assert from_json(json.dumps(written).encode()) == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "Expecting"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 2}', 'the field "a" stands there twice'),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', 'the field "b" stands there twice'),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"$bytes": "?"}', "base64"),
        (b'{"$bytes": 5}', "base64"),
        (b'{"$bytes": "\xc3\xa4"}', "base64"),
        (b'{"$other": 5}', r"begins with \$"),
        (b'{"$bytes": "", "a": 1}', r"begins with \$"),
        (b"1" * 3000, "3000 digits"),
        (b"[" * 100_000, "too deeply"),
    ],
    ids=_id,
)
def test_json_that_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_json(text)


def test_a_number_too_large_for_a_float_is_no_value() -> None:
    with pytest.raises(UsageError, match="finite"):
        check_value(from_json(b"1e400"), "value")


@pytest.mark.parametrize("number", [BIG, -BIG], ids=_id)
def test_the_largest_integers_pass_through_json(number: int) -> None:
    assert from_json(to_json_bytes({"amount": number})) == {"amount": number}


def test_a_field_twice_among_many_is_found_at_once() -> None:
    text = json.dumps(list(range(60_000))).replace("[", '{"').replace("]", '": 0}').replace(", ", '": 0, "')
    twice = text[:-1] + ', "59999": 0}'
    started = time.process_time()
    with pytest.raises(ValueError, match="twice"):
        from_json(twice.encode())
    assert time.process_time() - started < 2  # it took minutes when names were counted one by one


# --- msgpack


@given(values())
def test_msgpack_there_and_back(value: Any) -> None:
    assert _typed(from_msgpack(to_msgpack(value))) == _typed(value)


@given(integers())
def test_integers_of_any_size_pass_through_msgpack(number: int) -> None:
    assert from_msgpack(to_msgpack({"amount": number})) == {"amount": number}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (b"\x81\x01\x01", "not allowed for map key"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\xc1", "malformed"),
        (b"x" * 11, "at most 10"),
    ],
    ids=_id,
)
def test_msgpack_that_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_msgpack(data, max_bytes=10)
