"""
How a listener speaks TLS, and with which certificates: `TLSSettings`, ``[listener.tls]``.

Pure: what is in the files is `echod.tls.context`'s business.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from echod.wire.keys import keyOf

__all__ = ["CertificateSettings", "TLSSettings"]

#: What may be asked for (RFC 6066 section 3), and a ``*`` for its first part.
_ASKED_FOR = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*", re.ASCII)


class CertificateSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf
):
    """
    A certificate and its key, as paths of PEM files.

    :ivar cert: the certificate, then those that link it to its authority.
    :ivar key: the key, if it is not in the same file.
    """

    cert: Annotated[str, Meta(min_length=1)]
    key: str = ""


class TLSSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=keyOf):
    """
    ``[listener.tls]``.

    :ivar cert: a PEM file: the certificate, then those that link it to its authority.  It is also
        for clients that ask for no name in ``names``.
    :ivar key: a PEM file: the key, if it is not in the same file.
    :ivar ca: a PEM file: the authorities of clients' certificates.
    :ivar clientAuth: whether a client must show a certificate, may, or is not asked.
    :ivar alpn: protocols that may be chosen (RFC 7301).  A client that offers only others is
        served without one, because the standard library cannot refuse it as section 3.2 there
        wants.
    :ivar tickets: whether sessions can be resumed with tickets (RFC 8446 section 2.2).  OpenSSL
        remembers sessions of TLS 1.2 without tickets, whatever is said here: 20 480 a listener,
        for two hours, of 1 KiB each, and of 12 KiB with a client's certificate.
    :ivar minimumVersion: the oldest version that is spoken.
    :ivar names: other certificates, by the name that the client asks for (SNI, RFC 6066 section
        3): ``a.example`` or ``*.example``, in ASCII and without a dot at the end.
    """

    cert: Annotated[str, Meta(min_length=1)]
    key: str = ""
    ca: str = ""
    clientAuth: Literal["none", "optional", "require"] = "none"
    alpn: list[Annotated[str, Meta(pattern="^[!-~]{1,255}$")]] = msgspec.field(
        default_factory=lambda: ["echo"]
    )
    tickets: bool = False
    minimumVersion: Literal["1.2", "1.3"] = "1.2"
    names: dict[str, CertificateSettings] = msgspec.field(default_factory=dict)

    def within(self, directory: str) -> TLSSettings:
        """The same, with relative paths beginning at ``directory``."""

        def join(path: str) -> str:
            return str(PurePosixPath(directory, path)) if path else ""

        return msgspec.structs.replace(
            self,
            cert=join(self.cert),
            key=join(self.key),
            ca=join(self.ca),
            names={
                name: CertificateSettings(cert=join(pair.cert), key=join(pair.key))
                for name, pair in self.names.items()
            },
        )

    def __post_init__(self) -> None:
        if (self.clientAuth == "none") == bool(self.ca):
            raise ValueError(
                "client_auth 'optional' or 'require' and ca, the authorities, go together"
            )
        for name in self.names:
            if not _ASKED_FOR.fullmatch(name):
                raise ValueError(
                    f"no client asks for {name!r} in names: write it as a.example or *.example, "
                    "in ASCII (xn--…), without a dot at the end"
                )
