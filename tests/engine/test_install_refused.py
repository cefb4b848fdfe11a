"""Parts of a snapshot that are not what they should be: all of it is refused, and nothing of it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from crdtstore.install import lending
from crdtstore.install.parts import Commits, End, Head, Rows, decode_body, encode_body
from crdtstore.messages import Message, Part
from tests.engine.install_runs import begin_again, finish, with_history
from tests.engine.installing import AP, GROUP, Site, World, altered, watch_l7


@pytest.fixture(autouse=True)
def laws(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(lending, "PART_ROWS", 12)
    monkeypatch.setattr(lending, "PART_BYTES", 1_500)
    broken = watch_l7(monkeypatch)
    yield broken
    assert not broken


# --- what is not true


def alter(world: World, site: Site, change: Callable[[Any], Any]) -> list[int]:
    """Change the first part for which ``change`` gives another body."""
    done: list[int] = []

    def edit(source: Site, peer: Any, message: Message) -> list[bytes] | None:
        if isinstance(message, Part) and message.group == GROUP and message.number >= 0 and not done:
            body = change(decode_body(message.body))
            if body is not None:
                done.append(message.number)
                return [altered(message, body if isinstance(body, bytes) else encode_body(body))]
        return None

    world.edit = edit
    return done


def flipped(kind: type) -> Callable[[Any], Any]:
    def change(body: Any) -> Any:
        if not isinstance(body, kind):
            return None
        data = bytearray(encode_body(body))
        data[-1] ^= 1
        return bytes(data)

    return change


def without_a_row(body: Any) -> Any:
    return Rows(body.flat[:2] + body.flat[4:]) if isinstance(body, Rows) and len(body.flat) > 4 else None


def twice_a_row(body: Any) -> Any:
    return Rows([*body.flat[:2], *body.flat]) if isinstance(body, Rows) and len(body.flat) > 4 else None


def own_row(body: Any) -> Any:
    return Rows([b"\x05" + body.flat[0][1:], body.flat[1]]) if isinstance(body, Rows) and body.flat else None


def without_a_commit(body: Any) -> Any:
    return Commits(body.origins[1:], body.commits[1:]) if isinstance(body, Commits) and body.commits else None


def head_with(**fields: Any) -> Callable[[Any], Any]:
    def change(body: Any) -> Any:
        return Head(msgspec.structs.replace(body.saved, **fields)) if isinstance(body, Head) else None

    return change


def too_short(body: Any) -> Any:
    return Head(msgspec.structs.replace(body.saved, heads=[])) if isinstance(body, Head) else None


def unnamed(body: Any) -> Any:
    if not isinstance(body, Head):
        return None
    members = [name for name in body.saved.members if name != str(AP.replica)]
    return Head(msgspec.structs.replace(body.saved, members=[*members, "sa-1.00000000000000ff"]))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a flipped row": flipped(Rows),
    "a flipped commit": flipped(Commits),
    "a flipped hash": flipped(End),
    "a row less": without_a_row,
    "a row twice": twice_a_row,
    "a row of the sender's own": own_row,
    "a commit less": without_a_commit,
    "another group": head_with(group="e/0"),
    "no chains": too_short,
    "another digest": head_with(digest=bytes(16)),
    "a checkpoint from before": unnamed,
    "no part at all": lambda body: b"\xc1" if isinstance(body, Rows) else None,
    "the end at once": lambda body: End(bytes(32)) if isinstance(body, Rows) else None,
    "no head": lambda body: Rows([]) if isinstance(body, Head) else None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_true_is_refused_as_a_whole(name: str) -> None:
    world = with_history()
    site = begin_again(world)
    done = alter(world, site, CHANGES[name])
    world.run_until(lambda: site.is_installed)
    assert done, "it was never sent"
    refused = [reason for where, reason in world.rejected if where == AP.node]
    assert len(refused) == 1, refused
    finish(world)


class Liar:
    """A sender whose hash fits what it sends."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.hash, self.change, self.is_done = sha256(), change, False
        self.sent: dict[int, bytes] = {}
        self.snapshot = b""

    def __call__(self, source: Site, peer: Any, message: Message) -> list[bytes] | None:
        if not isinstance(message, Part) or message.group != GROUP or message.number < 0:
            return None
        if not self.snapshot:
            self.snapshot = message.snapshot
        if message.snapshot != self.snapshot:
            return None
        body = decode_body(message.body)
        if isinstance(body, End):
            return [altered(message, encode_body(End(self.hash.digest())))]
        if message.number in self.sent:
            return [altered(message, self.sent[message.number])]
        changed = None if self.is_done else self.change(body)
        data = message.body
        if changed is not None:
            self.is_done, data = True, encode_body(changed)
        self.hash.update(data)
        self.sent[message.number] = data
        return [altered(message, data)]


@pytest.mark.parametrize("change", [without_a_row, without_a_commit, head_with(digest=bytes(16))])
def test_a_liar_whose_hash_fits_is_refused_by_digest_and_chain(change: Callable[[Any], Any]) -> None:
    world = with_history()
    site = begin_again(world)
    liar = Liar(change)
    world.edit = liar
    world.run_until(lambda: site.is_installed)
    assert liar.is_done
    refused = [reason for where, reason in world.rejected if where == AP.node]
    assert len(refused) == 1, refused
    world.edit = lambda source, peer, message: None
    finish(world)
