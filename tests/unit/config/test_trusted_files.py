"""`echod.config.trusted_files`: whose files are believed, and which ways to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from echod.config import trusted_files
from echod.config.trusted_files import readTrusted
from echod.errors import ConfigurationError

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
#: Somebody else.
STRANGER = 54321


def refusal(path: Path | str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        readTrusted(str(path))
    return str(caught.value)


def writable(path: Path) -> str:
    return f"anybody may write to {path}: chmod o-w it, or use another place"


def strange(path: Path) -> str:
    return (
        f"{path} belongs to user {STRANGER}, neither root nor who runs echod: chown it,"
        " or use another place"
    )


class Tree:
    """``top/links/link`` leads over ``top/hop/on`` to ``top/data/deep/file``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.links, self.hop, self.data = (top / name for name in ("links", "hop", "data"))
        self.deep = self.data / "deep"
        for folder in (self.links, self.hop, self.deep):
            folder.mkdir(parents=True)
        self.file = self.deep / "file"
        self.file.write_bytes(b"text")
        self.link = self.links / "link"
        self.link.symlink_to("../hop/on/file")
        self.on = self.hop / "on"
        self.on.symlink_to(self.deep)

    @property
    def folders(self) -> list[Path]:
        return [self.top, self.links, self.hop, self.data, self.deep]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "top")


def test_everyFolderOnTheWay(tree: Tree) -> None:
    """Whoever may write a folder, of the file or of a link or above, may exchange what is in it."""
    assert readTrusted(str(tree.link)) == b"text"
    for path in (*tree.folders, tree.file):
        before = path.stat().st_mode
        path.chmod(0o707)
        assert refusal(tree.link) == writable(path)
        path.chmod(before)
    # What a group may do is its maker's affair.
    for path in (*tree.folders, tree.file):
        path.chmod(0o770)
    assert readTrusted(str(tree.link)) == b"text"


@root
def test_everyOwnerOnTheWay(tree: Tree) -> None:
    """Whoever owns one may change its mode."""
    for path in (*tree.folders, tree.file, tree.link, tree.on):
        os.chown(path, STRANGER, 0, follow_symlinks=False)
        assert refusal(tree.link) == strange(path)
        os.chown(path, 0, 0, follow_symlinks=False)
    assert readTrusted(str(tree.link)) == b"text"


@root
def test_stickyFolders(tree: Tree) -> None:
    """In one nobody replaces what belongs to others; what is a stranger's is believed nowhere."""
    for folder in tree.folders:
        folder.chmod(0o1777)
    assert readTrusted(str(tree.link)) == b"text"
    for path in (tree.links, tree.link, tree.on, tree.file):
        os.chown(path, STRANGER, 0, follow_symlinks=False)
        assert refusal(tree.link) == strange(path)
        os.chown(path, 0, 0, follow_symlinks=False)


def inAnotherProcess(code: str, path: Path) -> None:
    """Run code that has `readTrusted` print what is at the path, and believes whom it wants."""
    reading = "import os, sys; from echod.config.trusted_files import alsoBelieve, readTrusted;"
    command = [sys.executable, "-c", reading + code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("b'text'\n", "")


@root
def test_whoTheProcessIsGoingToBe(tree: Tree) -> None:
    """``--uid``: what a reload will have to read is theirs; root's stays root's."""
    for path in (tree.links, tree.link, tree.file):
        os.chown(path, STRANGER, 0, follow_symlinks=False)
    assert refusal(tree.link) == strange(tree.links)
    inAnotherProcess(f"alsoBelieve({STRANGER}); print(readTrusted(sys.argv[1]))", tree.link)


@root
def test_afterPrivilegesWereDropped() -> None:
    """A reload believes root, whoever started it, and who runs it."""
    with TemporaryDirectory(dir="/tmp") as folder:
        tree = Tree(Path(folder))
        tree.top.chmod(0o711)
        for path in (tree.links, tree.link):
            os.chown(path, STRANGER, 0, follow_symlinks=False)
        inAnotherProcess(
            f"os.seteuid({STRANGER}); print(readTrusted(sys.argv[1])); os.seteuid(0)", tree.link
        )


def test_waysThatAreNone(tree: Tree) -> None:
    """Loops, files amid the way, and what is not there, in the kernel's words."""
    loop = tree.top / "loop"
    loop.symlink_to("loop")
    assert refusal(loop) == f"cannot read {loop}: Too many levels of symbolic links"
    assert refusal(tree.file / "more") == f"cannot read {tree.file}/more: Not a directory"
    assert refusal(tree.top / "no") == f"cannot read {tree.top}/no: No such file or directory"
    assert refusal(tree.top) == f"cannot read {tree.top}: Is a directory"
    assert refusal(f"{tree.on}/") == f"cannot read {tree.on}/: Is a directory"


def test_relativeWays(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the working directory; .. after a link is above the folder that it leads to."""
    monkeypatch.chdir(tree.links)
    other = tree.data / "other"
    other.write_bytes(b"other")
    for path in ("link", "./link", "..//hop/on/./file", "../hop/on/../deep/file"):
        assert readTrusted(path) == b"text"
    assert readTrusted("../hop/on/../other") == b"other"
    assert readTrusted(f"{tree.on}/../other") == b"other"


def test_handedDescriptors(tree: Tree) -> None:
    """A pipe, or a file that is open already, wherever it is: who started echod has chosen it."""
    reading = "from echod.config.trusted_files import readTrusted; print(readTrusted('/dev/stdin'))"
    tree.data.chmod(0o777)
    assert refusal(tree.file) == writable(tree.data)
    command = [sys.executable, "-c", reading]
    with tree.file.open() as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("b'text'\n", "")
    done = subprocess.run(command, input="text", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("b'text'\n", "")
    with tree.file.open("rb") as file:
        os.unlink(tree.file)
        assert readTrusted(f"/proc/self/fd/{file.fileno()}") == b"text"
    assert readTrusted("/dev/null") == b""


def test_namedPipe(tree: Tree) -> None:
    """As a file: who may write it may configure us."""
    pipe = tree.top / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o602)
    assert refusal(pipe) == writable(pipe)
    pipe.chmod(0o600)
    with subprocess.Popen(["sh", "-c", f"echo text > {pipe}"]):
        assert readTrusted(str(pipe)) == b"text\n"


@root
def test_unmappedOwners(tree: Tree) -> None:
    """In a user namespace whatever is not mapped seems one user's, root's own files as well."""
    command = [
        sys.executable,
        "-c",
        "from echod.config.trusted_files import _believed; print(sorted(_believed))",
    ]
    unshare = ["unshare", "--user"]
    done = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no user namespaces: {done.stderr.strip()}")
    done = subprocess.run([*unshare, *command], capture_output=True, text=True, check=False)
    overflow = Path("/proc/sys/kernel/overflowuid").read_text().strip()
    assert (done.stdout, done.stderr) == (f"[0, {overflow}]\n", "")
    assert trusted_files._believed >= {0}
