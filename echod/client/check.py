"""
``echod check ENDPOINT``: whether there is an echo, for probes and ``ExecStartPost``.

One connection: random bytes go out, the same ones must come back, and then EOF, all before one
deadline.  The exit status is a `Status`; one line says what was found, on standard output if it is
right, else on standard error with what to do.

A probe runs every few seconds beside the daemon, so it does without a reactor
(`echod.client.blocking`) and imports little: 45 ms of processor time (TLS: 125), where importing
`echod.client` alone takes 217.
TLS is that of a client of echod's (`echod.tls.context.ClientTLS`), loaded when it is needed.

What is sent fits into the kernel's buffers, so that it can be sent whole before anything is read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from echod.client.blocking import connectBlocking
from echod.client.conversations import (
    CONVERSATIONS,
    SHORTEST_LINE,
    TURNED_AWAY,
    WrongAnswer,
    exchangeDatagram,
)
from echod.config.endpoints import (
    Target,
    TCPEndpoint,
    UDPEndpoint,
    parseTarget,
)
from echod.errors import (
    CheckFailed,
    ConfigurationError,
    ConnectFailed,
    EchodError,
    NoAnswer,
    OutputFailed,
    TLSFailed,
    oneLine,
)
from echod.output import writeError, writeOut

if TYPE_CHECKING:
    # Not before it is needed: it takes TLS to load.
    from echod.tls.record_pump import TLSSide

__all__ = ["Status", "runCheck"]

#: Seconds that ``--timeout`` may ask for.
LONGEST_WAIT = 3600
#: Bytes that are sent at most: what one UDP datagram takes over IPv4.
LARGEST = 65507
#: PROXY header, version 2, LOCAL: the proxy speaks for itself (proxy-protocol.txt section 2.2).
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"

_DESCRIPTION = """\
Connect, send random bytes, and compare what comes back, up to EOF."""
_EPILOG = """\
ENDPOINT is where a client connects:
  tcp:PORT[:host=HOST]    HOST is a name or an address [127.0.0.1]; interface= is the same
  tls:PORT[:host=HOST]    TLS; the certificate must be for HOST, or for --server-name
  udp:PORT[:host=HOST]    one datagram; with --protocol raw alone
  unix:PATH, unix:@NAME   a UNIX socket
  HOST:PORT               TCP
A colon in a value is written \\: as in tcp:1234:host=\\:\\:1.

PROTOCOL is what the listener serves:
  raw      the same bytes, and EOF after our FIN: half-close works
  line     a line of text; anything may stand before it, as with line.prefix
  dns      a message with its 2-byte length
  health   nothing is sent; the listener must say that it is ready

Exit status:
  0  right; one line on standard output: ok raw tcp 127.0.0.1:1234 bytes=64 ms=0.8
  1  wrong usage, or a file that cannot be used
  2  nobody can be connected to
  3  the time is up
  4  other bytes, too many, or EOF or a reset before all of them; or it is not ready
  5  TLS failed, or ended or was reset without close_notify
  74   right, but standard output cannot be written
  141  right, but the reader of standard output has gone
"""


class Status(IntEnum):
    """What the process exits with."""

    RIGHT = 0
    USAGE = 1
    REFUSED = 2
    TIMED_OUT = 3
    WRONG = 4
    TLS = 5


class _Parser(argparse.ArgumentParser):
    """One line for what is wrong, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; see --help")

    def print_help(self, file: object = None) -> None:
        """To standard output, and say it if that fails."""
        writeOut(self.format_help())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="echod check",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where to connect, see below")
    add = parser.add_argument
    add(
        *("--protocol", "-p"),
        metavar="PROTOCOL",
        choices=list(CONVERSATIONS),
        default="raw",
        help="raw, line, dns or health [raw]",
    )
    add("--timeout", metavar="SECONDS", type=_seconds, default=5.0, help="for all of it [5]")
    add("--size", metavar="BYTES", type=_size, default=64, help=f"to send, 1 to {LARGEST} [64]")
    add("--proxy", action="store_true", help="send a PROXY header (version 2, LOCAL) first")
    add("--ca", metavar="FILE", default="", help="authorities for the certificate [the system's]")
    add("--cert", metavar="FILE", default="", help="certificate to show")
    add("--key", metavar="FILE", default="", help="its key, if not in the same file")
    add("--server-name", metavar="NAME", default="", help="whom the certificate is for [HOST]")
    return parser


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= LONGEST_WAIT:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, up to {LONGEST_WAIT}")


def _size(text: str) -> int:
    if (
        text.isascii()
        and text.isdigit()
        and len(text) <= len(str(LARGEST))
        and 1 <= int(text) <= LARGEST
    ):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, 1 to {LARGEST}")


