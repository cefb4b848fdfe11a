"""Push, anti-entropy and relay: how everybody comes to have everything, and nobody twice.

* Push: a durable own commit goes at once to every streaming peer, in frames, within a window that its acknowledgements open.
* Anti-entropy: every gossip interval a digest (own row, rows of others) to one random peer, which answers with its own.
* Relay: what a third replica made reaches a peer from its maker; only when the peer has lacked it for a while without any progress does
  a digest bring it from us, in our apply order, never grouped by origin: grouped, a receiver with a bounded buffer livelocks.

The question: how is a loss noticed? By a gap (the receiver asks to start again at its row) or by silence (the sender falls back to
probing). A digest says what is delivered and durable, nothing else: one that says what was heard of diverges for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from crdtstore.engine.output import Output
from crdtstore.engine.progress import Progress
from crdtstore.errors import StorageError
from crdtstore.messages import Ack, Digest, Frame, Row, Segment

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["AntiEntropy"]


_READ_BYTES = 64 << 10
"""So much is read from the log for one frame: some 10 ms when a block holds few commits."""


class AntiEntropy:
    """The conversations of one replica with its peers. Mutable; part of the engine."""

    def __init__(self, engine: Engine, random: Random) -> None:
        self._engine = engine
        self._random = random
        self._options = engine.options
        count = len(engine.replicas)
        self.peers = {index: self._begin(count) for index in range(count) if index != engine.me}
        self._next_gossip_ms = 0
        self.wake_ms = 0
        """When a tick may have something to do: never later than it has."""
        self._all_heard = count == 1
        """Whether all others said a row since this configuration began."""
        self._goes_on = False
        """Whether a window had room for more than was read for it in one step."""

    def _begin(self, count: int) -> Progress:
        return Progress(count, self._options.window_bytes)

    # --- members

    def admit(self) -> None:
        """There is one more replica, which is no peer yet."""
        for progress in self.peers.values():
            progress.admit()

    def adopt(self, others: Sequence[int]) -> None:
        """From now on these are the other members; what each has, and whether it can be heard, is to be learnt again."""
        count = len(self._engine.replicas)
        self.peers = {index: self._begin(count) for index in others}
        self._all_heard = not others
        self._goes_on = False

    # --- time

    def on_tick(self, now_ms: int, out: Output) -> None:
        """Acknowledge what is due, fall back where a peer is silent, gossip when it is time."""
        options, me, history = self._options, self._engine.me, self._engine.history
        if self._goes_on:
            self._goes_on = False
            self._push(now_ms, out)
        for peer, progress in self.peers.items():
            if progress.ack_due_ms is not None and now_ms >= progress.ack_due_ms:
                self._acknowledge(peer, progress, now_ms, out)
            size = history.size(me, progress.has[me], progress.sent)
            if progress.is_overdue(me, now_ms, size, options.ack_timeout_ms, options.resend_after_ms):
                progress.become_probing(now_ms, size)
                self._send_digest(peer, now_ms, out, wants_answer=True)
        if now_ms >= self._next_gossip_ms:
            interval = options.gossip_interval_ms
            self._next_gossip_ms = now_ms + interval * 3 // 4 + self._random.randrange(interval // 2 + 1)
            connected = [peer for peer, progress in self.peers.items() if progress.state != "down"]
            if connected:
                self._send_digest(self._random.choice(connected), now_ms, out, wants_answer=True)
        self.wake_ms = now_ms + 1 if self._goes_on else self._next_gossip_ms
        for progress in self.peers.values():
            if progress.ack_due_ms is not None and progress.ack_due_ms < self.wake_ms:
                self.wake_ms = progress.ack_due_ms

    def on_peer_changed(self, peer: int, is_connected: bool, now_ms: int, out: Output) -> None:
        progress = self.peers.get(peer)
        if progress is None:  # no member
            return
        if is_connected:
            progress.become_probing(now_ms)
            self._send_digest(peer, now_ms, out, wants_answer=True)
        else:
            progress.become_down()

    # --- what peers say

    def take_row(self, peer: int, row: Row, now_ms: int, out: Output, *, is_answer: bool = False) -> None:
        """A peer's own row: it opens the window, and it is news of how far the peer is."""
        engine = self._engine
        progress = self.peers[peer]
        if progress.state == "down":  # words of a connection that is gone
            return
        progress.take_vector(row.vector, engine.durability.vector, engine.me, now_ms, is_answer=is_answer)
        engine.rows.take(peer, row, engine.applied, now_ms)
        engine.stability.take(peer, row, engine.durability.vector)
        self._note_windows(now_ms)
        self._push(now_ms, out)

    def on_digest(self, peer: int, message: Digest, now_ms: int, out: Output) -> None:
        engine = self._engine
        for member, row in enumerate(message.others):
            if row is not None and member not in (engine.me, peer):
                engine.rows.take(member, row, engine.applied, now_ms)
                engine.stability.take(member, row, engine.durability.vector)
        progress = self.peers[peer]
        is_answer = not message.wants_answer and progress.note_answer()
        self.take_row(peer, message.row, now_ms, out, is_answer=is_answer)
        if message.is_missing and not engine.history.reaches(message.row.vector):
            newest = engine.rows.newest[peer]
            if newest is None or newest.vector == message.row.vector:  # not an old word that was overtaken
                engine.measures.refused += 1
                why = f"{engine.group}: it lacks commits that all members had: it has lost what it had acknowledged"
                out.rejected.append((peer, why))
                return
        if message.is_missing and progress.state == "streaming":
            progress.become_streaming(engine.me, now_ms)
            self._push(now_ms, out)
        if message.wants_answer and progress.state != "down":
            try:
                self._relay(peer, progress, now_ms, out)
            except StorageError as error:
                engine.note_unreadable(error)
            self._send_digest(peer, now_ms, out, wants_answer=False)

    def on_frame(self, peer: int, has_gap: bool, has_moved: bool, now_ms: int, out: Output) -> None:
        """A frame was taken in: acknowledge it soon, or ask for what is missing before it."""
        progress = self.peers[peer]
        if progress.state == "down":
            return
        progress.heard_ms = now_ms
        if has_gap and now_ms - progress.asked_ms >= self._options.resend_after_ms:
            progress.asked_ms = now_ms
            self._send_digest(peer, now_ms, out, wants_answer=True, is_missing=True)
        elif progress.ack_due_ms is None and not has_moved:  # a repetition: its sender does not know how far we are
            self._acknowledge_at(now_ms + self._options.ack_delay_ms, progress)

    # --- what is durable

    def on_durable(self, now_ms: int, out: Output) -> None:
        """The durable vector moved: push own commits, acknowledge what came from others."""
        vector = self._engine.durability.vector
        for peer, progress in self.peers.items():
            if progress.state != "down" and vector[peer] > progress.acknowledged:
                due = now_ms + self._options.ack_delay_ms
                if progress.ack_due_ms is None or progress.ack_due_ms > due:
                    self._acknowledge_at(due, progress)
                if due <= now_ms:
                    self._acknowledge(peer, progress, now_ms, out)
        self._note_windows(now_ms)
        self._push(now_ms, out)

    def _acknowledge_at(self, due_ms: int, progress: Progress) -> None:
        progress.ack_due_ms = due_ms
        self.wake_ms = min(self.wake_ms, due_ms)

    def _acknowledge(self, peer: int, progress: Progress, now_ms: int, out: Output) -> None:
        engine = self._engine
        progress.ack_due_ms = None
        row = engine.own_row(now_ms)
        progress.acknowledged = row.vector[peer]
        if progress.state != "down":
            out.send.append((peer, Ack(engine.group, engine.membership.shape.id, row)))

    def _note_windows(self, now_ms: int) -> None:
        engine = self._engine
        is_first = not self._all_heard
        if is_first:
            self._all_heard = all(engine.rows.newest[member] is not None for member in engine.others)
        if self._all_heard:
            everywhere = min(engine.durability.vector[engine.me], engine.rows.floor[engine.me])
            engine.measures.note_acknowledged(everywhere, now_ms, is_first=is_first)

    # --- what goes out

    def _send_digest(
        self, peer: int, now_ms: int, out: Output, *, wants_answer: bool, is_missing: bool = False
    ) -> None:
        engine = self._engine
        others = list(engine.rows.newest)
        others[engine.me] = others[peer] = None
        row = engine.own_row(now_ms)
        progress = self.peers[peer]
        progress.acknowledged = row.vector[peer]
        if wants_answer:
            progress.note_asked()
        out.send.append((peer, Digest(engine.group, engine.membership.shape.id, row, others, wants_answer, is_missing)))

    def _push(self, now_ms: int, out: Output) -> None:
        """Own durable commits to every streaming peer; peers at the same point get the same frame."""
        engine = self._engine
        upto = engine.durability.vector[engine.me]
        frames: dict[tuple[int, int], tuple[Frame, int]] = {}
        for peer, progress in self.peers.items():
            if progress.sent < upto and progress.state == "streaming":
                try:
                    self._fill_window(peer, progress, frames, now_ms, out)
                except StorageError as error:  # others lack other commits
                    engine.note_unreadable(error)

    def _fill_window(
        self,
        peer: int,
        progress: Progress,
        frames: dict[tuple[int, int], tuple[Frame, int]],
        now_ms: int,
        out: Output,
    ) -> None:
        """Send a peer what its window has room for; of what must be read from the log one small frame a step, or all others would wait."""
        engine, options, history = self._engine, self._options, self._engine.history
        me, upto, has_read = engine.me, engine.durability.vector[engine.me], False
        flow = progress.flow
        while progress.sent < upto:
            flow.is_limiting = history.size(me, progress.has[me], progress.sent) >= flow.window_bytes
            if flow.is_limiting:
                return
            after = max(progress.sent, history.base[me])  # others have said that it has what is below
            frame_bytes = flow.frame_bytes(options.frame_bytes)
            if (after, frame_bytes) not in frames:
                if not history.is_in_memory(me, after + 1):
                    if has_read:
                        self._goes_on = True
                        self.wake_ms = now_ms + 1
                        return
                    has_read = True
                commits = history.span(me, after, upto, frame_bytes if not has_read else min(frame_bytes, _READ_BYTES))
                segment = Segment(me, after, history.chain(me, after))
                frame = Frame(engine.group, engine.membership.shape.id, [segment], [], commits)
                frames[after, frame_bytes] = (frame, after + len(commits))
            frame, end = frames[after, frame_bytes]
            self._count_sent(frame)
            out.send.append((peer, frame))
            progress.note_sent(me, end, history.size(me, progress.has[me], end), now_ms)

    def _relay(self, peer: int, progress: Progress, now_ms: int, out: Output) -> None:
        """What third replicas made and this peer has lacked for long, in our apply order."""
        engine, options = self._engine, self._options
        stalled = progress.to_relay(engine.me, peer, now_ms, options.relay_after_ms)
        if not stalled:
            return
        progress.begin_relay(now_ms)
        at = list(map(max, progress.has, engine.history.base))
        is_near = all(engine.history.is_in_memory(origin, at[origin] + 1) for origin in stalled)
        most_bytes = progress.relay_bytes if is_near else min(progress.relay_bytes, _READ_BYTES)
        found = engine.history.lacking(at, engine.durability.vector, stalled, most_bytes)
        for chunk in self._chunks(found):
            frame = self._relay_frame(chunk, at)
            self._count_sent(frame)
            engine.measures.commits_relayed += len(frame.commits)
            out.send.append((peer, frame))
        for origin in stalled:
            if at[origin] > progress.has[origin]:
                progress.note_relayed(origin, at[origin])

    def _chunks(self, found: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
        """Cut into frames by bytes."""
        chunks: list[list[tuple[int, bytes]]] = []
        room = 0
        for origin, data in found:
            if room < len(data) or not chunks:
                chunks.append([])
                room = self._options.frame_bytes
            chunks[-1].append((origin, data))
            room -= len(data)
        return chunks

    def _relay_frame(self, chunk: list[tuple[int, bytes]], at: list[int]) -> Frame:
        """A frame of several origins; ``at`` says where each stands and moves on."""
        engine = self._engine
        origins = sorted({origin for origin, _ in chunk})
        segments = [Segment(origin, at[origin], engine.history.chain(origin, at[origin])) for origin in origins]
        for origin, _ in chunk:
            at[origin] += 1
        order = [origins.index(origin) for origin, _ in chunk]
        return Frame(
            engine.group,
            engine.membership.shape.id,
            segments,
            order if len(origins) > 1 else [],
            [data for _, data in chunk],
        )

    def _count_sent(self, frame: Frame) -> None:
        measures = self._engine.measures
        measures.commits_sent += len(frame.commits)
        measures.commit_bytes_sent += sum(map(len, frame.commits))
