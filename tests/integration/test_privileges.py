"""``twistd --uid --gid``: low ports are bound first, everything else happens after (issue 5)."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.daemon import MODULE, TWISTD, Daemon, exchange, run, waitFor
from tests.integration.peers import connect

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def statusOf(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def freeLowPort() -> int:
    """One below 1024 that nobody has."""
    listening = subprocess.run(["ss", "-Hltun"], capture_output=True, text=True, check=False).stdout
    taken = {int(port) for port in re.findall(r":(\d+) ", listening)}
    return next(port for port in range(900, 1000) if port not in taken)


def test_lowPortsAndNoPrivileges(tmp_path: Path) -> None:
    """Ports below 1024, TCP and UDP, are served by a process with no rights of root's left."""
    user = nobody()
    port = freeLowPort()
    tmp_path.chmod(0o777)
    command = [TWISTD[0], "-n", "--pidfile=", f"--uid={user.pw_uid}", f"--gid={user.pw_gid}"]
    arguments = ["echod", "--port", str(port), "--udp-port", str(port)]
    with Daemon(*arguments, command=command, cwd=tmp_path) as daemon:
        assert exchange(connect(daemon), b"hello") == b"hello"
        status = statusOf(daemon.pid)
        assert status["Uid"].split() == [str(user.pw_uid)] * 4
        assert status["Gid"].split() == [str(user.pw_gid)] * 4
        # Supplementary groups: the user's own at most, none of root's.
        assert set(status["Groups"].split()) <= {str(user.pw_gid)}
        for kind in ("CapEff", "CapPrm", "CapAmb"):
            assert int(status[kind], 16) == 0
        assert daemon.stop() == 0


def test_gidAlone(tmp_path: Path) -> None:
    """TRAPS 7.5: with a group alone Twisted keeps root's other groups; they are gone."""
    user = nobody()
    tmp_path.chmod(0o777)
    command = [TWISTD[0], "-n", "--pidfile=", f"--gid={user.pw_gid}"]
    process = subprocess.Popen(
        [*command, "echod", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        extra_groups=[0, 4, 27],
    )
    try:
        assert process.stdout is not None
        line = ""
        while "listening" not in line:
            line = process.stdout.readline()
            assert line
        waitFor(lambda: statusOf(process.pid)["Gid"].split()[0] == str(user.pw_gid))
        waitFor(lambda: set(statusOf(process.pid)["Groups"].split()) <= {str(user.pw_gid)})
    finally:
        process.terminate()
        process.communicate()


def test_whoMayWriteTheFile(tmp_path: Path) -> None:
    """A configuration that anybody may have written is not read; sticky folders are fine."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "echod.toml"
    file.write_text("drain_timeout = 1.0\n")

    def check() -> str:
        done = run("--config", str(file), "--check-config", command=MODULE)
        assert done.returncode == (1 if done.stderr else 0)
        return done.stderr

    assert check() == ""
    folder.chmod(0o777)
    assert check() == (
        f"echod: anybody may write to {folder}: chmod o-w it, or use another place\n"
    )
    folder.chmod(0o1777)
    assert check() == ""
    file.chmod(0o666)
    assert f"anybody may write to {file}: " in check()
