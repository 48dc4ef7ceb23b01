"""`echod.tls.context`: certificates, names and keys from files, and what a handshake agrees on."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from echod.config.conversion import convert
from echod.config.endpoints import parseEndpoint
from echod.config.tls_settings import CertificateSettings, TLSSettings
from echod.errors import ConfigurationError, TLSFailed
from echod.protocols.whoami import whoami
from echod.tls.context import ClientTLS, ServerTLS
from echod.transports.layers import AskedFor, TLSLayer
from tests.certificates import Certificates
from tests.chains import Issued
from tests.tlspeer import ALERT, DATA, Peer, recordTypes
from tests.unit.served import ECHO, Served

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def serving(certificates: Certificates, protocol: tuple[Any, Any] = ECHO, **tls: Any) -> Served:
    return Served({"cert": certificates.server, **tls}, protocol)


def connected(served: Served, context: ssl.SSLContext, **more: Any) -> Peer:
    """A client after its handshake."""
    return Peer(served.address, context, turn=served.turn, **more).shakeHands()


def namesOf(peer: Peer) -> set[str]:
    """What the server's certificate is for."""
    found: Any = peer.tls.getpeercert()
    return {value for _, value in found["subjectAltName"]}


# -- SNI -------------------------------------------------------------------------------------------


@versions
def test_names(certificates: Certificates, version: str) -> None:
    """RFC 6066 section 3: the name that is asked for chooses; else it is the listener's own."""
    other = CertificateSettings(cert=certificates.other)
    chosen = {"other.example", "*.wild.example"}
    context = certificates.context(version)
    context.check_hostname = False
    asked = {
        "other.example": chosen,
        "OTHER.Example": chosen,
        "a.wild.example": chosen,
        "A.WILD.example": chosen,
        # No part of the name, and yet some clients send it.
        "other.example.": chosen,
        "a.wild.example.": chosen,
        # RFC 9525 section 6.3: one label.
        "a.b.wild.example": None,
        "wild.example": None,
        "localhost": None,
        "unknown.example": None,
        "example": None,
        None: None,
    }
    with serving(certificates, names={"Other.example": other, "*.wild.example": other}) as served:
        for name, expected in asked.items():
            with connected(served, context, serverName=name) as peer:
                peer.ping()
                own = {"localhost", "127.0.0.1", "0:0:0:0:0:0:0:1"}
                assert namesOf(peer) == (expected or own), name
                told = served.connections[-1].transport.tls
                assert told.serverName == name


def test_nameWithoutOthers(certificates: Certificates) -> None:
    """The name is told also where it chooses nothing."""
    context = certificates.context()
    context.check_hostname = False
    with serving(certificates) as served, connected(served, context, serverName="a.b") as peer:
        peer.ping()
        assert served.connection.transport.tls.serverName == "a.b"
        assert "server_name='a.b'" in served.told("tls")


@versions
def test_clientCertificateUnderAnotherName(certificates: Certificates, version: str) -> None:
    """Whatever the name, the same is asked of a client, and its authority is known."""
    other = CertificateSettings(cert=certificates.other)
    with serving(
        certificates, names={"other.example": other}, clientAuth="require", ca=certificates.ca
    ) as served:
        context = certificates.context(version, certificates.client)
        with connected(served, context, serverName="other.example") as peer:
            peer.ping()
            assert served.connection.transport.tls.names == ("email:alice@example.org",)
        with Peer(
            served.address,
            certificates.context(version),
            turn=served.turn,
            serverName="other.example",
        ) as peer:
            with suppress(ssl.SSLError):
                peer.shakeHands()
            assert peer.readAll() == b""
        served.until(lambda: served.closed.get("tls") == 1)


