"""The history against a plain list of what was applied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdtstore.engine.history import History

ORIGINS = st.integers(0, 2)


@given(st.lists(ORIGINS, max_size=30), st.sets(ORIGINS), st.integers(1, 60), st.data())
def test_what_a_peer_lacks_comes_in_apply_order(
    order: list[int], origins: set[int], max_bytes: int, data: st.DataObject
) -> None:
    history, plain = History([bytes(32)] * 3), list[tuple[int, bytes, int]]()
    for origin in order:
        seq = sum(o == origin for o, _, _ in plain) + 1
        plain.append((origin, f"{origin}:{seq}".encode(), seq))
        history.append(*plain[-1][:2])
    has, upto = ([data.draw(st.integers(0, order.count(origin))) for origin in range(3)] for _ in range(2))
    wanted = [
        (origin, commit) for origin, commit, seq in plain if origin in origins and has[origin] < seq <= upto[origin]
    ]
    found = history.lacking(has, upto, origins, max_bytes)
    assert found == wanted[: len(found)]
    assert bool(found) == bool(wanted), "at least one"
    assert len(found) < 2 or sum(len(commit) for _, commit in found) <= max_bytes
    if len(found) < len(wanted):
        assert sum(len(commit) for _, commit in wanted[: len(found) + 1]) > max_bytes
    assert len(history) == len(order)
