"""`echod.server.certificate_watch`: who expires soon is told at once, and daily."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from echod.server.certificate_watch import DAY, CertificateWatch
from tests.chains import Issued
from tests.unit.conftest import LogLines
from tests.unit.reloading import Reloading, planOf


class Watched:
    """A watch over the listeners of a plan, whose days are the test's."""

    def __init__(self, *files: str) -> None:
        self._served = Reloading()
        tables: list[dict[str, Any]] = [{"tls": {"cert": file}} for file in files] or [{}]
        plan = planOf(self._served.registry, *(("raw", "tcp:0", table) for table in tables))
        self._served.startWith(plan)
        self.clock = Clock()
        self._began = time.time()
        self.watch = CertificateWatch(lambda: self._served.service.listeners, self.clock, self._now)

    def _now(self) -> float:
        return self._began + self.clock.seconds()

    def stop(self) -> None:
        """Serve no more."""
        self._served.stop()


def warned(logLines: LogLines) -> list[str]:
    """What the lines say of certificates, without the listener and the time."""
    found = [line for line in logLines.warnings if line.startswith("certificate ")]
    return [re.sub(r" of raw tcp \S+ \(tls\)| at 20\S+Z", "", line) for line in found]


def test_daily(tmp_path: Path, logLines: LogLines) -> None:
    """From two weeks before its end, at each look; a day after each comes another one."""
    soon = Issued("soon", days=(-1, 15.52)).write(tmp_path / "soon.pem")
    late = Issued("late", days=(-1, 99)).write(tmp_path / "late.pem")
    watched = Watched(late, soon)
    before = len(warned(logLines))
    watched.watch.look()
    assert warned(logLines)[before:] == []
    watched.clock.advance(DAY - 1)
    assert warned(logLines)[before:] == []
    watched.clock.advance(DAY + 1)
    assert warned(logLines)[before:] == [
        f"certificate {soon} expires, in 13 days: renew it, and reload"
    ]
    for _ in range(13):
        watched.clock.advance(DAY)
    assert warned(logLines)[-2:] == [
        f"certificate {soon} expires, in {left}: renew it, and reload"
        for left in ("36 hours", "12 hours")
    ]
    watched.clock.advance(DAY)
    assert warned(logLines)[-1] == f"certificate {soon} has expired: renew it, and reload"
    count = len(warned(logLines))
    assert len(watched.clock.getDelayedCalls()) == 1
    watched.watch.look()
    assert len(watched.clock.getDelayedCalls()) == 1
    watched.watch.stop()
    watched.watch.stop()
    assert watched.clock.getDelayedCalls() == []
    assert len(warned(logLines)) == count + 1
    watched.stop()


def test_nothingToLookAt(logLines: LogLines) -> None:
    """Without certificates there is no timer."""
    watched = Watched()
    watched.watch.look()
    assert watched.clock.getDelayedCalls() == []
    watched.stop()


def test_ofAService(tmp_path: Path, logLines: LogLines) -> None:
    """At the start, and at each reload; a certificate that was renewed is told with its end."""
    path = tmp_path / "cert.pem"
    old, new = Issued("old", days=(-1, 5)), Issued("new", days=(-1, 99))
    old.write(path)
    table = {"tls": {"cert": str(path)}}
    served = Reloading()
    served.start(("raw", "tcp:0", table))
    assert warned(logLines) == [f"certificate {path} expires, in 4 days: renew it, and reload"]
    served.reload(("raw", "tcp:0", table))
    assert len(warned(logLines)) == 2
    assert not [line for line in logLines.lines if line.startswith(("renewed ", "changed "))]
    (listener,) = served.service.listeners
    new.write(path)
    served.reload(("raw", "tcp:0", table))
    assert served.service.listeners == [listener]
    (line,) = [line for line in logLines.lines if line.startswith("renewed ")]
    (expiry,) = listener.plan.expiries
    assert line == f"renewed {listener.describe()}: certificate {path} expires at {expiry.until}"
    assert expiry.until == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expiry.notAfter))
    assert len(warned(logLines)) == 2
    served.stop()
    assert [call for call in served.loop.getDelayedCalls() if call.getTime() > DAY / 2] == []


@pytest.mark.parametrize("names", [["a.example"], ["b.example", "A.example"]])
def test_namesOfOthers(tmp_path: Path, logLines: LogLines, names: list[str]) -> None:
    """Certificates for other names are told likewise; one that is new is no renewed one."""
    own = Issued("own", days=(-1, 99)).write(tmp_path / "own.pem")
    path = tmp_path / "other.pem"
    served = Reloading()

    def table(which: list[str]) -> dict[str, Any]:
        others = {name: {"cert": str(path)} for name in which}
        return {"tls": {"cert": own, "names": others}}

    Issued("before", days=(-1, 99)).write(path)
    served.start(("raw", "tcp:0", table(["a.example"])))
    Issued("after", days=(-1, 99)).write(path)
    served.reload(("raw", "tcp:0", table(names)))
    assert len([line for line in logLines.lines if line.startswith("renewed ")]) == 1
    changed = [line for line in logLines.lines if line.startswith("changed ")]
    assert [line.rpartition(": ")[2] for line in changed] == ["tls.names"] * (len(names) - 1)
    served.stop()
