"""The handle of a counter with a lower bound, and holds: a part of it that is set aside for a while.

The question: what does leaving a block mean for the hold it was opened with? Confirmed at its end, released on an
exception, unless the block has ended the hold itself. One case is left to time: where the block asked to confirm and
nobody knows whether that happened, a release could undo what the user believes was sold, so the hold keeps its deadline
and the error its id.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from crdtstore.errors import CrdtStoreError, HoldEnded, OutcomeUnknown, UsageError
from crdtstore_client.handles._base import Handle, milliseconds
from crdtstore_client.ops import Ack, Op

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["BoundedCounter", "Hold", "Reservation"]


class Hold:
    """So much of a counter, set aside until its time to live is over; ``id`` names it, also in another process."""

    __slots__ = ("_asked", "_handle", "_is_ended", "_region", "amount", "id")

    def __init__(self, handle: BoundedCounter, hold_id: str, amount: int) -> None:
        self._handle = handle
        self._asked = ""
        self._is_ended = False
        self._region: str | None = None
        self.id = hold_id
        self.amount = amount

    def confirm(self) -> Op[int]:
        """Consume what is held.

        Raises:  HoldEnded when it was confirmed, released or too late; nothing changed.
        """
        return self._end("confirm")

    def release(self) -> Op[int]:
        """Give back what is held.

        Raises:  HoldEnded when it was confirmed, released or too late; nothing changed.
        """
        return self._end("release")

    def _end(self, name: str) -> Op[int]:
        op = self._handle._make(_Ending, {"op": name, "hold": self.id}, self._handle._decode_shown)
        op.hold = self
        if self._region is not None:
            op.prefers = (self._region,)
        return op

    def __repr__(self) -> str:
        return f"<hold {self.id} of {self.amount} on {self._handle!r}>"


class _Ending(Op[int]):
    """A confirm or release that tells its hold how far it came."""

    __slots__ = ("hold",)
    hold: Hold

    def use(self, domain: Domain) -> dict[str, Any]:
        self.hold._asked = self.fields["op"]
        return super().use(domain)

    def decode(self, value: Any) -> int:
        self.hold._is_ended = True
        return super().decode(value)


class Reservation(Op[Hold]):
    """A reserve that is not sent yet: await it for its hold, or enter it: ``async with … as hold``."""

    __slots__ = ("_hold",)
    _hold: Hold

    def __await__(self) -> Generator[Any, None, Ack[Hold]]:
        return self._reserve().__await__()

    async def _reserve(self) -> Ack[Hold]:
        ack = await self._send()
        ack.value._region = next(iter(ack.durable_in), None)  # only that region can end it
        return ack

    async def __aenter__(self) -> Hold:
        self._hold = (await self).value
        return self._hold

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold = self._hold
        if hold._is_ended:
            return
        if error is None:
            if hold._asked != "release":
                await self._confirm()
        elif hold._asked != "confirm" or not isinstance(error, OutcomeUnknown):
            await self._release(error)

    async def _confirm(self) -> None:
        try:
            await self._hold.confirm()
        except HoldEnded as ended:
            if ended.more.get("outcome") != "confirmed":  # else the block did it by the id
                raise

    async def _release(self, error: BaseException) -> None:
        """Release on the way out; what stands in the way must not hide why the block ended."""
        try:
            await self._hold.release()
        except HoldEnded:
            pass
        except CrdtStoreError as failure:
            error.add_note(f"the hold {self._hold.id} was not released and ends by itself ({failure})")


class BoundedCounter(Handle[int]):
    """How many are left? Never fewer than its bound, in any region, whatever is cut off.

    Each region holds rights to a part of it: ``(await handle.read()).rights``. Where they do not suffice, regions are
    asked one after the other, and then ``InsufficientRights`` says what is ``here`` and about what is ``elsewhere``.
    """

    type_name = "bounded_counter"
    _readings = int
    __slots__ = ()

    def grant(self, amount: int) -> Op[int]:
        """Make more of it. The rights are those of the region that takes the request.

        Once a grant may have arrived, it is repeated at that node only, not elsewhere: rights belong to the region that
        made them, so a second region that cannot know of the first would make them again, and both could be spent.
        Hence repeat an unknown outcome (``OutcomeUnknown``: its ``op_id``, and the region in its text) there as well.
        """
        return self.op("grant", amount=amount)

    def consume(self, amount: int) -> Op[int]:
        """Take so many, if the region has the rights.

        Raises:  InsufficientRights (``here``, ``elsewhere``, ``requested``); nothing changed.
        """
        return self.op("consume", amount=amount)

    def transfer(self, amount: int, to: str) -> Op[int]:
        """Give rights to another region.

        Raises:  InsufficientRights; nothing changed.
        """
        return self.op("transfer", amount=amount, to=to)

    def reserve(self, amount: int, ttl: float | timedelta) -> Reservation:
        """Set so many aside for ``ttl`` seconds: ``async with stock["sku-7"].reserve(2, ttl=900) as hold``.

        The block confirms at its end and releases on an exception; ``hold.confirm()`` and ``hold.release()`` do so
        earlier. Awaited instead, ``ack.value`` is the hold.
        Raises:  InsufficientRights; nothing changed. At the end of the block: HoldEnded when it took longer than
                 ``ttl``, and what was held may be gone.
        """
        ttl_ms = milliseconds(ttl)
        if ttl_ms is None:
            raise UsageError("ttl must be seconds or a timedelta, got None. Nothing changed.", code="invalid-value")
        return self._reservation({"amount": amount, "ttl_ms": ttl_ms})

    def confirm(self, hold: str) -> Op[int]:
        """Consume what is held, by the id of the hold.

        Raises:  HoldEnded; nothing changed.
        """
        return self.op("confirm", hold=hold)

    def release(self, hold: str) -> Op[int]:
        """Give back what is held, by the id of the hold.

        Raises:  HoldEnded; nothing changed.
        """
        return self.op("release", hold=hold)

    def op(self, name: str, **arguments: Any) -> Op[Any]:
        if name == "reserve":
            return self._reservation(arguments)
        op = super().op(name, **arguments)
        op.stays = name == "grant"
        return op

    def _reservation(self, arguments: Mapping[str, Any]) -> Reservation:
        fields = self._checked("reserve", arguments)
        return self._make(Reservation, fields, lambda hold: Hold(self, hold, fields["amount"]))

    def decode(self, value: Any) -> int:
        return int(value)
