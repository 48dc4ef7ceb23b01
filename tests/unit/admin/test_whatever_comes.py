"""Whatever a client of ``admin`` sends, however it is cut: answers, and an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from echod.connection.states import Reason
from echod.testing.plain_context import PlainInsight
from tests.unit.admin.asking import Server, connect, parseAll

#: What requests are made of, and what spoils them.
PIECES = st.sampled_from(
    [
        *(b"GET ", b"HEAD ", b"POST ", b"/", b"/health", b"/connections?limit=", b"1", b"/events"),
        *(
            b" HTTP/1.1",
            b" HTTP/1.0",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b":",
            b" ",
            b"\t",
            b"\x00",
        ),
        *(
            b"Host: localhost\r\n",
            b"Host: evil\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue",
        ),
        *(
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n",
            b"\xff\x80",
            b"%2e",
        ),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /connections HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=40), max_size=30), st.lists(st.integers(1, 200)))
def test_whateverComes(pieces: list[bytes], cuts: list[int]) -> None:
    """No error of ours; with FIN behind it the connection ends, and what it says is HTTP."""
    totals = {"listeners": [], "lag_ms": 0.0, "worst_lag_ms": 0.0}
    server = Server(insight=PlainInsight(live=[{"id": "a-1"}] * 3), totals=totals)
    link = connect(server)
    data = b"".join(pieces)
    for cut in [*cuts, len(data)]:
        link.send(data[:cut])
        data = data[cut:]
        server.pump(link)
    link.finish()
    server.pump(link)
    said = b""
    while piece := link.receive():
        said += piece
        server.pump(link)
    assert link.connection.reason is not Reason.ERROR
    if b"text/event-stream" in said:
        # It goes on.
        link.connection.abort(Reason.DRAIN)
        server.pump(link)
        return
    assert piece == b""
    # HEAD has a length, and no body.
    if b"HEAD" not in b"".join(pieces):
        for asked in parseAll(said):
            assert asked.code in (200, 400, 403, 404, 405, 413, 417, 421, 431)
    link.advance(1.0)
    link.close()
    link.advance(1.0)
    assert link.gone
