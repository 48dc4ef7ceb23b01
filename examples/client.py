"""Connect, write, print, end: ``python examples/client.py [PORT]`` against ``line`` or ``raw``."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from echod.client import connect


async def main(port: int) -> None:
    async with await connect("127.0.0.1", port) as stream:
        await stream.write(b"hello\n")
        sys.stdout.buffer.write(await stream.readUntil(b"\n"))


react(lambda _, port="1234": Deferred.fromCoroutine(main(int(port))), sys.argv[1:])