def _isSecured(target: Target) -> bool:
    return isinstance(target, TCPEndpoint) and target.tls is not None


def _checkOptions(options: argparse.Namespace, target: Target) -> None:
    """Refuse what does not go together."""
    secured = _isSecured(target)
    for name in ("ca", "cert", "key", "server_name"):
        if getattr(options, name) and not secured:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is for TLS, and {options.endpoint!r} is not:"
                " write tls:PORT"
            )
    if options.key and not options.cert:
        raise ConfigurationError(f"--key {options.key!r} needs its certificate: give --cert")
    if isinstance(target, UDPEndpoint) and options.protocol != "raw":
        raise ConfigurationError(
            f"--protocol {options.protocol} is for streams: write tcp:, or --protocol raw, which"
            " is right for datagrams of any protocol"
        )
    if isinstance(target, UDPEndpoint) and options.proxy and options.size > LARGEST - len(LOCAL):
        raise ConfigurationError(
            f"--size {options.size} is too long for a datagram behind a header: write"
            f" {LARGEST - len(LOCAL)} or less"
        )
    if options.protocol == "line" and options.size < SHORTEST_LINE:
        raise ConfigurationError(
            f"--size {options.size} is too short for a line: write {SHORTEST_LINE} or more"
        )


def runCheck(arguments: Sequence[str]) -> int:
    """
    Check what ``arguments`` say, and print what was found.

    :returns: a `Status`, or that of `OutputFailed`.
    :raises SystemExit: 0 after ``--help``.
    """
    try:
        writeOut(f"{_find(arguments)}\n")
    except CheckFailed as error:
        writeError(f"echod check: {error}")
        return error.status
    except OutputFailed as error:
        if str(error):
            writeError(f"echod check: {error}")
        return error.status
    except EchodError as error:
        writeError(f"echod check: {error}")
        return Status.USAGE
    return Status.RIGHT


def _find(arguments: Sequence[str]) -> str:
    """The line for what is right; whatever is not is an `EchodError`."""
    options = _parser().parse_args(list(arguments))
    target = parseTarget(options.endpoint)
    _checkOptions(options, target)
    secured = _isSecured(target)
    place = oneLine(str(target).replace("tcp ", "tls ", 1) if secured else str(target))
    security = _security(options, target) if secured else None
    begun = time.monotonic()
    try:
        size = _check(target, options, security)
    except CheckFailed as error:
        raise CheckFailed(f"{place}: {error}", error.status) from error
    taken = (time.monotonic() - begun) * 1000
    return f"ok {options.protocol} {place} bytes={size} ms={taken:.1f}"


def _security(options: argparse.Namespace, target: Target) -> TLSSide:
    """The client's side of TLS, its files read."""
    from echod.tls.context import ClientTLS

    assert isinstance(target, TCPEndpoint)
    return ClientTLS(
        ca=options.ca, cert=options.cert, key=options.key, serverName=options.server_name
    ).to(target.host)


def _check(target: Target, options: argparse.Namespace, security: TLSSide | None) -> int:
    """
    Connect and converse.

    :param security: what to wrap the connection in, if it is for TLS.
    :returns: bytes that came back as they should.
    :raises CheckFailed: why not, and what to do.
    """
    header = LOCAL if options.proxy else b""
    received = 0
    within = f"within {options.timeout:g} s"
    try:
        if isinstance(target, UDPEndpoint):
            return exchangeDatagram(target, header, options.size, options.timeout)
        with connectBlocking(target, options.timeout, security) as connection:
            try:
                connection.open(header)
                return CONVERSATIONS[options.protocol](connection, options.size)
            finally:
                received = connection.received
    except WrongAnswer as error:
        raise CheckFailed(str(error), Status.WRONG) from error
    except NoAnswer as error:
        datagrams = isinstance(target, UDPEndpoint)
        found = "0 bytes came, and no more" if datagrams else "no connection"
        raise CheckFailed(f"{found} {within}: {error}", Status.TIMED_OUT) from error
    except ConnectFailed as error:
        raise CheckFailed(f"cannot connect: {error}", Status.REFUSED) from error
    except TLSFailed as error:
        raise CheckFailed(
            f"TLS failed: {error}: see to --ca, --server-name and --cert, and whether the listener"
            " does TLS",
            Status.TLS,
        ) from error
    except TimeoutError as error:
        raise CheckFailed(
            f"{received} bytes came, and no more {within}: is echod stopped, or is that protocol"
            " not served?",
            Status.TIMED_OUT,
        ) from error
    except OSError as error:
        raise CheckFailed(
            f"{error.strerror} after {received} bytes: {TURNED_AWAY}",
            Status.WRONG,
        ) from error
