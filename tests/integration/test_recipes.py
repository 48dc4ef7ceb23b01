"""What docs/operations.md has for curl and jq, run as it stands there against a daemon."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from echod.testing.admin_client import AdminClient
from tests.certificates import Certificates
from tests.documentation.code_blocks import codeBlocks
from tests.integration.daemon import PATIENCE, Daemon, waitFor
from tests.integration.peers import configured, needs

ROOT = Path(__file__).parents[2]
SECTION = re.search(
    r"^## Ask a running daemon$(.*?)^## ",
    (ROOT / "docs" / "operations.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
LISTENERS = ["raw", "upper", "line", "admin"]
#: Of the page.
SOCKET, CLIENT, ID = "/run/echod/admin.sock", "192.0.2.7", "k4x2mq9d-1f"

pytestmark = [needs("jq"), needs("curl")]


def recipes() -> tuple[str, dict[str, str]]:
    """What all of them use, and each by the question in its first line."""
    assert SECTION is not None
    function, *blocks = codeBlocks("sh", SECTION[1])
    return function, {block.partition("?")[0].removeprefix("# "): block for block in blocks}


FUNCTION, RECIPES = recipes()


class Asked:
    """A daemon with clients of each kind, and the page's questions to it."""

    def __init__(self, stack: ExitStack, folder: Path, certificates: Certificates) -> None:
        self.path = str(folder / "admin.sock")
        tls = {"cert": certificates.server}
        config = configured(
            folder,
            {"protocol": "raw", "endpoint": "tcp:0", "deny": ["127.0.0.3"]},
            {"protocol": "upper", "endpoint": "tcp:0", "stall_timeout": 1.0},
            {"protocol": "line", "endpoint": "tcp:0", "tls": tls},
            {"protocol": "admin", "endpoint": f"unix:{self.path}:mode=600"},
        )
        self.daemon = stack.enter_context(Daemon(config))
        self.certificate = str(certificates.server)
        self._stack = stack
        admin = AdminClient(self.path, PATIENCE, 1.0)
        with self.connect("127.0.0.3") as denied:
            assert denied.recv(1) == b""
        self.fill(self.connect("127.0.0.4", "upper"))
        waitFor(lambda: admin.settled(1)["stalls"], "the end of one that does not read")
        self.fill(self.connect("127.0.0.5"))
        self.slow = self.owed(admin, "127.0.0.5")
        self.connect("127.0.0.2")
        waitFor(lambda: admin.settled(0)["open"] == 2, "all clients")

    def connect(self, source: str, protocol: str = "raw") -> socket.socket:
        """A client with this address."""
        client = socket.create_connection(
            ("127.0.0.1", self.daemon.ports[protocol]), PATIENCE, (source, 0)
        )
        return self._stack.enter_context(client)

    def fill(self, client: socket.socket) -> None:
        """Send until the daemon has nowhere to put its answers."""
        client.settimeout(0.5)
        with suppress(TimeoutError, ConnectionError):
            while True:
                client.send(b"a\n" * (1 << 19))

    def owed(self, admin: AdminClient, source: str) -> str:
        """The id of the client with this address, once bytes wait for it."""

        def found() -> str:
            rows = admin.ask("/connections")["connections"]
            ids = [row["id"] for row in rows if source in row["peer"] and row["unsent"]]
            return ids[0] if ids else ""

        return waitFor(found, "bytes that wait")

    def run(self, recipe: str) -> list[list[str]]:
        """What the page's commands say, in words."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{FUNCTION.replace(SOCKET, self.path)}\n{recipe}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Asked]:
    with ExitStack() as stack:
        yield Asked(stack, tmp_path_factory.mktemp("recipes"), certificates)


def _who(asked: Asked, said: list[list[str]]) -> bool:
    return ["1", "127.0.0.2"] in said and ["1", "127.0.0.5"] in said


def _slow(asked: Asked, said: list[list[str]]) -> bool:
    return any(int(unsent) > 0 and each == asked.slow for unsent, _, each in said)


def _idle(asked: Asked, said: list[list[str]]) -> bool:
    return any(float(idle) > 0 and peer.startswith("127.0.0.2:") for idle, peer, _ in said)


def _ended(asked: Asked, said: list[list[str]]) -> bool:
    ((_, _, *rest, owed),) = said
    return rest == ["stalled", "abort", "us"] and int(owed) > 0


def _cut(asked: Asked, said: list[list[str]]) -> bool:
    ((peer, reason, owed, _),) = said
    return peer.startswith("127.0.0.4:") and reason == "stalled" and int(owed) > 0


def _refused(asked: Asked, said: list[list[str]]) -> bool:
    return said == [["1", "denied", "127.0.0.3"]]


def _bytes(asked: Asked, said: list[list[str]]) -> bool:
    return int(said[0][-1]) > 0 and [line[0] for line in said] == LISTENERS


def _rate(asked: Asked, said: list[list[str]]) -> bool:
    # The answers about themselves.
    return [line[0] for line in said] == LISTENERS and int(said[-1][-1]) > 0


def _certificate(asked: Asked, said: list[list[str]]) -> bool:
    ((notAfter, path, *listener),) = said
    return notAfter.endswith("Z") and path == asked.certificate and listener[0] == "line"


def _story(asked: Asked, said: list[list[str]]) -> bool:
    events = [line[1] for line in said]
    return events[:4] == ["open", "first", "read", "write"] and "pause" in events


def _reload(asked: Asked, said: list[list[str]]) -> bool:
    return said == []


#: What each is to say.
EXPECTED: dict[str, Callable[[Asked, list[list[str]]], bool]] = {
    "How many are connected, from where": _who,
    "Who reads slowest": _slow,
    "Who has been idle for more than five minutes": _idle,
    "How did the connections of this client end": _ended,
    "Whom has echod cut off within the last ten minutes, with bytes still owed": _cut,
    "Who was turned away of late, and by which limit": _refused,
    "How much has gone through each listener": _bytes,
    "How much goes through each listener just now": _rate,
    "Which certificate expires first": _certificate,
    "What happened to this connection": _story,
    "Why was the last reload refused": _reload,
}


def test_all() -> None:
    """Each recipe of the page is run here."""
    assert list(RECIPES) == list(EXPECTED)
    assert SOCKET in FUNCTION


@pytest.mark.parametrize("question", EXPECTED)
def test_recipe(asked: Asked, question: str) -> None:
    recipe = RECIPES[question].replace(CLIENT, "127.0.0.4").replace(ID, asked.slow)
    recipe = recipe.replace(".idle > 300", ".idle > 0")
    waitFor(lambda: EXPECTED[question](asked, asked.run(recipe)), "the answer")


def test_packages() -> None:
    """CI installs what CONTRIBUTING.md tells to install."""

    def packages(text: str) -> set[str]:
        found = re.search(r"apt-get install((?: -\S+)*)((?:[\s\\]+[a-z0-9-]+)+)", text)
        assert found is not None
        return set(re.findall(r"[a-z][a-z0-9-]+", found[2]))

    told = packages((ROOT / "CONTRIBUTING.md").read_text())
    assert "jq" in told
    assert told == packages((ROOT / ".ci" / "run").read_text())