@pytest.mark.parametrize("given", [True, False], ids=["server name", "host"])
@pytest.mark.parametrize(
    ("meant", "asked"),
    [
        ("localhost.", "localhost"),
        ("LocalHost", "LocalHost"),
        ("127.0.0.1", None),
        ("127.0.0.1.", None),
        ("::1", None),
        ("::1%lo", None),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_nameThatIsMeant(
    certificates: Certificates, meant: str, asked: str | None, given: bool
) -> None:
    """RFC 6066 section 3: no dot at the end, A-labels, and no addresses; the same is verified."""
    international = certificates.issue(
        "international", x509.Name([]), [x509.DNSName("xn--bcher-kva.example")]
    )
    own = international if asked == "xn--bcher-kva.example" else certificates.server
    client = ClientTLS(ca=certificates.ca, serverName=meant if given else "")
    side = client.to("elsewhere.example" if given else meant)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends: Any = [ServerTLS(TLSSettings(cert=own)).wrap(there, back), side.wrap(back, there)]
    for end in (*ends[::-1], *ends[::-1]):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    side.verify(ends[1])
    assert ends[0].serverName == asked


@pytest.mark.parametrize("name", [".", "..", "a..b", ".a", "x" * 64])
def test_notAName(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of a server"):
        ClientTLS(serverName=name)
    with pytest.raises(ConfigurationError, match="is no name of a server"):
        ClientTLS().to(name)


# -- ALPN ------------------------------------------------------------------------------------------


@versions
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["echo"], "echo"),
        (["h2", "echo"], "echo"),
        (["echo", "first"], "first"),
        (["h2"], None),
        (None, None),
    ],
)
def test_alpn(
    certificates: Certificates, version: str, offered: list[str] | None, chosen: str | None
) -> None:
    """RFC 7301: the first of the server's that the client offers; none in common is no error."""
    context = certificates.context(version)
    if offered:
        context.set_alpn_protocols(offered)
    with (
        serving(certificates, alpn=["first", "echo"]) as served,
        connected(served, context) as peer,
    ):
        peer.ping()
        assert peer.tls.selected_alpn_protocol() == chosen
        transport: Any = served.connection.transport
        assert transport.tls.alpn == chosen
        assert transport.negotiatedProtocol == (chosen.encode() if chosen else None)
        assert (f" alpn={chosen}" in served.told("tls")) == (chosen is not None)


# -- Sessions --------------------------------------------------------------------------------------


def sessionOf(peer: Peer) -> Any:
    """The session, once all is over: the tickets of 1.3 come after the handshake."""
    peer.ping()
    session = peer.tls.session
    peer.send(peer.closeNotify())
    peer.readAll()
    return session


@versions
@pytest.mark.parametrize("tickets", [False, True])
def test_tickets(certificates: Certificates, version: str, tickets: bool) -> None:
    """RFC 8446 section 2.2: sessions are resumed with tickets where that is asked for."""
    context = certificates.context(version, certificates.client)
    with serving(certificates, tickets=tickets, clientAuth="require", ca=certificates.ca) as served:
        with connected(served, context) as peer:
            session = sessionOf(peer)
            assert session.has_ticket == tickets
        with connected(served, context, session=session) as peer:
            peer.ping()
            # TLS 1.2 knows sessions without tickets, which the server has to remember; OpenSSL
            # does, and Python has no way to tell it not to.
            assert peer.tls.session_reused == (tickets or version == "1.2")
            # Who it is does not get lost.
            assert served.connections[-1].transport.tls.names == ("email:alice@example.org",)
        # The keys of tickets end with the files that were read.
        served.renew()
        with connected(served, context, session=session) as peer:
            peer.ping()
            assert not peer.tls.session_reused


# -- Clients' certificates -------------------------------------------------------------------------


@versions
@pytest.mark.parametrize("auth", ["none", "optional", "require"])
@pytest.mark.parametrize("shown", [False, True])
def test_clientAuth(certificates: Certificates, version: str, auth: str, shown: bool) -> None:
    """A certificate is told if it was asked for, and shown; whoami says whose it is."""
    authority = {} if auth == "none" else {"ca": certificates.ca}
    context = certificates.context(version, certificates.client if shown else None)
    with Served(
        {"cert": certificates.server, "clientAuth": auth, **authority}, (whoami, None)
    ) as served:
        with Peer(served.address, context, turn=served.turn) as peer:
            if auth == "require" and not shown:
                # In 1.3 the client learns of it later.
                with suppress(ssl.SSLError):
                    peer.shakeHands()
                assert peer.readAll() == b""
                return
            peer.shakeHands()
            peer.until(lambda: peer.end)
            facts = msgspec.json.decode(peer.take())["tls"]
        known = auth != "none" and shown
        assert ("subject" in facts, "names" in facts) == (known, known)
        if known:
            assert facts["subject"].startswith("CN=alice,")
            assert facts["names"] == ["email:alice@example.org"]
            line = served.told("tls")
            assert " subject='CN=alice,OU=Testing cert" in line
            assert line.endswith(" names=('email:alice@example.org',)")
        assert facts["version"] == f"TLSv{version}"
        assert facts["server_name"] == "localhost"


