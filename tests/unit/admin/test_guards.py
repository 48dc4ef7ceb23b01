"""`echod.admin.guards`: who is turned away before anything is looked up."""

from __future__ import annotations

import pytest

from echod.admin.guards import HEADERS, hostAllowed
from echod.admin.maker import AdminOptions, admin
from echod.errors import ConfigurationError
from echod.server.registry import Registry
from tests.unit.admin.asking import Server, ask, get, parse


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "192.0.2.1",
            "localhost",
            "LocalHost:1",
        ),
        *("[2001:db8::1]", "[fe80::1%eth0]", "a.example", "A.Example:80", "localhost:"),
    ],
)
def test_hostAllowed(host: str) -> None:
    assert hostAllowed(host.encode(), {"a.example"})
    assert get(Server(), f"http://{host}/health", hosts=["A.example"]).code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "::1"),
        *("[::1", "[evil]", "1.2.3", "0x7f000001", "2130706433", "127.0.0.1@evil", "b.a.example"),
        *("a.example.", "localhost:80:80", "evil:80", "127.0.0.1, evil", "a.example/x", "\xff"),
        *("localhost\x00", "127.0.0.01", "[127.0.0.1]"),
    ],
)
def test_hostRefused(host: str) -> None:
    assert not hostAllowed(host.encode("latin-1"), {"a.example"})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", ""])
def test_rebinding(host: str) -> None:
    """421, in one line that says what to do."""
    data = f"GET /counters HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    asked, _ = parse(ask(Server(), data))
    assert asked.code == 421
    assert "--option admin.hosts=" in asked.line


@pytest.mark.parametrize(
    ("version", "hosts", "code"),
    [("1.1", 0, 400), ("1.0", 0, 200), ("1.1", 2, 400), ("1.0", 2, 400), ("1.0", 1, 200)],
)
def test_oneHost(version: str, hosts: int, code: int) -> None:
    lines = [f"GET /health HTTP/{version}", *["Host: localhost"] * hosts, "", ""]
    assert parse(ask(Server(), "\r\n".join(lines).encode()))[0].code == code


@pytest.mark.parametrize(
    ("site", "code"),
    [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200), ("", 403)],
)
def test_sites(site: str, code: int) -> None:
    assert get(Server(), "/health", f"Sec-Fetch-Site: {site}").code == code


@pytest.mark.parametrize("target", ["/", "/health", "/nope", "/connections", "/connections?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_headers(target: str, method: str) -> None:
    """Every answer has them, and none says who made it, or lets another site read it."""
    asked = get(Server(), target, "Origin: http://evil.example", method=method)
    for name, value in HEADERS:
        assert asked.headers[name.decode().lower()] == value.decode()
    assert "charset=utf-8" in asked.headers["content-type"]
    assert "date" in asked.headers
    assert "server" not in asked.headers
    assert not any(name.startswith("access-control") for name in asked.headers)


@pytest.mark.parametrize(
    "data", [b"x\r\n\r\n", b"GET / HTTP/1.1\r\nbad\r\n\r\n", b"GET " + b"x" * 20000]
)
def test_headersOfWhatIsNoRequest(data: bytes) -> None:
    asked, rest = parse(ask(Server(), data))
    for name, value in HEADERS:
        assert asked.headers[name.decode().lower()] == value.decode()
    assert rest == b""


def test_policy() -> None:
    """As browsers have it: word for word."""
    assert dict(HEADERS)[b"Content-Security-Policy"] == (
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        b" img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@pytest.mark.parametrize(("text", "hosts"), [("a,b.example", ["a", "b.example"]), ("a", ["a"])])
def test_hostsAsText(text: str, hosts: list[str]) -> None:
    """On the command line with commas."""
    found = Registry().settings(admin, {"hosts": text}, "--option admin", strict=False)
    assert found == AdminOptions(hosts=hosts)


@pytest.mark.parametrize("host", ["a:80", "http://a", "a/b", "", "a b", "ä"])
def test_badHosts(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of a host"):
        Registry().settings(admin, {"hosts": [host]}, "$.listener[0].options", strict=True)
