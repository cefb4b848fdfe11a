"""What an operator may get wrong in a configuration, and what is said of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from msgspec import convert

from crdtstore.errors import UsageError
from crdtstore_node.config import Address, NodeConfig, load, load_cluster, parse_address

NODE = """
node = "us-1"
cluster_file = "cluster.toml"
data = "data/us-1"
api = "127.0.0.1:7401"
gossip = "127.0.0.1:7501"
"""
CLUSTER = """
cluster = "demo"
nonce = "00000000000000000000000000000001"
[[member]]
node = "us-1"
region = "us"
replica = "us-1.0123456789abcdef"
gossip = "127.0.0.1:7501"
"""
EXAMPLE = Path(__file__).parents[2] / "node" / "node.example.toml"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_the_least_configuration_has_defaults_for_the_rest(tmp_path: Path) -> None:
    config = load(write(tmp_path, NODE), {})
    assert config.engine.gossip_interval_ms == 200
    assert config.links.silence_ms == 5_000
    assert config.api_address == Address("127.0.0.1", 7401)
    assert config.data == str(tmp_path / "data/us-1")
    assert config.cluster_file == str(tmp_path / "cluster.toml")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {
        "CRDTSTORE_NODE": "eu-1",
        "CRDTSTORE_DATA": "/somewhere/else",
        "CRDTSTORE_API": "0.0.0.0:80",
        "CRDTSTORE_GOSSIP": "[::1]:81",
        "CRDTSTORE_INSECURE": "true",
        "CRDTSTORE_ENGINE_GOSSIP_INTERVAL_MS": "50",
        "CRDTSTORE_LOG_SEGMENT_BYTES": "131072",
        "CRDTSTORE_LINKS_SILENCE_MS": "900",
        "CRDTSTORE_URL": "http://a.client/setting",
    }
    config = load(write(tmp_path, NODE), environ)
    assert (config.node, config.data, config.insecure) == ("eu-1", "/somewhere/else", True)
    assert config.gossip_address == Address("::1", 81)
    assert (config.engine.gossip_interval_ms, config.log.segment_bytes) == (50, 131072)
    assert config.links.silence_ms == 900


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NODE + "gosip = 1", "gosip"),
        (NODE.replace('node = "us-1"', ""), "missing required field `node`"),
        (NODE + "[engine]\ngossip_interval_ms = 0", r"engine\.gossip_interval_ms: expected `int` >= 1"),
        (NODE + '[engine]\ngossip_interval_ms = "200"', r"engine\.gossip_interval_ms: expected `int`, got `str`"),
        (NODE + "[engine]\ngossip = 5", "unknown field `gossip`"),
        (NODE + "[log]\nsegment_bytes = 1", r"log\.segment_bytes: expected `int` >= 65536"),
        (NODE.replace("127.0.0.1:7401", "7401"), "api: expected host:port"),
        (NODE.replace("127.0.0.1:7401", "127.0.0.1:70000"), "api: expected host:port"),
        (NODE.replace("127.0.0.1:7401", "0.0.0.0:7401"), "api: .*not on loopback.*insecure = true"),
        (NODE.replace("127.0.0.1:7501", "10.0.0.1:7501"), "gossip: .*not on loopback"),
        (NODE.replace('node = "us-1"', 'node = "US"'), "node: expected a name like us-1"),
        (NODE + '[peers]\neu-1 = "nowhere"', r"peers\.eu-1: expected host:port"),
        (NODE + "insecure = 1", "insecure: expected `bool`"),
        ("node = ", "not TOML"),
        (NODE + "join = []", "region: a node with join says here where it is: expected a name like us, got ''"),
        (NODE + 'region = "us"', "region: only a node with join"),
        (NODE + 'region = "US"\njoin = []', "region: .*got 'US'"),
        (NODE + 'region = "us"\njoin = ["10.0.0.7"]', r"join\[0\]: expected host:port"),
        (NODE + 'region = "us"\njoin = ["a:1", "b:0"]', r"join\[1\]: nobody can dial b:0"),
        (NODE + 'region = "us"\njoin = "a:1"', "join: expected `array"),
        (NODE + 'gossip_advertise = "0.0.0.0:7501"', r"gossip_advertise: nobody can dial 0\.0\.0\.0:7501"),
        (NODE + 'gossip_advertise = "10.0.0.9"', "gossip_advertise: expected host:port"),
        (
            NODE.replace("127.0.0.1:7501", "[::]:7501") + 'insecure = true\nregion = "us"\njoin = []',
            r"gossip: nobody can dial \[::\]:7501.*set gossip_advertise",
        ),
        (NODE + "identity_wait_ms = -1", "identity_wait_ms: expected `int` >= 0"),
        (NODE + "identity_wait_ms = 700_000", "identity_wait_ms: expected `int` <= 600000"),
    ],
)
def test_an_error_names_file_field_and_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        load(path, {})
    assert str(path) in raised.value.detail
    assert re.search(expected, raised.value.detail), raised.value.detail
    assert raised.value.detail.endswith("Nothing changed.")


def test_an_error_from_the_environment_names_the_variable(tmp_path: Path) -> None:
    path = write(tmp_path, NODE)
    with pytest.raises(UsageError, match=r"CRDTSTORE_ENGINE_ACK_DELAY_MS.*`int`"):
        load(path, {"CRDTSTORE_ENGINE_ACK_DELAY_MS": "soon"})
    with pytest.raises(UsageError, match=r"there is no engine\.ack_deley_ms"):
        load(path, {"CRDTSTORE_ENGINE_ACK_DELEY_MS": "1"})
    with pytest.raises(UsageError, match="CRDTSTORE_INSECURE"):
        load(path, {"CRDTSTORE_INSECURE": "perhaps"})


def test_a_node_that_joins_says_where_it_is(tmp_path: Path) -> None:
    assert load(write(tmp_path, NODE), {}).joining is None
    config = load(write(tmp_path, NODE + 'region = "eu"\njoin = ["a.example:1", "[::1]:2"]\n'), {})
    assert config.joining == ("eu", "127.0.0.1:7501")
    assert config.join_addresses == [Address("a.example", 1), Address("::1", 2)]
    environ = {
        "CRDTSTORE_REGION": "ap",
        "CRDTSTORE_JOIN": "a:1, b:2,",
        "CRDTSTORE_GOSSIP_ADVERTISE": "c:3",
        "CRDTSTORE_IDENTITY_WAIT_MS": "0",
    }
    config = load(write(tmp_path, NODE), environ)
    assert (config.joining, config.join, config.identity_wait_ms) == (("ap", "c:3"), ["a:1", "b:2"], 0)
    config = load(write(tmp_path, NODE), environ | {"CRDTSTORE_JOIN": ""})
    assert (config.joining, config.join) == (("ap", "c:3"), [])
    with pytest.raises(UsageError, match=r"CRDTSTORE_IDENTITY_WAIT_MS.*`int`"):
        load(write(tmp_path, NODE), {"CRDTSTORE_IDENTITY_WAIT_MS": "long"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.toml", {})


def test_elsewhere_than_loopback_needs_insecure(tmp_path: Path) -> None:
    text = NODE.replace("127.0.0.1:7401", "0.0.0.0:7401")
    assert load(write(tmp_path, text + "insecure = true"), {}).api_address.host == "0.0.0.0"
    assert load(write(tmp_path, NODE.replace("127.0.0.1:7401", "localhost:7401")), {}).api == "localhost:7401"


def test_the_example_names_every_field_with_its_default() -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    example = convert(document, NodeConfig)
    least = convert(tomllib.loads(NODE), NodeConfig)
    assert example == least
    optional = {"region", "join", "gossip_advertise", "api_advertise"}
    assert set(document) | optional == set(NodeConfig.__struct_fields__)
    assert all(f"\n# {field} = " in EXAMPLE.read_text() for field in optional)
    for table in ("engine", "log", "state", "links", "http"):
        assert set(document[table]) == set(getattr(least, table).__struct_fields__), table


def test_the_cluster_file(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path, CLUSTER))
    assert cluster.name == "demo"
    assert cluster.nonce == bytes(15) + b"\x01"
    assert [(member.node, member.region, member.gossip) for member in cluster.members] == [
        ("us-1", "us", "127.0.0.1:7501")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CLUSTER.replace('01"', '0g"'), "nonce: expected 32 hex digits"),
        (CLUSTER.replace("us-1.0123456789abcdef", "us-1.012345"), "replica"),
        (CLUSTER.replace("us-1.0123456789abcdef", "eu-1.0123456789abcdef"), "replica: expected us-1"),
        (CLUSTER.replace('gossip = "127.0.0.1:7501"', 'gossip = "127.0.0.1"'), "gossip: expected host:port"),
        (CLUSTER.replace('region = "us"', 'region = "US"'), "region is named like"),
        (CLUSTER.replace('region = "us"', ""), "missing required field `region`"),
        (CLUSTER + CLUSTER[CLUSTER.index("[[") :], "same replica"),
        (CLUSTER + "weight = 3", "weight"),
        ('cluster = "demo"\nnonce = "00000000000000000000000000000001"\nmember = []', "length >= 1"),
    ],
)
def test_what_is_wrong_with_a_cluster_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as raised:
        load_cluster(write(tmp_path, text))
    assert str(tmp_path) in raised.value.detail


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:x", "host:-1", "host:٣", "host:99999999999"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="host:port"):
        parse_address(text, "api")


def test_an_address_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:80", "[::1]:80", "example.org:1"):
        assert str(parse_address(text, "api")) == text