@versions
def test_authorityThatIsNotStrict(certificates: Certificates, tmp_path: Path, version: str) -> None:
    """RFC 5280's identifiers of keys may be missing, for servers and clients, on every Python."""
    root = Issued("root", authority=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(root.pem)
    server = Issued("server", root).write(tmp_path / "server.pem")
    client = Issued("client", root).write(tmp_path / "client.pem")
    with Served({"cert": server, "clientAuth": "require", "ca": str(ca)}) as served:
        side = ClientTLS(ca=str(ca), cert=client, minimumVersion=version).to("localhost")
        with Peer(served.address, side, turn=served.turn) as peer:
            peer.shakeHands()
            side.verify(peer.tls)
            peer.ping()
            assert served.connection.transport.tls.subject == "CN=client"


@versions
@pytest.mark.parametrize("known", ["middle", "leaf"])
def test_authorityWithoutItsOwn(
    certificates: Certificates, tmp_path: Path, version: str, known: str
) -> None:
    """A chain ends at an authority that has signed itself; on every Python no other is enough."""
    root = Issued("root", authority=True)
    middle = Issued("middle", root, authority=True)
    leaf = Issued("leaf", middle)
    path = leaf.write(tmp_path / "leaf.pem", middle)
    whole, part = tmp_path / "whole.pem", tmp_path / "part.pem"
    whole.write_bytes(root.pem)
    part.write_bytes({"middle": middle, "leaf": leaf}[known].pem)
    # A client's certificate, verified by the listener.
    for ca in (whole, part):
        context = certificates.context(version, path)
        with (
            serving(certificates, clientAuth="require", ca=str(ca)) as served,
            Peer(served.address, context, turn=served.turn) as peer,
        ):
            with suppress(ssl.SSLError):
                # In 1.3 the client learns of it later.
                peer.shakeHands()
            if ca == whole:
                peer.ping()
            else:
                peer.readAll()
                peer.finish()
                served.gone()
                assert "failure='unable to get" in served.told("closed")
    # The listener's, verified by a client.
    with Served({"cert": path}) as served:
        for ca in (whole, part):
            side = ClientTLS(ca=str(ca), minimumVersion=version).to("localhost")
            with Peer(served.address, side, turn=served.turn) as peer:
                if ca == whole:
                    peer.shakeHands().ping()
                else:
                    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
                        peer.shakeHands()


def _name(*attributes: tuple[Any, str]) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.Name(
            [x509.NameAttribute(kind, value, _validate=False) for kind, value in attributes]
        )


#: Subjects and names that somebody may have got out of an authority.
NASTY: dict[str, tuple[x509.Name, list[x509.GeneralName] | bytes]] = {
    "control": (
        _name(
            (NameOID.COMMON_NAME, "a\nclosed raw\r\x1b[31m\0\x9b"),
            (NameOID.ORGANIZATION_NAME, "it's \"quoted\", subject='CN=root'"),
        ),
        [x509.DNSName._init_without_validation("x\nrefused y")],
    ),
    "directions": (_name((NameOID.COMMON_NAME, "\u202eecila\u2028\ud7ff")), []),
    "country": (_name((NameOID.COUNTRY_NAME, "Atlantis")), []),
    "nobody": (x509.Name([]), [x509.RFC822Name("alice@example.org")]),
    # A sequence of one dNSName of one byte, which is no text.
    "no text": (_name((NameOID.COMMON_NAME, "alice")), b"\x30\3\x82\1\xff"),
    "address": (
        _name((NameOID.COMMON_NAME, "alice")),
        [x509.DirectoryName(_name((NameOID.COMMON_NAME, "\x1b[2J")))],
    ),
    "much": (
        _name((NameOID.COMMON_NAME, "alice")),
        [x509.DNSName(f"{number}.example") for number in range(1000)],
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_nastySubject(certificates: Certificates, name: str) -> None:
    """O4, O5: whatever is in a verified certificate is one printable line, or a refusal."""
    subject, alternatives = NASTY[name]
    path = certificates.issue(f"nasty {name}", subject, alternatives)
    context = certificates.context("1.3", path)
    with (
        Served(
            {"cert": certificates.server, "clientAuth": "require", "ca": certificates.ca},
            (whoami, None),
        ) as served,
        Peer(served.address, context, turn=served.turn) as peer,
    ):
        peer.shakeHands()
        said = peer.readAll()
        peer.send(peer.closeNotify())
        peer.finish()
        served.gone()
        assert all(line.isprintable() for line in served.lines), served.lines
        if served.closed == {"tls": 1}:
            assert "failure='the certificate cannot be read'" in served.told("closed")
            assert said == b""
        else:
            assert msgspec.json.decode(said)["tls"]["subject"] is not None
            assert len([line for line in served.lines if line.startswith("tls ")]) == 1
        assert (name == "no text") == (served.closed == {"tls": 1})


# -- Files -----------------------------------------------------------------------------------------


@pytest.fixture
def copy(certificates: Certificates, tmp_path: Path) -> Callable[[str], str]:
    """Files of one's own, by the names that `Certificates` has for them."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.pem"
        shutil.copy(getattr(certificates, name), path)
        path.chmod(0o600)
        return str(path)

    return make


def split(path: str) -> tuple[str, str]:
    """The certificates and the key of a file that has both, each in a file of its own."""
    text = Path(path).read_text()
    at = text.index("-----BEGIN CERTIFICATE")
    cert, key = Path(f"{path}.cert"), Path(f"{path}.key")
    for file, part in ((cert, text[at:]), (key, text[:at])):
        file.touch(0o600)
        file.write_text(part)
    return str(cert), str(key)


def refusal(**tls: Any) -> str:
    """The one line that says why a table cannot be used."""
    with pytest.raises(ConfigurationError) as caught:
        ServerTLS(TLSSettings(**tls))
    line = str(caught.value)
    assert line.isprintable()
    return line


def test_filesThatAreNotThere(copy: Callable[[str], str], tmp_path: Path) -> None:
    """O3: each is named."""
    missing = str(tmp_path / "missing.pem")
    why = f"cannot read {missing}: No such file or directory"
    assert refusal(cert=missing) == why
    assert refusal(cert=copy("server"), key=missing) == why
    assert refusal(cert=copy("server"), ca=missing, clientAuth="require") == why
    names = {"a.example": CertificateSettings(cert=missing)}
    assert refusal(cert=copy("server"), names=names) == why
    assert refusal(cert=str(tmp_path)) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize("name", ["\u00fcber.example", "a.example.", "", "*", "a b", "a.*.example"])
def test_namesThatNobodyAsksFor(name: str) -> None:
    """RFC 6066 section 3: ASCII, no dot at the end; else it would never match."""
    with pytest.raises(ConfigurationError, match=f"no client asks for {re.escape(repr(name))} in"):
        convert({"cert": "a.pem", "names": {name: {"cert": "b.pem"}}}, TLSSettings)


def test_filesThatAreSomethingElse(copy: Callable[[str], str], tmp_path: Path) -> None:
    """O3: no PEM, no certificate in it, no key, or none of an authority."""
    text = tmp_path / "text"
    text.write_text("not PEM\n")
    cert, key = split(copy("server"))
    no = "holds no certificate: write its path as PEM"
    assert refusal(cert=str(text)) == f"{text} {no}"
    assert refusal(cert=key) == f"{key} {no}"
    for what in (
        "",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        text.write_text(what)
        assert refusal(cert=str(text)) == f"{text} {no}"
    text.write_text("not PEM\n")
    assert refusal(cert=cert) == f"cannot use the key in {cert} with {cert}: no PEM key"
    assert (
        refusal(cert=cert, key=str(text)) == f"cannot use the key in {text} with {cert}: no PEM key"
    )
    assert (
        refusal(cert=cert, key=key, ca=str(text), clientAuth="require")
        == f"{text} holds no certificate of an authority"
    )
    ServerTLS(TLSSettings(cert=cert, key=key))


def test_filesThatWindowsHasSaved(certificates: Certificates, copy: Callable[[str], str]) -> None:
    """O3: a byte order mark at the beginning and CRLF are read; what OpenSSL skips is refused."""
    cert, key = split(copy("server"))
    ca = copy("ca")

    def tried(path: str, data: bytes) -> str:
        before = Path(path).read_bytes()
        Path(path).write_bytes(data)
        try:
            ServerTLS(TLSSettings(cert=cert, key=key, ca=ca, clientAuth="require"))
        except ConfigurationError as error:
            return str(error)
        finally:
            Path(path).write_bytes(before)
        return ""

    for path in (cert, key, ca):
        text = Path(path).read_text()
        crlf = text.replace("\n", "\r\n")
        assert tried(path, crlf.encode("utf-8-sig")) == ""
        for encoding in ("utf-16", "utf-16-be"):
            mark = "\ufeff" if encoding == "utf-16-be" else ""
            assert tried(path, (mark + crlf).encode(encoding)) == (
                f"{path}: UTF-16, by its byte order mark: save it as UTF-8"
            )
        assert tried(path, 2 * text.encode("utf-8-sig")) == (
            f"{path} has a byte order mark in the middle, before a -----BEGIN: remove it"
        )


def test_certificateOfAnotherTime(certificates: Certificates) -> None:
    """O3: expired, or not valid yet; also the ones for other names."""
    expired = refusal(cert=certificates.expired)
    assert expired.startswith(f"the certificate in {certificates.expired} expired at 20")
    assert expired.endswith(" UTC: renew it")
    early = refusal(cert=certificates.early)
    assert early.startswith(f"the certificate in {certificates.early} is valid only from 20")
    assert early.endswith(" UTC: is the clock right?")
    names = {"a.example": CertificateSettings(cert=certificates.expired)}
    assert refusal(cert=certificates.server, names=names) == expired


def test_chainOfAnotherTime(tmp_path: Path) -> None:
    """O3: what links a certificate to its authority is as valid as itself; also for other names."""
    root = Issued("root", authority=True)
    good = Issued("good", root, authority=True)
    leaf = Issued("leaf", good)
    whole = leaf.write(tmp_path / "whole.pem", good, root)
    assert ServerTLS(TLSSettings(cert=whole)).notes == []
    for number, (days, words, mend) in enumerate(
        [((-9, -1), "expired at 20", "renew it"), ((1, 9), "is valid only from 20", "clock right?")]
    ):
        middle = Issued("middle", root, authority=True, days=days)
        below = Issued("below", middle, authority=True)
        for name, holder, others in (
            ("direct", Issued("leaf", middle), [middle]),
            ("root too", Issued("leaf", middle), [middle, root]),
            ("above", Issued("leaf", below), [below, middle]),
            # Clients sort them.
            ("mixed", Issued("leaf", below), [middle, below]),
        ):
            path = holder.write(tmp_path / f"{number} {name}.pem", *others)
            for tables in (
                {"cert": path},
                {"cert": whole, "names": {"a.example": CertificateSettings(cert=path)}},
            ):
                line = refusal(**tables)
                assert line.startswith(f"the authority 'CN=middle' in {path} {words}"), line
                assert line.endswith(mend)
            with pytest.raises(ConfigurationError, match="CN=middle"):
                ClientTLS(cert=path)


def test_authorityThatWasRenewed(tmp_path: Path) -> None:
    """Of two certificates of one authority, clients take the valid one."""
    root = Issued("root", authority=True)
    old = Issued("middle", root, authority=True, days=(-9, -1))
    new = Issued("middle", root, authority=True, key=old.key)
    leaf = Issued("leaf", new)
    for number, others in enumerate([(new, old), (old, new)]):
        path = leaf.write(tmp_path / f"{number}.pem", *others)
        (note,) = ServerTLS(TLSSettings(cert=path)).notes
        assert note.startswith(f"not every certificate in {path} certifies the one before it")


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_rootOfAnotherTime(tmp_path: Path, days: tuple[int, int]) -> None:
    """A root in the file is not needed by any client: that it is not valid is told, no more."""
    root = Issued("root", authority=True, days=days)
    middle = Issued("middle", root, authority=True)
    path = Issued("leaf", middle).write(tmp_path / "leaf.pem", middle, root)
    (note,) = ServerTLS(TLSSettings(cert=path)).notes
    assert note.startswith(f"the root 'CN=root' in {path} is not valid today")


def test_certificatesThatDoNotBelong(tmp_path: Path) -> None:
    """Strangers in the file, or no order: used as it is, and told; a stranger may have expired."""
    root = Issued("root", authority=True)
    first = Issued("first", root, authority=True)
    second = Issued("second", first, authority=True)
    leaf = Issued("leaf", second)
    # Has the authority's name, and another key.
    stranger = Issued("second", authority=True, days=(-9, -1))
    for name, others, noted in (
        ("in order", (second, first), False),
        ("with its root", (second, first, root), False),
        ("mixed", (first, second), True),
        ("with a stranger", (second, first, stranger), True),
        ("with a stranger before", (stranger, second, first), True),
        ("without the first link", (first, root), True),
        ("alone", (), False),
    ):
        path = leaf.write(tmp_path / f"{name}.pem", *others)
        notes = ServerTLS(TLSSettings(cert=path)).notes
        assert len(notes) == noted, (name, notes)
        assert all(path in note and note.isprintable() for note in notes)


def test_expiries(tmp_path: Path) -> None:
    """Until when each certificate is good: the first of those in its file that clients verify."""
    root = Issued("root", authority=True, days=(-1, 5))
    long = Issued("long", root, authority=True, days=(-1, 90))
    short = Issued("short", root, authority=True, days=(-1, 30))
    days = {
        # A root in the file counts for nobody: clients have their own.
        "alone": (Issued("leaf", long, days=(-1, 60)).write(tmp_path / "a.pem"), 60),
        "above": (Issued("leaf", short, days=(-1, 60)).write(tmp_path / "b.pem", short, root), 30),
        "below": (Issued("leaf", long, days=(-1, 60)).write(tmp_path / "c.pem", long, root), 60),
        "itself": (Issued("itself", days=(-1, 7)).write(tmp_path / "d.pem"), 7),
    }
    (own, ownDays), *others = days.values()
    names = {
        f"A{number}.example": CertificateSettings(cert=path)
        for number, (path, _) in enumerate(others)
    }
    found = ServerTLS(TLSSettings(cert=own, names=names)).expiries
    assert [(each.name, each.path) for each in found] == [
        ("", own),
        *((f"a{number}.example", path) for number, (path, _) in enumerate(others)),
    ]
    now = time.time()
    assert [round((each.notAfter - now) / 86400, 1) for each in found] == [
        ownDays,
        *(each for _, each in others),
    ]
    assert len({each.fingerprint for each in found}) == 4
    again = ServerTLS(TLSSettings(cert=own)).expiries
    assert again == found[:1]
    # A listener tells it, and a reload that finds another file tells of that.
    asked = AskedFor(
        settings={"cert": own}, place="here", endpoint=parseEndpoint("tcp:1"), written="tcp:1"
    )
    layer = TLSLayer.made(asked)
    assert layer is not None
    assert layer.expiries == again


def test_authoritiesOfAnotherTime(certificates: Certificates, tmp_path: Path) -> None:
    """Some that are not valid are told; if none is, nobody could come in."""
    good = Issued("good", authority=True)
    old = Issued("old", authority=True, days=(-9, -1))
    early = Issued("early", authority=True, days=(1, 9))
    # It signs nobody: who shows this very certificate is known.
    itself = Issued("itself")
    for name, them, told in (
        ("good", (good,), ""),
        ("some", (old, good, early), "2 of 3 authorities in "),
        ("one", (old,), None),
        ("all", (old, early), None),
        ("itself", (itself, old), "1 of 1 authorities in "),
    ):
        path = tmp_path / f"{name}.pem"
        path.write_bytes(b"".join(one.pem for one in them))
        table = {"cert": certificates.server, "ca": str(path), "clientAuth": "require"}
        if told is None:
            assert refusal(**table).startswith(f"no authority in {path} is valid today")
            with pytest.raises(ConfigurationError, match="no authority in "):
                ClientTLS(ca=str(path))
        else:
            notes = ServerTLS(TLSSettings(**table)).notes  # type: ignore[arg-type]  # words
            assert [note[: len(told)] for note in notes] == [told] * bool(told)
            ClientTLS(ca=str(path))


#: Serial numbers that RFC 5280 section 4.1.2.2 does not want.
SERIALS = {"zero": b"\0", "negative": b"\xff", "long": b"\x7f" * 40}


@versions
@pytest.mark.parametrize("kind", SERIALS)
@pytest.mark.parametrize("address", [False, True])
def test_strangeSerial(tmp_path: Path, version: str, kind: str, address: bool) -> None:
    """O3: what a library warns of is neither told nor an error, whoever shows it."""
    root = Issued("root", authority=True, serial=SERIALS[kind])
    middle = Issued("middle", root, authority=True, serial=SERIALS[kind])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    leaf = Issued("leaf", middle, serial=SERIALS[kind], names=names)
    path = leaf.write(tmp_path / "leaf.pem", middle)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(root.pem)
    # As everywhere in these tests, a warning is an error.
    with Served({"cert": path, "clientAuth": "require", "ca": str(ca)}) as served:
        client = ClientTLS(ca=str(ca), cert=path, minimumVersion=version)
        side = client.to("127.0.0.1" if address else "localhost")
        with Peer(served.address, side, turn=served.turn) as peer:
            peer.shakeHands()
            side.verify(peer.tls)
            peer.ping()
            assert served.connection.transport.tls.subject == "CN=leaf"


def test_serverWhoseNamesCannotBeRead(tmp_path: Path) -> None:
    """What cryptography cannot read of a verified certificate is a refusal, and no traceback."""
    root = Issued("root", authority=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(root.pem)
    # A sequence of one x400Address, and one of a dNSName that is no text.
    for der in (b"\x30\x04\xa3\x02\x30\x00", b"\x30\3\x82\1\xff"):
        path = Issued("leaf", root, extension=der).write(tmp_path / "leaf.pem")
        side = ClientTLS(ca=str(ca)).to("localhost")
        with (
            Served({"cert": path}) as served,
            Peer(served.address, side, turn=served.turn) as peer,
        ):
            peer.shakeHands()
            with pytest.raises(TLSFailed, match="the certificate is not for localhost"):
                side.verify(peer.tls)


def test_keyOfAnother(copy: Callable[[str], str]) -> None:
    """O3."""
    cert, _ = split(copy("server"))
    _, key = split(copy("other"))
    assert (
        refusal(cert=cert, key=key) == f"the key in {key} is not that of the certificate in {cert}"
    )


def test_passphrase(copy: Callable[[str], str]) -> None:
    """O3: nobody is there to type it, and nobody is asked."""
    cert, key = split(copy("server"))
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert refusal(cert=cert, key=key) == f"the key in {key} has a passphrase: store it without"


def test_whoMayWrite(copy: Callable[[str], str], tmp_path: Path) -> None:
    """A file that anybody may write, or whose folder, is not believed."""
    cert, key = split(copy("server"))
    authority = copy("ca")
    for path in (cert, key, authority):
        os.chmod(path, 0o602)
        assert (
            refusal(cert=cert, key=key, ca=authority, clientAuth="optional")
            == f"anybody may write to {path}: chmod o-w it, or use another place"
        )
        os.chmod(path, 0o600)
    os.chmod(tmp_path, 0o707)
    assert refusal(cert=cert, key=key).startswith(f"anybody may write to {tmp_path}: chmod o-w")
    os.chmod(tmp_path, 0o700)
    ServerTLS(TLSSettings(cert=cert, key=key, ca=authority, clientAuth="optional"))


def test_whoMayRead(copy: Callable[[str], str]) -> None:
    """A key that everybody may read is used, and told; a certificate alone is for everybody."""
    cert, key = split(copy("server"))
    os.chmod(cert, 0o644)
    assert ServerTLS(TLSSettings(cert=cert, key=key)).notes == []
    os.chmod(key, 0o604)
    note = f"anybody may read the key {key}: chmod o-r it"
    assert ServerTLS(TLSSettings(cert=cert, key=key)).notes == [note]
    pair = copy("other")
    os.chmod(pair, 0o644)
    names = {"a.example": CertificateSettings(cert=pair)}
    security = ServerTLS(TLSSettings(cert=cert, key=key, names=names))
    assert security.notes == [note, f"anybody may read the key {pair}: chmod o-r it"]


def test_tables() -> None:
    """What goes together, and what there is to choose from, is said as msgspec says it."""
    for table, why in (
        ({"cert": "a", "ca": "b"}, "go together"),
        ({"cert": "a", "client_auth": "require"}, "go together"),
        ({"cert": "a", "client_auth": "maybe", "ca": "b"}, "Invalid enum value 'maybe'"),
        ({"cert": "a", "minimum_version": "1.1"}, "Invalid enum value '1.1'"),
        ({"cert": "a", "alpn": [""]}, "Expected `str` matching regex"),
        ({"cert": "a", "alpn": ["x" * 256]}, "Expected `str` matching regex"),
        ({"cert": ""}, "length >= 1"),
        ({}, "missing required field `cert`"),
        ({"cert": "a", "names": {"b": {}}}, "missing required field `cert`"),
        ({"cert": "a", "key_file": "b"}, "unknown field `key_file`"),
    ):
        endpoint = parseEndpoint("tcp:0")
        asked = AskedFor(table, "$.listener[0].tls", endpoint, "tcp:0")
        with pytest.raises(ConfigurationError, match=why) as caught:
            TLSLayer.made(asked)
        assert str(caught.value).startswith("$.listener[0].tls")
        assert str(caught.value).isprintable()


def test_endpointAndTable(certificates: Certificates) -> None:
    """Words of the endpoint and keys of the table are one; twice the same is refused."""

    def security(endpoint: str, table: dict[str, Any] | None) -> TLSLayer | None:
        asked = AskedFor(table, "$.listener[0].tls", parseEndpoint(endpoint), endpoint)
        return TLSLayer.made(asked)

    word = f"tls:0:cert={certificates.server}"
    assert security("tcp:0", None) is None
    assert security("tcp:0", {"cert": certificates.server}) is not None
    assert security(word, None) is not None
    assert security(word, {"tickets": True}) is not None
    with pytest.raises(ConfigurationError) as caught:
        security(word, {"cert": certificates.server})
    assert str(caught.value) == f"$.listener[0].tls: cert is in {word} too; say it once"
    with pytest.raises(ConfigurationError, match="missing required field `cert`"):
        security("tls:0", None)
    with pytest.raises(ConfigurationError) as caught:
        security("udp:0", {"cert": certificates.server})
    assert str(caught.value) == "$.listener[0].tls: udp:0 is for datagrams; TLS is for streams"


@versions
def test_renew(certificates: Certificates, version: str, copy: Callable[[str], str]) -> None:
    """New files are for new connections, live ones go on; what cannot be used changes nothing."""
    path = copy("server")
    context = certificates.context(version)
    context.check_hostname = False
    with Served({"cert": path}) as served, connected(served, context) as old:
        old.ping()
        shutil.copy(certificates.other, path)
        with connected(served, context) as peer:
            assert "localhost" in namesOf(peer)
        served.renew()
        for broken in ("not PEM\n", None):
            with connected(served, context) as peer:
                peer.ping()
                assert "other.example" in namesOf(peer)
            old.ping(b"still there")
            if broken is None:
                os.unlink(path)
            else:
                Path(path).write_text(broken)
            with pytest.raises(ConfigurationError, match=path):
                served.renew()
        with connected(served, context) as peer:
            assert "other.example" in namesOf(peer)


# -- A client's side -------------------------------------------------------------------------------


def test_serverThatRenegotiates(certificates: Certificates) -> None:
    """RFC 9325 section 3.4: no server makes a client shake hands again; the connection goes on."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(certificates.server)
    context.use_privatekey_file(certificates.server)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ClientTLS(ca=certificates.ca).to("localhost").wrap(incoming, outgoing)

    def carry() -> None:
        if outgoing.pending:
            server.bio_write(outgoing.read())
        with suppress(SSL.WantReadError):
            server.do_handshake()
        with suppress(SSL.WantReadError):
            incoming.write(server.bio_read(65536))

    def shakeHands() -> None:
        for _ in range(10):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                carry()
            else:
                carry()
                return
        raise AssertionError("the handshake has no end")

    shakeHands()
    assert server.renegotiate()
    with suppress(SSL.WantReadError):
        server.do_handshake()
    with suppress(SSL.WantReadError):
        incoming.write(server.bio_read(65536))
    with pytest.raises(ssl.SSLWantReadError):
        client.read(100)
    # One record, which is no ClientHello but a warning: no_renegotiation.
    assert recordTypes(outgoing.read()) == [ALERT]
    client.write(b"hello")
    assert recordTypes(outgoing.read()) == [DATA]


@pytest.mark.parametrize("what", ["cert", "key", "ca"])
@pytest.mark.parametrize("kind", ["named", "open"])
def test_pipes(certificates: Certificates, tmp_path: Path, what: str, kind: str) -> None:
    """
    What can be read once is refused in one line, and nobody waits for its writer.

    OpenSSL reads a file once more, and so does each reload.
    """
    ends = os.pipe()
    named = tmp_path / "pipe.pem"
    os.mkfifo(named, 0o600)
    path = str(named) if kind == "named" else f"/dev/fd/{ends[0]}"
    files = {"cert": certificates.server, "key": certificates.server, what: path}
    table = {**files, "client_auth": "require" if what == "ca" else "none"}
    try:
        with pytest.raises(ConfigurationError, match=f"^{path} is no file, and cannot be read"):
            ServerTLS(convert(table, TLSSettings, "here"))
    finally:
        for end in ends:
            os.close(end)


def test_nothingToReadThemWith(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``--chroot`` a reload that asks for TLS may find no library: that is said in words."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    why = refusal(cert=certificates.server)
    assert why.startswith(f"{certificates.server} cannot be read here (")
    assert why.endswith("): restart echod with TLS from the start")
