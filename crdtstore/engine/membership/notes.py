"""Notes: what a replica must not forget of who is a member, as records of its log and as a part of its checkpoints.

The question: what is a note in a log that also has a checkpoint? Notes that a checkpoint holds may come once more before those that came
after it. Each says how far it reaches, the number of a configuration or the count of votes, so what is known already is passed over.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from crdtstore.configuration import Configuration
from crdtstore.errors import DecodeError
from crdtstore.messages import Ballot, Claim, Vote

__all__ = ["Adopted", "Installed", "Kept", "Leaving", "Note", "Voted", "decode_kept", "decode_note", "encode"]


class Adopted(Struct, array_like=True, tag=1, frozen=True):
    """This configuration is in force from here on."""

    configuration: Configuration
    is_installed: bool = False
    """Whether the state was here: if not, commits that follow came with an install, and count only if a checkpoint names the group."""


class Voted(Struct, array_like=True, tag=2, frozen=True):
    """What was promised and accepted about the successor of the configuration in force; ``votes`` counts all of them."""

    promised: Ballot | None
    accepted: Vote | None
    votes: int


class Installed(Struct, array_like=True, tag=3, frozen=True):
    """The state that the others had is here."""


class Leaving(Struct, array_like=True, tag=4, frozen=True):
    """This replica makes no commit any more."""


Note = Adopted | Voted | Installed | Leaving


class Kept(Struct, array_like=True, frozen=True):
    """All of it, in a checkpoint."""

    configuration: Configuration
    voted: Voted
    is_installed: bool
    is_leaving: bool
    claims: dict[str, Claim] = {}
    """The newest rows of others that were ever seen here."""


encode = msgspec.msgpack.Encoder().encode
_ERRORS = msgspec.MsgspecError, UnicodeDecodeError, RecursionError
"""What bytes from anywhere may lead to."""
_note_decoder = msgspec.msgpack.Decoder(Note)
_kept_decoder = msgspec.msgpack.Decoder(Kept)


def decode_note(data: bytes) -> Note:
    """The note in an entry of the log.

    Raises:  DecodeError when it is not one that this version knows.
    """
    try:
        note: Note = _note_decoder.decode(data)
    except _ERRORS as error:
        raise DecodeError(f"not a note about members: {error}") from error
    return note


def decode_kept(data: bytes) -> Kept:
    """What a checkpoint holds.

    Raises:  DecodeError.
    """
    try:
        return _kept_decoder.decode(data)
    except _ERRORS as error:
        raise DecodeError(f"not what a checkpoint holds about members: {error}") from error
