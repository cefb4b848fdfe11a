"""``GET /metrics``: what the node and its groups count, for Prometheus.

The question: what may a metric cost? Nothing where requests pass: everything is counted there in plain integers, without labels, and
only a scrape makes samples of them. Label sets are bounded: domains up to ``MAX_DOMAINS`` in the order of their names, and the nodes of
peers, who are members; two lives of one node are one peer here. What is not known yet is absent, never zero: a staleness of nothing heard
is no staleness of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from crdtstore.causal import node_of
from crdtstore.engine.engine import Engine
from crdtstore.engine.measures import Histogram
from crdtstore.saving import Saving
from crdtstore_node.storage_status import state_bytes, unreadable, why_no_writes

if TYPE_CHECKING:
    from crdtstore_node.links import Link
    from crdtstore_node.node import Node

__all__ = ["DOCUMENTED", "MAX_DOMAINS", "Metrics"]

MAX_DOMAINS = 256
_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 3_600_000)


class _OfNode(NamedTuple):
    name: str
    kind: str
    what: str
    value: Callable[[Node], float | None]


class _OfDomain(NamedTuple):
    name: str
    kind: str
    what: str
    value: Callable[[Engine, int], float | None]
    join: Callable[[list[float]], float] = sum
    """What stands for several shards."""


class _OfLink(NamedTuple):
    name: str
    what: str
    value: Callable[[Link], float | None]


def _per_sync(node: Node) -> float | None:
    return node.driver.commits_logged / node.log.syncs if node.driver.commits_logged else None


def _domains(node: Node) -> float:
    return len({group.partition("/")[0] for group in node.host.groups}) - 1


def _not_installed(node: Node) -> float:
    return sum(not engine.is_installed for engine in node.host.groups.values())


def _orphans(node: Node) -> float | None:
    return node.driver.service.administration.orphaned.count() if node.left.is_known else None


def _saving(node: Node) -> Saving:
    assert node.host.saving is not None
    return node.host.saving


def _age(node: Node) -> float | None:
    last_ms = _saving(node).last_ms
    return None if last_ms is None else max(0, node.driver.clock.now_ms() - last_ms) / 1000


_NODE = (
    _OfNode("crdtstore_ready", "gauge", "1 when this node takes requests.", lambda n: n.why_not_ready() is None),
    _OfNode("crdtstore_domains", "gauge", "Domains held here.", _domains),
    _OfNode("crdtstore_steps", "counter", "Steps of the service.", lambda n: n.driver.steps),
    _OfNode("crdtstore_requests_waiting", "gauge", "Requests not answered yet.", lambda n: n.driver.waiting),
    _OfNode(
        "crdtstore_receipts_waiting", "gauge", "Of these for other regions.", lambda n: len(n.driver.service.receipts)
    ),
    _OfNode(
        "crdtstore_receipts_late",
        "counter",
        "Writes that fewer regions had in time than were asked for.",
        lambda n: n.driver.service.receipts.late,
    ),
    _OfNode("crdtstore_api_connections", "gauge", "Connections of users.", lambda n: n.server.connections),
    _OfNode("crdtstore_sessions", "gauge", "Sessions of users.", lambda n: len(n.handler.sessions)),
    _OfNode("crdtstore_session_requests", "counter", "Asked there.", lambda n: n.handler.sessions.counts.requests),
    _OfNode("crdtstore_session_frames", "counter", "That brought them.", lambda n: n.handler.sessions.counts.frames),
    _OfNode(
        "crdtstore_sessions_refused",
        "counter",
        "Closed for what the client did, or did not do.",
        lambda n: n.handler.sessions.counts.refused,
    ),
    _OfNode("crdtstore_log_syncs", "counter", "Syncs of the commit log.", lambda n: n.log.syncs),
    _OfNode("crdtstore_log_records", "counter", "Records written to the commit log.", lambda n: n.log.records),
    _OfNode("crdtstore_log_commits", "counter", "Commits handed to the commit log.", lambda n: n.driver.commits_logged),
    _OfNode("crdtstore_log_commits_per_sync", "gauge", "Commits per sync since the start.", _per_sync),
    _OfNode("crdtstore_log_written_bytes", "counter", "Bytes written to the log.", lambda n: n.log.bytes_written),
    _OfNode("crdtstore_log_position_bytes", "gauge", "Length of the commit log.", lambda n: n.log.position),
    _OfNode("crdtstore_log_held_bytes", "gauge", "Of these not cut off yet.", lambda n: n.log.position - n.log.held[0]),
    _OfNode("crdtstore_log_segments", "gauge", "Files that hold them.", lambda n: n.log.held[1]),
    _OfNode("crdtstore_log_failed", "gauge", "1 when the disk failed.", lambda n: n.driver.failure is not None),
    _OfNode("crdtstore_log_full", "gauge", "1 while the disk is full.", lambda n: n.driver.full is not None),
    _OfNode("crdtstore_log_full_times", "counter", "How often it was.", lambda n: n.driver.full_times),
    _OfNode("crdtstore_log_cut_errors", "counter", "Times it could not be cut.", lambda n: n.driver.cut_failures),
    _OfNode(
        "crdtstore_takes_writes",
        "gauge",
        "0 when the disk forbids, or the node is no member that may write.",
        lambda n: why_no_writes(n) is None,
    ),
    _OfNode("crdtstore_state_bytes", "gauge", "Files of the state store.", state_bytes),
    _OfNode(
        "crdtstore_state_resident_bytes",
        "gauge",
        "Saved and in memory, about.",
        lambda n: _saving(n).usage.memory_bytes,
    ),
    _OfNode("crdtstore_state_resident_rows", "gauge", "Saved and in memory.", lambda n: _saving(n).usage.rows),
    _OfNode(
        "crdtstore_state_failed", "gauge", "1 while no checkpoint works.", lambda n: _saving(n).failure is not None
    ),
    _OfNode("crdtstore_checkpoints", "counter", "On disk since the start.", lambda n: _saving(n).checkpoints),
    _OfNode("crdtstore_checkpoint_errors", "counter", "Rolled back.", lambda n: _saving(n).failures),
    _OfNode(
        "crdtstore_checkpoint_seconds", "gauge", "What the last one took.", lambda n: _saving(n).last_took_ms / 1000
    ),
    _OfNode("crdtstore_checkpoint_age_seconds", "gauge", "Since the last one began.", _age),
    _OfNode("crdtstore_unsaved_bytes", "gauge", "Of the log, in no checkpoint.", lambda n: _saving(n).unsaved_bytes),
    _OfNode("crdtstore_unsaved_keys", "gauge", "Changed since the last one.", lambda n: _saving(n).unsaved),
    _OfNode("crdtstore_scrubs", "counter", "That found all well.", lambda n: _saving(n).scrub.runs),
    _OfNode("crdtstore_scrub_failed", "gauge", "1: damage on disk.", lambda n: _saving(n).scrub.failure is not None),
    _OfNode("crdtstore_storage_read_errors", "counter", "What could not be read.", unreadable),
    _OfNode("crdtstore_gossip_sent_bytes", "counter", "Bytes for peers.", lambda n: n.host.bytes_sent),
    _OfNode("crdtstore_gossip_received_bytes", "counter", "Bytes from peers.", lambda n: n.host.bytes_received),
    _OfNode("crdtstore_gossip_dropped", "counter", "Messages without a link.", lambda n: n.transport.dropped),
    _OfNode("crdtstore_links_opened", "counter", "Connections with peers begun.", lambda n: n.transport.connected),
    _OfNode("crdtstore_links_lost", "counter", "Connections with peers ended.", lambda n: n.transport.lost),
    _OfNode("crdtstore_groups_not_installed", "gauge", "To be taken over from others.", _not_installed),
    _OfNode("crdtstore_orphans", "gauge", "Commits kept here that count nowhere.", _orphans),
    _OfNode("crdtstore_links_overrun", "counter", "Of these: too much waited.", lambda n: n.transport.overrun),
)

_DOMAIN = (
    _OfDomain("crdtstore_commits_applied", "counter", "Commits applied.", lambda e, now: sum(e.applied)),
    _OfDomain("crdtstore_commits_durable", "counter", "Commits durable here.", lambda e, now: sum(e.durability.vector)),
    _OfDomain("crdtstore_commits_own", "counter", "Commits made here.", lambda e, now: e.applied[e.me]),
    _OfDomain("crdtstore_commits_received", "counter", "From peers.", lambda e, now: e.measures.commits_received),
    _OfDomain(
        "crdtstore_commits_received_twice",
        "counter",
        "From peers and known already.",
        lambda e, now: e.measures.commits_received_twice,
    ),
    _OfDomain("crdtstore_commits_sent", "counter", "Sent to peers.", lambda e, now: e.measures.commits_sent),
    _OfDomain("crdtstore_commits_relayed", "counter", "Others' sent.", lambda e, now: e.measures.commits_relayed),
    _OfDomain(
        "crdtstore_commits_received_bytes", "counter", "Theirs.", lambda e, now: e.measures.commit_bytes_received
    ),
    _OfDomain("crdtstore_commits_sent_bytes", "counter", "Theirs.", lambda e, now: e.measures.commit_bytes_sent),
    _OfDomain("crdtstore_commits_early", "gauge", "Waiting for what they follow.", lambda e, now: len(e.early)),
    _OfDomain("crdtstore_commits_early_dropped", "counter", "Found no room.", lambda e, now: e.early.dropped),
    _OfDomain("crdtstore_behind_commits", "gauge", "Known to be missing here.", lambda e, now: _behind(e)),
    _OfDomain("crdtstore_unacked_commits", "gauge", "Own, not known to be everywhere.", lambda e, now: _unacked(e)),
    _OfDomain(
        "crdtstore_lag_seconds",
        "gauge",
        "The commits known to be missing here are at most so old; absent when that cannot be told.",
        lambda e, now: _seconds(e.rows.lag_ms(e.durability.vector, now)),
        max,
    ),
    _OfDomain(
        "crdtstore_staleness_seconds",
        "gauge",
        "No write older than this can be missing here; absent until every member was heard.",
        lambda e, now: _seconds(e.rows.staleness_ms(now)),
        max,
    ),
    _OfDomain("crdtstore_stamps_ahead", "counter", "Further than max_drift_ms.", lambda e, now: e.clock.drifted),
    _OfDomain(
        "crdtstore_messages_refused",
        "counter",
        "What peers said that cannot be true here.",
        lambda e, now: e.measures.refused + e.measures.foreign_configuration,
    ),
    _OfDomain("crdtstore_rights_wanted", "counter", "Asked of peers.", lambda e, now: e.rights.wants_sent),
    _OfDomain("crdtstore_rights_given", "counter", "Peers' wants served.", lambda e, now: e.rights.wants_served),
    _OfDomain("crdtstore_rights_waiting", "gauge", "Writes that wait for rights.", lambda e, now: e.rights.waiting),
    _OfDomain("crdtstore_holds_open", "gauge", "Made here, not ended.", lambda e, now: e.rights.holds.open),
    _OfDomain("crdtstore_members", "gauge", "Who holds it.", lambda e, now: len(e.configuration.members), max),
    _OfDomain("crdtstore_configuration_number", "gauge", "Of its members.", lambda e, now: e.configuration.number, max),
    _OfDomain("crdtstore_adoptions", "counter", "Configurations adopted.", lambda e, now: e.membership.adoptions),
    _OfDomain("crdtstore_ballots", "counter", "Begun here.", lambda e, now: e.membership.decision.ballots),
    _OfDomain(
        "crdtstore_split", "gauge", "Members of a line that parted.", lambda e, now: len(e.membership.splits), max
    ),
    _OfDomain("crdtstore_fenced", "gauge", "1 when this node may not write here.", lambda e, now: e.is_fenced, max),
)

_LINK = (
    _OfLink("crdtstore_link_heard_seconds", "Since the peer last said anything.", lambda k: k.heard_ms / 1000),
    _OfLink("crdtstore_link_queued_bytes", "Waiting to be sent.", lambda k: k.queued_bytes),
    _OfLink(
        "crdtstore_link_round_trip_seconds",
        "Least of the last round trips.",
        lambda k: k.heartbeat.best.round_trip_us / 1e6 if k.heartbeat.best else None,
    ),
    _OfLink(
        "crdtstore_link_offset_seconds",
        "How far the peer's clock is ahead.",
        lambda k: k.heartbeat.best.offset_us / 1e6 if k.heartbeat.best else None,
    ),
)

_OTHER = {
    "crdtstore_identity_events": "What became of this node's id and membership, by event, since the process began.",
    "crdtstore_refused": "What peers said that was refused, by what it was about (configuration: under another one, no fault).",
    "crdtstore_requests": "Answers to users by code; ok for those that are no problem.",
    "crdtstore_peers_refused": "What peers said that was refused, by peer (empty: never said who it is).",
    "crdtstore_link_up": "1 while a peer is connected.",
    "crdtstore_divergence_window_seconds": "Own commits: until every other member was heard to have them.",
    "crdtstore_visibility_seconds": "Commits of a peer: from their stamp until they were applied here.",
}

DOCUMENTED = (*(each.name for each in (*_NODE, *_DOMAIN, *_LINK)), *_OTHER)
"""All names, counters without the ``_total`` that the text format adds."""


class Metrics(Collector):
    """Samples of one node, made when asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[str, bytes]:
        """Content type and text."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        yield from self._of_node()
        yield from self._of_links()
        yield from self._of_domains()

    def _of_node(self) -> Iterator[Metric]:
        node = self._node
        for name, kind, what, value in _NODE:
            yield _family(name, kind, what, (), [((), value(node))])
        by_code = [((code,), count) for code, count in sorted(node.handler.outcomes.items())]
        yield _family("crdtstore_requests", "counter", _OTHER["crdtstore_requests"], ("outcome",), by_code)
        told = [((what,), count) for what, count in node.story.counts.items()]
        yield _family("crdtstore_identity_events", "counter", _OTHER["crdtstore_identity_events"], ("event",), told)
        groups = node.host.groups.values()
        foreign = sum(engine.measures.foreign_configuration for engine in groups)
        refused = {**node.host.refused, "configuration": foreign, "hello": node.transport.refused_connections}
        by_reason = [((reason,), count) for reason, count in sorted(refused.items())]
        yield _family("crdtstore_refused", "counter", _OTHER["crdtstore_refused"], ("reason",), by_reason)
        by_peer = [((peer,), count) for peer, count in sorted(node.transport.refused.items())]
        yield _family("crdtstore_peers_refused", "counter", _OTHER["crdtstore_peers_refused"], ("peer",), by_peer)

    def _of_links(self) -> Iterator[Metric]:
        links = {
            link.peer.node: link for link in self._node.transport.links.values()
        }  # two lives of one node are one here
        nodes = sorted({member.node for member in self._node.host.roster.peers})
        up = [((node,), node in links) for node in nodes]
        yield _family("crdtstore_link_up", "gauge", _OTHER["crdtstore_link_up"], ("peer",), up)
        for name, what, value in _LINK:
            samples = [((peer,), value(link)) for peer, link in links.items() if peer in nodes]
            yield _family(name, "gauge", what, ("peer",), samples)

    def _of_domains(self) -> Iterator[Metric]:
        """By domain, however many shards it has: their number would multiply that of the series."""
        now_ms = self._node.driver.clock.now_ms()
        domains = dict[str, list[Engine]]()
        for group, engine in sorted(self._node.host.groups.items()):
            domains.setdefault(group.partition("/")[0], []).append(engine)
        shown = list(domains.items())[:MAX_DOMAINS]
        for name, kind, what, value, join in _DOMAIN:
            samples = [
                ((domain,), _joined([value(each, now_ms) for each in engines], join)) for domain, engines in shown
            ]
            yield _family(name, kind, what, ("domain",), samples)
        name = "crdtstore_divergence_window_seconds"
        windows = HistogramMetricFamily(name, _OTHER[name], labels=("domain",))
        name = "crdtstore_visibility_seconds"
        visible = HistogramMetricFamily(name, _OTHER[name], labels=("domain", "peer"))
        for domain, engines in shown:
            _add(windows, (domain,), [engine.measures.window_ms for engine in engines])
            peers = dict[str, list[Histogram]]()
            for engine in engines:
                for node, origin in {node_of(engine.replicas[origin]): origin for origin in engine.others}.items():
                    peers.setdefault(node, []).append(engine.measures.visibility_ms[origin])
            for node, histograms in peers.items():
                _add(visible, (domain, node), histograms)
        yield windows
        yield visible


_Samples = Iterable[tuple[tuple[str, ...], float | None]]


def _family(name: str, kind: str, what: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = make(name, what, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _joined(values: list[float | None], join: Callable[[list[float]], float]) -> float | None:
    """What stands for all shards of a domain; None where that of one is not known."""
    known = [value for value in values if value is not None]
    return join(known) if len(known) == len(values) else None


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histograms: list[Histogram]) -> None:
    """The counts of fine histograms, together, below coarser bounds; a value is off by less than 7 %."""
    histogram = histograms[0] if len(histograms) == 1 else Histogram.joined(histograms)
    buckets, fine, total = [], iter(histogram.buckets()), 0
    upper, times = next(fine, (None, 0))
    for bound in _BOUNDS_MS:
        while upper is not None and upper <= bound:
            total += times
            upper, times = next(fine, (None, 0))
        buckets.append((repr(bound / 1000), total))
    buckets.append(("+Inf", histogram.count))
    family.add_metric(labels, buckets, histogram.total / 1000)


def _behind(engine: Engine) -> int:
    durable = engine.durability.vector
    return sum(there - here for there, here in zip(engine.rows.known(durable), durable, strict=True))


def _unacked(engine: Engine) -> int:
    own = engine.durability.vector[engine.me]
    return own - min(engine.rows.floor[engine.me], own) if engine.others else 0


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
