"""``twistd --uid --gid``: low ports are bound first, everything else happens after."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import MODULE, TWISTD, Daemon, exchange, waitFor
from tests.integration.loaded import runLoaded
from tests.integration.peers import connect, noise, ping

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")


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


@root
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


@root
def test_gidAlone(tmp_path: Path) -> None:
    """With a group alone Twisted keeps root's other groups; they are gone."""
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


@root
def test_whoMayWriteTheFile(tmp_path: Path) -> None:
    """A configuration that anybody may have written is not read; sticky folders are fine."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "echod.toml"
    file.write_text("drain_timeout = 1.0\n")

    def check() -> str:
        done = runLoaded("--config", str(file), "--check-config", command=MODULE)
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


# Becomes a command, with PR_SET_MDWE (prctl(2)): no memory of it is writable and executable.
_REFUSING = """
import ctypes, mmap, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit("no PR_SET_MDWE")
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_memoryDenyWriteExecute(tmp_path: Path, certificates: Certificates, version: str) -> None:
    """TLS, with a client's certificate too, in a process that may not make memory executable."""
    wrapper = [sys.executable, "-c", _REFUSING]
    if (
        "PR_SET_MDWE"
        in subprocess.run(
            [*wrapper, "/bin/true"], capture_output=True, text=True, check=False
        ).stderr
    ):
        pytest.skip("this kernel has no PR_SET_MDWE (6.3)")
    file = tmp_path / "echod.toml"
    file.write_text(
        '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:0"\n[listener.tls]\n'
        f'cert = "{certificates.server}"\nca = "{certificates.ca}"\nclient_auth = "require"\n'
        'alpn = ["echo"]\n'
    )
    context = certificates.context(version, certificates.client)
    context.set_alpn_protocols(["echo"])
    data = noise(100_000)
    with Daemon("--config", str(file), command=[*wrapper, *TWISTD]) as daemon:
        with context.wrap_socket(connect(daemon), server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "echo"
            ping(client, data)
            client.unwrap().close()
        assert daemon.stop() == 0
