"""What a node leaves where it is while it cannot write: whatever would have to be written."""

from __future__ import annotations

import pytest

from crdtstore.configuration import ConfigurationId
from crdtstore.messages import Fetch, Frame, Message, Part, Want, encode_message
from crdtstore_node.driver import _leads_to_commits

ID = ConfigurationId(0, bytes(16))


@pytest.mark.parametrize(
    ("message", "is_left"),
    [
        (Frame("d/0", ID, [], [], []), True),
        (Part("d/0", ID, b"s", 0, b""), True),
        (Want("d/0", ID, "c", "k", 1, 0, 0), True),
        (Fetch("d/0", ID, b"", 0, 1), False),
    ],
)
def test_what_leads_to_writes_waits(message: Message, *, is_left: bool) -> None:
    assert _leads_to_commits(encode_message(message)) is is_left
