"""`echod.server.plan_rows`: what is served, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, field

from echod.config.limits import Limits
from echod.config.settings import parseConfiguration
from echod.errors import ConfigurationError
from echod.interfaces import ServerInsight
from echod.kit.protocol_options import ProtocolOptions
from echod.server.plan import plan, requestsOf
from echod.server.plan_rows import HIDDEN, toldOptions
from echod.server.registry import Registry
from echod.server.service import EchodService
from echod.testing import Loop
from tests.certificates import Certificates


class Options(ProtocolOptions, frozen=True):
    """Some that are nobody's business."""

    plain: str = "told"
    apiToken: str = "hidden"
    password: str = "hidden"
    privateKey: str = "hidden"
    keyboard: str = "told"
    mark: Annotated[str, Meta(extra={"secret": True}, description="x")] = "hidden"
    nested: dict[str, Any] = field(
        default_factory=lambda: {"secret": "hidden", "user": "told", "more": [{"pass": "hidden"}]}
    )


def test_secrets() -> None:
    """By declaration or by name, however deep."""
    told = toldOptions(Options())
    assert told == {
        "plain": "told",
        "api_token": HIDDEN,
        "password": HIDDEN,
        "private_key": HIDDEN,
        "keyboard": "told",
        "mark": HIDDEN,
        "nested": {"secret": HIDDEN, "user": "told", "more": [{"pass": HIDDEN}]},
    }
    assert "hidden" not in repr(told)
    assert toldOptions(None) == {}


class Odd(ProtocolOptions, frozen=True):
    """What JSON has no word for."""

    where: Any = Path("/x")


def test_oddOptions() -> None:
    assert msgspec.json.encode(toldOptions(Odd()))


@pytest.fixture
def service(certificates: Certificates, tmp_path: Path) -> Iterator[EchodService]:
    text = f"""
        drain_timeout = 3
        log_connections = true
        [defaults]
        idle_timeout = 7
        [[listener]]
        protocol = "line"
        endpoint = "tcp:0"
        max_connections = 9
        proxy = ["127.0.0.1", "10.0.0.0/8"]
        options = {{prefix = "x"}}
        [listener.tls]
        cert = "{certificates.server}"
        [[listener]]
        protocol = "admin"
        endpoint = "unix:{tmp_path}/s:mode=600"
        [[listener]]
        protocol = "udp"
        endpoint = "udp:0"
    """
    configuration = parseConfiguration(text)
    requests = requestsOf(configuration, "127.0.0.1")
    loop = Loop()
    service = EchodService(
        plan(configuration, requests, Registry(), 1 << 16), loop, monotonic=loop.seconds
    )
    service.privilegedStartService()
    yield service
    for listener in service.listeners:
        listener.abandon()


def insight(service: EchodService) -> ServerInsight:
    return service.insight


def test_listeners(service: EchodService, certificates: Certificates) -> None:
    """Every one, with all limits by the configuration's keys, as they are in force."""
    line, admin, udp = insight(service).listeners()
    assert line["listener"] == service.listeners[0].describe()
    assert (line["protocol"], line["traits"]) == ("line", ["tls", "proxy"])
    assert line["endpoint"].startswith("tcp 127.0.0.1:")
    assert (line["listens"], line["open"]) == (True, 0)
    assert set(line["limits"]) == set(Limits.__struct_encode_fields__)
    assert line["limits"]["max_connections"] == 9
    assert line["limits"]["idle_timeout"] == 7.0
    assert line["limits"]["timeline"] == 32
    assert line["proxy"] == ["127.0.0.1", "10.0.0.0/8"]
    assert line["tls"]["cert"] == str(certificates.server)
    (certificate,) = line["certificates"]
    assert certificate["name"] == ""
    assert certificate["path"] == str(certificates.server)
    assert certificate["not_after"].endswith("Z")
    assert admin["traits"] == []
    assert admin["limits"]["idle_timeout"] == 7.0
    assert admin["limits"]["max_connections"] == 128
    assert admin["certificates"] == []
    assert (udp["protocol"], udp["limits"]["timeline"]) == ("udp", 0)
    assert msgspec.json.encode([line, admin, udp])


def test_configuration(service: EchodService, certificates: Certificates, tmp_path: Path) -> None:
    """As it is served, with what nobody has written."""
    found = insight(service).configuration()
    assert found["drain_timeout"] == 3.0
    assert found["drain_delay"] == 0.0
    assert found["log_connections"] is True
    line, admin, _ = found["listener"]
    assert line["options"]["prefix"] == "x"
    assert line["options"]["max_length"] == 65536
    assert (line["place"], line["max_connections"]) == ("$.listener[0]", 9)
    assert line["tls"]["minimum_version"] == "1.2"
    assert (admin["endpoint"], admin["mode"]) == (f"unix {tmp_path}/s", "600")
    assert "PRIVATE KEY" not in repr(found)
    assert Path(certificates.server).read_text().splitlines()[1] not in repr(found)
    assert msgspec.json.encode(found)


def test_reloads(service: EchodService) -> None:
    """When the last one went well, and why none has since."""
    assert insight(service).configuration()["reload"] == {
        "succeeded": None,
        "refused": None,
        "refused_at": None,
    }
    service.reloads.succeed()
    service.reloads.refuse(str(ConfigurationError("$.listener: wrong")))
    found = insight(service).configuration()["reload"]
    assert found["succeeded"].endswith("Z")
    assert found["refused"] == "$.listener: wrong"
    assert found["refused_at"].endswith("Z")
