"""What operators copy is held to what the node reads: compose file, deployed configurations, image, example.

There is no Docker here. The compose file is read by a reader for the few forms it uses, which refuses any other.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest

from crdtstore_node.config import NodeConfig, load, load_cluster

ROOT = Path(__file__).parents[2]
HOME = PurePosixPath("/etc/crdtstore")
Tree = dict[str, Any]


def _scalar(text: str) -> Any:
    """``[a, "b"]``, ``{ a: {}, b: c }``, ``"text"`` or a word."""
    if text.startswith(("[", "{")):
        words = re.compile(r'"[^"]*"|[^\s\[\]{},:"]+')
        return json.loads(words.sub(lambda found: json.dumps(found[0].strip('"')), text))
    return json.loads(text) if text.startswith('"') else text


def read_compose(text: str) -> Tree:
    """Maps by indentation of two, lists of words, flow forms on one line, and ``<<: *anchor``."""
    root: Tree = {}
    anchors: dict[str, Tree] = {}
    levels: list[Any] = [root]
    key = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        depth, odd = divmod(len(line) - len(line.lstrip(" ")), 2)
        content = re.sub(r"\s+#.*", "", line.strip())
        assert not odd, f"line {number}: indented by {2 * depth + 1}"
        assert depth < len(levels), f"line {number}: too deep"
        del levels[depth + 1 :]
        here = levels[depth]
        if content.startswith("- "):
            parent = levels[depth - 1]
            parent[key] = parent[key] or []
            parent[key].append(_scalar(content[2:]))
            continue
        assert isinstance(here, dict), f"line {number}: a key among the words of a list"
        key, colon, rest = content.partition(":")
        assert colon, f"line {number}: neither a key nor a word of a list"
        rest = rest.strip()
        if key == "<<":
            here.update(anchors[rest.removeprefix("*")])
        elif not rest or rest.startswith("&"):
            assert key not in here, f"line {number}: {key} stands there twice"
            here[key] = {}
            if rest:
                anchors[rest[1:]] = here[key]
            levels.append(here[key])
        else:
            here[key] = _scalar(rest)
    return root


@pytest.fixture(scope="module")
def compose() -> Tree:
    return read_compose((ROOT / "docker-compose.yml").read_text())


def mounts(service: Tree) -> dict[str, str]:
    """Source by target of what a container has mounted."""
    return {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}


def mounted(service: Tree, target: PurePosixPath) -> Path:
    path: Path = (ROOT / mounts(service)[str(target)]).resolve()
    assert path.is_relative_to(ROOT / "deploy")
    return path


def test_the_reader_reads_what_it_is_for() -> None:
    text = """x: &x
  a: { b: ., c: d/E }
  l: ["--f", "/g"]
y:
  # a remark
  z:
    <<: *x
    p: ["1:2"]
    v:
      - q:/r # s
      - t
