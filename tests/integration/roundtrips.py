"""
Clients without end, in a process of their own: ``roundtrips.py HOST PORT CLIENTS``.

Half of them are brief: connect, send some kilobytes in two pieces, half-close, read to EOF.  The
others talk for a while: twenty messages, one at a time, then half-close and EOF.  Each begins again
as soon as it is done, until standard input ends; then one line of JSON tells how many were
``brief`` and ``talks`` that came back whole, and what ``failed``.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time

#: Seconds after which a client has failed.
PATIENCE = 20.0


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(65536)
        if not piece:
            raise AssertionError(f"EOF after {len(data)} of {size} bytes")
        data += piece
    return data


def finish(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b"", "more came than was sent"


def brief(client: socket.socket, source: random.Random) -> None:
    data = source.randbytes(source.randrange(2, 60_000))
    half = source.randrange(1, len(data))

    def send() -> None:
        client.sendall(data[:half])
        time.sleep(0.002)  # so that it comes in two pieces
        client.sendall(data[half:])
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert receive(client, len(data)) == data, "other bytes"
        assert client.recv(1) == b"", "more came than was sent"
    finally:
        sender.join()


def talk(client: socket.socket, source: random.Random) -> None:
    for _ in range(20):
        message = source.randbytes(64)
        client.sendall(message)
        assert receive(client, 64) == message, "other bytes"
        time.sleep(0.01)  # it thinks
    finish(client)


def main() -> None:
    host, port, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    over = threading.Event()
    whole = {"brief": 0, "talks": 0}
    failed: list[str] = []
    lock = threading.Lock()

    def repeat(number: int) -> None:
        source = random.Random(number)
        kind, converse = ("talks", talk) if number % 2 else ("brief", brief)
        while not over.is_set():
            try:
                with socket.create_connection((host, port), PATIENCE) as client:
                    converse(client, source)
            except (OSError, AssertionError) as error:
                with lock:
                    failed.append(f"{kind}: {type(error).__name__}: {error}")
            else:
                with lock:
                    whole[kind] += 1
            over.wait(0.01)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({**whole, "failed": failed}) + "\n")


if __name__ == "__main__":
    main()
