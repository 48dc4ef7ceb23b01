"""
Connect, write, print, end: ``python examples/client.py [PORT [CA]]`` against ``line`` or ``raw``.

With a PEM file of authorities it does TLS, with a server called localhost.
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from echod.client import ClientTLS, connect


async def main(port: int, ca: str) -> None:
    async with await connect("localhost", port, tls=ClientTLS(ca=ca) if ca else None) as stream:
        await stream.write(b"hello\n")
        sys.stdout.buffer.write(await stream.readUntil(b"\n"))


react(lambda _, port="1234", ca="": Deferred.fromCoroutine(main(int(port), ca)), sys.argv[1:])
