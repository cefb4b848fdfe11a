"""The parts of the simulator by themselves: clock, disk, network, connections, scenarios, and the second reader."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.commit import FORMAT, TRACE, Commit, encode_commit
from crdtstore.errors import UsageError
from crdtstore.storage.protocol import Entry
from crdtstore_sim import scenario
from crdtstore_sim.clocks import EPOCH_MS, NodeClock
from crdtstore_sim.connections import Connections
from crdtstore_sim.disk import SimulatedDisk
from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.reader import Roster, read_commit
from crdtstore_sim.scenario import Cut, Latency, Scenario, load
from crdtstore_sim.swarm import draw
from crdtstore_sim.timeline import Timeline

SECOND = 1_000_000


def test_events_at_one_instant_happen_in_the_order_they_were_set() -> None:
    timeline, seen = Timeline(), []
    for name in "abc":
        timeline.at(5, seen.append, name)
    timeline.at(1, seen.append, "first")
    timeline.run(10, lambda: False)
    assert seen == ["first", "a", "b", "c"]
    assert (timeline.now_us, timeline.events) == (10, 4)


@pytest.mark.parametrize(("skew_us", "drift_ppm"), [(0, 0), (-3_000_000, 5000), (250_000, -5000)])
def test_a_node_is_woken_no_earlier_than_its_own_clock_says(skew_us: int, drift_ppm: int) -> None:
    clock = NodeClock(skew_us, drift_ppm)
    for local_ms in range(EPOCH_MS + 10_000, EPOCH_MS + 10_050):
        when_us = clock.when_us(local_ms)
        assert clock.now_ms(when_us) == local_ms
        assert clock.now_ms(when_us - 1100) < local_ms


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_takes_only_what_was_not_synced(seed: int) -> None:
    timeline, synced = Timeline(), []
    options = scenario.Disk(sync_ms=1, slowest_ms=1)
    disk = SimulatedDisk(timeline, Random(seed), options, lambda *word: synced.append(word), lambda saved: None)
    entries = [Entry("d/0", ReplicaId("a-1.0000000000000001"), bytes([n])) for n in range(6)]
    disk.append(1, entries[:2])
    disk.append(2, entries[2:4])  # while the first sync is under way: it waits for the next
    timeline.run(1_500, lambda: False)
    assert synced == [(1, 0, entries[:2])]
    disk.append(3, entries[4:])  # while the second is: not even begun
    disk.crash()
    timeline.run(SECOND, lambda: False)
    assert synced == [(1, 0, entries[:2])]
    left = [entry for _, entries in disk.log.replay() for entry in entries]
    assert left in (entries[:2], entries[:4])


def test_a_stop_in_order_writes_everything_that_waits() -> None:
    timeline = Timeline()
    disk = SimulatedDisk(timeline, Random(4), scenario.Disk(), lambda *word: None, lambda saved: None)
    entries = [Entry("d/0", ReplicaId("a-1.0000000000000001"), bytes([n])) for n in range(4)]
    disk.append(1, entries[:1])
    disk.append(2, entries[1:2])
    disk.append(3, entries[2:3])
    disk.finish(entries[3:])
    disk.crash()
    assert [entry for _, entries in disk.log.replay() for entry in entries] == entries


class _Party:
    def __init__(self, timeline: Timeline) -> None:
        self.is_alive = True
        self.heard: list[tuple[float, int, bool]] = []
        self._timeline = timeline

    def hello(self, peer: int) -> bytes:
        return b"hello"

    def check_hello(self, data: bytes) -> int | None:
        return 0

    def peer_changed(self, peer: int, is_connected: bool) -> None:
        self.heard.append((self._timeline.now_us / SECOND, peer, is_connected))


class TestConnections:
    def _three(self) -> tuple[Timeline, SimulatedNetwork, Connections, list[_Party], list[tuple[int, int, bytes]]]:
        timeline = Timeline()
        arrived: list[tuple[int, int, bytes]] = []
        options = scenario.Network(latency=Latency(kind="constant", ms=10))
        network = SimulatedNetwork(timeline, Random(1), options, 3, arrived.append)
        parties = [_Party(timeline) for _ in range(3)]
        connections = Connections(timeline, Random(2), network, list(parties), 5 * SECOND, lambda *_: None)
        connections.start()
        timeline.run(SECOND, lambda: False)
        return timeline, network, connections, parties, arrived

    def test_a_cut_is_silent_until_somebody_notices_and_a_heal_connects_again(self) -> None:
        timeline, network, connections, parties, arrived = self._three()
        assert [sorted(peer for _, peer, _ in party.heard) for party in parties] == [[1, 2], [0, 2], [0, 1]]
        network.cut(0, 1)
        connections.on_cut(0, 1)
        network.send(0, 1, b"lost")
        network.send(1, 0, b"heard")
        timeline.run(5 * SECOND, lambda: False)
        assert arrived == [(1, 0, b"heard")]
        assert len(parties[1].heard) == 2
        timeline.run(7 * SECOND, lambda: False)
        assert parties[1].heard[-1] == (6.0, 0, False)
        assert parties[0].heard[-1] == (6.01, 1, False)  # the other way is open: it hears of it
        network.heal(0, 1)
        connections.on_heal(0, 1)
        timeline.run(8 * SECOND, lambda: False)
        assert parties[0].heard[-1][1:] == (1, True)
        assert parties[1].heard[-1][1:] == (0, True)

    def test_a_short_cut_is_never_noticed(self) -> None:
        timeline, network, connections, parties, _ = self._three()
        network.cut(0, 1)
        connections.on_cut(0, 1)
        timeline.run(2 * SECOND, lambda: False)
        network.heal(0, 1)
        connections.on_heal(0, 1)
        timeline.run(20 * SECOND, lambda: False)
        assert [len(party.heard) for party in parties] == [2, 2, 2]

    def test_a_crash_is_heard_of_at_once_and_the_restart_connects(self) -> None:
        timeline, _, connections, parties, _ = self._three()
        parties[2].is_alive = False
        connections.on_crash(2)
        timeline.run(int(1.1 * SECOND), lambda: False)
        assert [party.heard[-1][1:] for party in parties[:2]] == [(2, False), (2, False)]
        parties[2].is_alive = True
        connections.on_restart(2)
        timeline.run(2 * SECOND, lambda: False)
        assert [party.heard[-1][1:] for party in parties[:2]] == [(2, True), (2, True)]

    def test_a_message_on_its_way_into_a_cut_is_lost(self) -> None:
        timeline, network, _, _, arrived = self._three()
        network.send(0, 2, b"too late")
        network.cut(0, 2)
        timeline.run(2 * SECOND, lambda: False)
        assert not arrived
        assert network.lost == 1


def test_loss_repetition_and_disorder_happen_as_often_as_asked() -> None:
    timeline, arrived = Timeline(), []
    options = scenario.Network(loss=0.2, duplicate=0.1, reorder=0.3, latency=Latency(kind="uniform", ms=10))
    network = SimulatedNetwork(timeline, Random(3), options, 2, arrived.append)
    for number in range(2000):
        timeline.run(number * 1000, lambda: False)
        network.send(0, 1, number.to_bytes(2, "big"))
    timeline.run(60 * SECOND, lambda: False)
    numbers = [int.from_bytes(data, "big") for _, _, data in arrived]
    assert network.lost == pytest.approx(400, rel=0.2)
    assert len(numbers) - len(set(numbers)) == pytest.approx(160, rel=0.3)
    assert numbers != sorted(numbers)


class TestScenarios:
    def test_all_that_come_along_are_valid_and_named_like_their_files(self) -> None:
        paths = sorted(Path(scenario.DIRECTORY).glob("*.toml"))
        assert len(paths) >= 6
        for path in paths:
            made = load(path.stem)
            assert made.name == path.stem
            assert made.question.endswith("?") or made.question
            assert all(cut.directed() for cut in made.cuts)

    def test_a_cut_of_groups_goes_both_ways_and_a_link_as_it_says(self) -> None:
        assert Cut(from_s=0, groups="a|bc").directed() == [(0, 1), (0, 2), (1, 0), (2, 0)]
        assert Cut(from_s=0, links=["a>b", "b-c"]).directed() == [(0, 1), (1, 2), (2, 1)]

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ('name = "x"\nspeed = 3', "speed"),
            ('name = "x"\nreplicas = 0', "replicas"),
            ('name = "x"\n[network]\nloss = 2', "loss"),
            ('name = "x"\n[[cuts]]\nfrom_s = 1', "a cut names groups"),
            ('name = "x"\n[[cuts]]\nfrom_s = 1\nlinks = ["a=b"]', "a link is written"),
            ('name = "x"\n[engine]\nmagic = 1', "magic"),
            ("name = [", "not a scenario"),
        ],
    )
    def test_a_wrong_one_is_refused_with_the_reason(self, text: str, wrong: str, tmp_path: Path) -> None:
        path = tmp_path / "wrong.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=wrong):
            load(str(path))

    def test_an_unknown_name_lists_those_there_are(self) -> None:
        with pytest.raises(UsageError, match="split-1-2"):
            load("nothing-like-it")

    def test_a_seed_always_draws_the_same_and_seeds_differ(self) -> None:
        assert draw(7) == draw(7)
        drawn = [draw(seed) for seed in range(60)]
        assert len({made.question for made in drawn}) > 30
        assert any(cut.to_s is None for made in drawn for cut in made.cuts)
        assert any(made.crashes for made in drawn)
        assert any(step.ms <= -60_000 for made in drawn if made.crashes for step in made.steps)
        assert any(crash.is_orderly for made in drawn for crash in made.crashes)
        assert not all(crash.is_orderly for made in drawn for crash in made.crashes)

    def test_whatever_is_cut_for_good_leaves_everybody_connected(self) -> None:
        for seed in range(300):
            made: Scenario = draw(seed)
            cut = {pair for one in made.cuts if one.to_s is None for pair in one.directed()}
            reached = {0}
            for _ in range(made.replicas):
                reached |= {b for a in reached for b in range(made.replicas) if (a, b) not in cut}
            assert reached == set(range(made.replicas))


_MEMBERS = [make_replica_id("a-1", 1), make_replica_id("b-1", 2)]


class TestSecondReader:
    def _commit(self, seq: int, deps: list[str | int], origin: str | int = 0) -> bytes:
        return encode_commit(Commit(FORMAT, origin, seq, seq << 16, deps, "x", [TRACE, "17"], []))

    def test_deps_add_up_over_the_rosters_positions(self) -> None:
        names, roster = [str(member) for member in _MEMBERS], Roster(_MEMBERS[0])
        first = read_commit(self._commit(1, [_MEMBERS[1], 4], _MEMBERS[0]), 0, names, roster, None)
        assert (first.deps, first.trace, first.roster_size) == ((0, 4), "17", 2)
        second = read_commit(self._commit(2, [1, 3]), 0, names, roster, first)
        assert second.deps == (1, 7)

    @pytest.mark.parametrize(
        ("seq", "deps", "origin"),
        [(2, [], 0), (1, [], make_replica_id("b-1", 2)), (1, [1, 1], make_replica_id("a-1", 1))],
    )
    def test_what_the_format_forbids_is_noticed(self, seq: int, deps: list[str | int], origin: str | int) -> None:
        names = [str(member) for member in _MEMBERS]
        with pytest.raises((ValueError, IndexError)):
            read_commit(self._commit(seq, deps, origin), 0, names, Roster(names[0]), None)
