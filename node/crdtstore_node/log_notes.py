"""Notes of groups in a log: who is a member, what was voted, in words; and whose commits beside them count.

The question: which commits in a log are the group's, and which are of an install that was not the last one, or is under way? Those of a
group that the checkpoint names count from where it says (``begins``); those of a group that it does not name count unless its notes say
that its state was not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crdtstore.configuration import Configuration
from crdtstore.engine.membership.notes import Adopted, Installed, Note, Voted, decode_note
from crdtstore.errors import DecodeError, ProtocolError
from crdtstore.promises import NOTE_GROUP
from crdtstore.storage.protocol import NO_ORIGIN, Entry

__all__ = ["Groups", "about", "is_commit", "is_note_of_group"]


def is_commit(entry: Entry) -> bool:
    """Whether an entry of a log is a commit."""
    return entry.origin != NO_ORIGIN


def is_note_of_group(entry: Entry) -> bool:
    """Whether it is a note about the members of a group; the others are the node's."""
    return entry.origin == NO_ORIGIN and entry.group != NOTE_GROUP


def about(note: Note) -> dict[str, Any]:
    """What a note says, as JSON has it; ``text`` says all of it.

    Raises:  DecodeError when it names a configuration that is none.
    """
    if isinstance(note, Adopted):
        _check(note.configuration)
        return _configuration(note.configuration, is_installed=note.is_installed)
    if isinstance(note, Voted):
        if note.accepted is not None:
            _check(note.accepted.value)
        return _vote(note)
    if isinstance(note, Installed):
        return {"note": "installed", "text": "installed: the state that the others had is here"}
    return {"note": "leaving", "text": "leaving: this replica makes no commit any more"}


def _check(configuration: Configuration) -> None:
    try:
        configuration.check()
    except ProtocolError as error:
        raise DecodeError(error.detail) from error


def _configuration(configuration: Configuration, *, is_installed: bool) -> dict[str, Any]:
    removed = [{"replica": each.replica, "final": each.final} for each in configuration.removed]
    text = f"configuration {configuration.id}: members {', '.join(configuration.ids)}"
    if removed:
        said = [
            f"{each.replica} ({'final not decided' if each.final is None else f'final {each.final}'})"
            for each in configuration.removed
        ]
        text += f"; removed {', '.join(said)}"
    if not is_installed:
        text += "; its state was not here"
    return {
        "note": "configuration",
        "configuration": str(configuration.id),
        "members": list(configuration.ids),
        "removed": removed,
        "installed": is_installed,
        "text": text,
    }


def _vote(note: Voted) -> dict[str, Any]:
    accepted = None if note.accepted is None else str(note.accepted.value.id)
    said = []
    if note.promised is not None:
        said.append(f"promised ballot {note.promised.round} of {note.promised.replica}")
    if accepted is not None:
        said.append(f"accepted configuration {accepted}")
    text = f"a vote: {' and '.join(said) or 'nothing'}, {note.votes} in all"
    return {"note": "vote", "accepted": accepted, "votes": note.votes, "text": text}


class Groups:
    """What the notes say of the groups, followed through a log. Mutable.

    ``begins``: of the groups that the checkpoint names, from which position on what the log holds of them counts.
    """

    def __init__(self, begins: Mapping[str, int]) -> None:
        self._begins = begins
        self._configurations: dict[str, Configuration] = {}
        self.notes = 0
        """Of groups; those of the node are not counted."""
        self.arriving: set[str] = set()
        """Groups whose state was not here, and which the checkpoint does not name."""
        self.installed: set[str] = set()
        """Of these: those that were installed after all, so that a checkpoint has to name them."""

    def counts(self, group: str, position: int) -> bool:
        """Whether a commit of this group in the block at this position belongs to what is here of the group."""
        begins = self._begins.get(group)
        return group not in self.arriving if begins is None else position >= begins

    def take(self, entry: Entry) -> Note:
        """Take in a note of a group.

        Raises:  DecodeError when it is none, or does not follow from those before.
        """
        note = decode_note(entry.data)
        self.notes += 1
        group = entry.group
        if isinstance(note, Adopted):
            self._follow(group, note.configuration)
            if not note.is_installed and group not in self._begins:
                self.arriving.add(group)
        elif isinstance(note, Installed) and group in self.arriving:
            self.installed.add(group)
        return note

    def _follow(self, group: str, configuration: Configuration) -> None:
        before = self._configurations.get(group)
        try:
            configuration.check()
            if before is not None:
                if not before.precedes(configuration):
                    raise ProtocolError(f"configuration {configuration.id} does not follow {before.id}")
                configuration.check_follows(before)
        except ProtocolError as error:
            raise DecodeError(f"{group}: {error.detail}") from error
        self._configurations[group] = configuration
