"""
The ways to write a protocol: what a plugin imports, and echod's own protocols too.

In the order of how little has to be known: a coroutine (`StreamMaker`, `Stream`), a framing and a
function (`MessageMaker`), an ordinary Twisted factory (`FactoryMaker`), a subclass of `Connection`
(`ConnectionMaker`); `DatagramMaker` is for datagrams.  docs/writing-a-protocol.md shows each.

It may know `echod.connection`, `echod.wire` and the contracts.  It is public (docs/api.md).
"""

from echod.connection.connection import Connection
from echod.connection.flow import SLICE
from echod.connection.states import Reason, State
from echod.kit.coroutine import StreamConnection
from echod.kit.framed import FramedConnection
from echod.kit.makers import (
    BothMaker,
    ConnectionFactory,
    ConnectionMaker,
    DatagramMaker,
    FactoryMaker,
    MessageMaker,
    StreamMaker,
)
from echod.kit.messages import AnsweringConnection
from echod.kit.protocol_options import ProtocolOptions
from echod.kit.stream import Stream
from echod.transports.datagram_facts import DatagramFacts

__all__ = [
    "SLICE",
    "AnsweringConnection",
    "BothMaker",
    "Connection",
    "ConnectionFactory",
    "ConnectionMaker",
    "DatagramFacts",
    "DatagramMaker",
    "FactoryMaker",
    "FramedConnection",
    "MessageMaker",
    "ProtocolOptions",
    "Reason",
    "State",
    "Stream",
    "StreamConnection",
    "StreamMaker",
]