w: { u: {} }
"""
    own = {"a": {"b": ".", "c": "d/E"}, "l": ["--f", "/g"]}
    assert read_compose(text) == {
        "x": own,
        "y": {"z": {**own, "p": ["1:2"], "v": ["q:/r", "t"]}},
        "w": {"u": {}},
    }
    for wrong in ("a\n", " a: b\n", "a:\n      b: c\n", "a: &b\n  c: d\ne:\n  <<: *f\n"):
        with pytest.raises((AssertionError, KeyError)):
            read_compose(wrong)


def test_every_service_is_a_member_and_every_member_a_service(compose: Tree) -> None:
    services = compose["services"]
    clusters = {mounted(service, HOME / "cluster.toml") for service in services.values()}
    assert len(clusters) == 1, "all nodes read the same cluster file"
    cluster = load_cluster(clusters.pop())
    assert {member.node: member.region for member in cluster.members} == {
        name: name.removesuffix("-1") for name in services
    }
    for member in cluster.members:
        service = services[member.node]
        config = load(mounted(service, HOME / "node.toml"), {})
        assert config.node == member.node
        assert PurePosixPath(config.cluster_file) == HOME / "cluster.toml"
        assert config.insecure, "inside a container loopback reaches nobody"
        assert (config.api_address.host, config.gossip_address.host) == ("0.0.0.0", "0.0.0.0")
        assert member.gossip == f"{member.node}:{config.gossip_address.port}", (
            "containers find each other by service name"
        )
        assert mounts(service)[config.data] == member.region, "data is in a volume of its own"
        assert member.region in compose["volumes"]
    assert set(compose["volumes"]) == {member.region for member in cluster.members}


def test_ports_are_published_on_loopback_only_and_the_comment_names_them(compose: Tree) -> None:
    published = []
    for service in compose["services"].values():
        (port,) = service["ports"]
        host, outside, inside = port.split(":")
        assert host == "127.0.0.1", "nothing is encrypted yet"
        assert int(inside) == load(mounted(service, HOME / "node.toml"), {}).api_address.port
        published.append(f"http://127.0.0.1:{outside}")
    assert f"CRDTSTORE_URL={','.join(published)}" in (ROOT / "docker-compose.yml").read_text()


def test_the_command_is_one_of_the_node(compose: Tree) -> None:
    from crdtstore_node.cli import node  # noqa: PLC0415 - click's own view of it

    known = {option for parameter in node.params for option in parameter.opts}
    for service in compose["services"].values():
        options = [word for word in service["command"] if word.startswith("-")]
        assert set(options) <= known
        assert service["command"][:2] == ["--config", str(HOME / "node.toml")]
        assert service["build"]["dockerfile"] == "node/Dockerfile"
        assert (
            service["image"]
            == f"crdtstore:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
        )


def test_the_image_has_what_the_package_is_built_from() -> None:
    text = (ROOT / "node" / "Dockerfile").read_text()
    copied: set[str] = set()
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        *sources, target = line.split()
        copied |= set(sources)
        assert target == "./" or sources == [target], "the tree inside is the tree outside"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], "pyproject.toml", "requirements.lock", project["project"]["readme"]}
    needed |= set(wheel.get("force-include", {})) | set(project["project"]["license-files"])
    assert needed <= copied
    assert all((ROOT / source).exists() for source in copied)
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert "hatchling" in locked, "the image builds without isolation"
    assert 'ENTRYPOINT ["crdtstore", "node"]' in text
    assert f'CMD ["--config", "{HOME}/node.toml"]' in text
    example = load(ROOT / "deploy" / "us-1.toml", {})
    for address in (example.api_address, example.gossip_address):
        assert re.search(rf"^EXPOSE .*\b{address.port}\b", text, re.MULTILINE)
    assert f"http://127.0.0.1:{example.api_address.port}/healthz" in text
    assert f"VOLUME {example.data}" in text


def test_the_example_has_every_field_with_its_default() -> None:
    path = ROOT / "node" / "node.example.toml"
    config = load(path, {})
    document = tomllib.loads(path.read_text())
    fields = {field.name: field.type for field in msgspec.structs.fields(NodeConfig)}
    tables = {name: kind for name, kind in fields.items() if hasattr(kind, "__struct_fields__")}
    assert set(tables) >= {"engine", "log", "links", "http"}
    for table, kind in tables.items():
        assert set(document[table]) == set(kind.__struct_fields__), f"[{table}] explains every field"
        assert getattr(config, table) == kind(), f"[{table}] has the defaults"
    said = path.read_text()
    left_out = {field for field in ("api_advertise", "gossip_advertise", "join", "region") if f"\n# {field} = " in said}
    assert set(document) | left_out == set(fields), "and every other field stands there too"
    assert not config.insecure
    for field in fields.keys() - tables.keys() - {"peers"}:
        assert f"CRDTSTORE_{field.upper()}" in said
