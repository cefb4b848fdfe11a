"""Limits of the engine, each with unit, bound and suggested value, validated once when the configuration is read."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

__all__ = ["Options"]

_Ms = Annotated[int, Meta(ge=1, le=3_600_000)]
_Bytes = Annotated[int, Meta(ge=1024, le=1 << 32)]
_LEAST_SHARE = 1_024


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator may set; the defaults suit a few regions some 10 to 200 ms apart."""

    gossip_interval_ms: _Ms = 200
    """Every so often (jittered by a quarter) a digest goes to one random peer: anti-entropy and heartbeat."""
    ack_delay_ms: Annotated[int, Meta(ge=0, le=10_000)] = 5
    """How long a receiver gathers before it acknowledges a peer's commits; 0 acknowledges at once."""
    ack_timeout_ms: _Ms = 3_000
    """A peer that acknowledges nothing of what it was sent for so long falls back to probing; much sooner once round trips are known."""
    relay_after_ms: _Ms = 600
    """Commits of a third replica are relayed to a peer that has lacked them unchanged for so long."""
    resend_after_ms: _Ms = 100
    """At most so often a receiver with a gap asks a peer to start again; five times this is the least wait for an acknowledgement."""
    frame_bytes: Annotated[int, Meta(ge=1024, le=4 << 20)] = 256 << 10
    """A frame is closed when its commits reach this size."""
    window_bytes: _Bytes = 4 << 20
    """Commits on their way to one peer without its acknowledgement."""
    early_bytes: _Bytes = 32 << 20
    """Commits of a domain that arrived before what they depend on; beyond it they are dropped and asked for again."""
    max_drift_ms: _Ms = 500
    """A stamp further ahead of this node's clock is kept but does not push the clock."""
    max_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Requests that wait for a token or the disk; beyond it they are refused as overloaded."""
    max_wait_ms: _Ms = 60_000
    """The longest a request may ask to wait for its token."""
    retry_window_ms: Annotated[int, Meta(ge=1_000, le=31 * 86_400_000)] = 86_400_000
    """How long an idempotency key of a user's own is remembered."""
    fold_interval_ms: _Ms = 1_000
    """Every so often what has become stable is looked for: folded, forgotten, removed."""
    max_parked: Annotated[int, Meta(ge=0, le=100_000)] = 1_000
    """Writes that wait for rights of bounded counters; beyond it they are refused at once."""
    rights_again_ms: _Ms = 250
    """A replica that waits for rights asks again after so long, then after twice as long, up to 16 times as long."""
    demand_window_ms: _Ms = 10_000
    """What was spent of a bounded counter within this time is what a replica expects to need."""
    memory_bytes: _Bytes = 1 << 30
    """What the keys in memory may take, about; beside it there is what no checkpoint holds yet."""
    checkpoint_bytes: _Bytes = 64 << 20
    """A checkpoint begins when the log has grown by so much since the last one."""
    checkpoint_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 60_000
    """… or when so much time has passed, if anything changed."""
    checkpoint_rows: Annotated[int, Meta(ge=1, le=100_000)] = 300
    """So many rows of it are encoded in one go; in between everything else goes on."""
    history_bytes: _Bytes = 64 << 20
    """Commits of a domain that a peer may still lack, in memory; older ones are read from the log."""
    retain_bytes: _Bytes = 128 << 20
    """So much of the log is kept although nobody lacks it, for who asks later who wrote what, and why."""
    scrub_every_ms: Annotated[int, Meta(ge=100, le=31 * 86_400_000)] = 3_600_000
    """So long after one scrub the next begins: the state digest is computed anew from what is on disk."""
    scrub_rows_per_s: Annotated[int, Meta(ge=0, le=10_000_000)] = 20_000
    """It reads so many rows a second; 0: there is none."""
    install_bytes_per_s: Annotated[int, Meta(ge=0, le=1 << 40)] = 64 << 20
    """So much of its groups a node sends to those who join; 0: as fast as it goes."""
    evict_held_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 0
    """A member is evicted by the others when so much of the log of a domain is kept because it lacks it; 0: never without an operator."""
    max_demand_keys: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """Bounded counters of a domain of which it is remembered how much was spent lately."""

    def share(self, shards: int) -> Options:
        """What each of so many shards of a domain may take of what is meant for all of it."""
        if shards == 1:
            return self
        limits = {name: getattr(self, name) for name in ("history_bytes", "early_bytes", "max_demand_keys")}
        return replace(self, **{name: min(limit, max(_LEAST_SHARE, limit // shards)) for name, limit in limits.items()})
