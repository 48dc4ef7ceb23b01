"""Files that the daemon believes: read only where nobody else may have written them."""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from errno import ELOOP
from pathlib import Path

from echod.errors import ConfigurationError

__all__ = ["alsoBelieve", "anybodyReads", "checkEncoding", "readTrusted"]

#: Links that may be on the way to a file, as Linux has it (path_resolution(7)).
LINKS = 40
#: How many users there are where all are mapped: 32 bits less one (user_namespaces(7)).
_ALL_USERS = 0xFFFFFFFF


def _unmapped() -> set[int]:
    """
    The user that owns, as it seems, what belongs to nobody in this user namespace.

    There root's own files may be among them (user_namespaces(7)), so they are believed.
    """
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        if sum(int(line.split()[2]) for line in lines) < _ALL_USERS:
            return {int(Path("/proc/sys/kernel/overflowuid").read_text())}
    except OSError:
        # No /proc: then it is no container's.
        pass
    return set()


# Whose files are believed: root's, and those of whom echod was started as.
_believed = {0, os.geteuid()} | _unmapped()


def alsoBelieve(user: int) -> None:
    """Believe the files of another user too: of whom the process is going to be."""
    _believed.add(user)


def readTrusted(path: str) -> bytes:
    """
    What is in a file that nobody else may have put there.

    The file, and every folder and link on the way to it, must belong to root, to the user that
    echod runs as, or to the one that it was started as; and not everybody may write to them.  Two
    kinds of folder are fine although everybody may: a sticky one, such as /tmp, where nobody can
    replace what belongs to others, and one that is mounted read-only, as Kubernetes mounts a
    ConfigMap.  What a group may do is up to whoever made it one.

    A descriptor that was handed to the process, as ``/dev/stdin`` or ``/dev/fd/3``, is read
    whatever way may lead to its file.

    :raises ConfigurationError: it cannot be read, or somebody else may have written it.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def checkEncoding(path: str, data: bytes) -> None:
    """
    Look at how a file begins.

    :raises ConfigurationError: Windows has saved it as UTF-16 (RFC 3629 section 6: UTF-8 it is).
    """
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ConfigurationError(f"{path}: UTF-16, by its byte order mark: save it as UTF-8")


def anybodyReads(path: str) -> bool:
    """Whether every user of the system may read it."""
    return bool(Path(path).stat().st_mode & stat.S_IROTH)


def _open(path: str, flags: int) -> int:
    """
    Open a file, having looked at each step of the way before the next is taken from there.

    So nobody but those who are believed can exchange anything meanwhile.
    """
    # As it stands: what .. is after a link, its text does not say.
    steps = _steps(path)
    if not path.startswith("/"):
        steps += _steps(os.getcwd())  # noqa: PTH109  # text
    # Without links.
    place = Path("/")
    _check(place)
    links = 0
    while steps:
        name = steps.pop()
        ahead = place.parent if name == ".." else place / name
        if not stat.S_ISLNK(_check(ahead)):
            place = ahead
            continue
        if not steps and _isDescriptor(ahead):
            return os.open(ahead, flags)
        links += 1
        if links > LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP))
        target = str(ahead.readlink())
        steps += _steps(target)
        if target.startswith("/"):
            place = Path("/")
    return os.open(place, flags | os.O_NOFOLLOW)


def _steps(path: str) -> list[str]:
    """The names in it, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _isDescriptor(link: Path) -> bool:
    """Whether it is the kernel's name for an open descriptor (proc_pid_fd(5))."""
    try:
        return link.lstat().st_dev == os.stat("/proc").st_dev  # noqa: PTH116  # as its sibling
    except FileNotFoundError:
        return False


def _check(path: Path) -> int:
    """
    Look at one step; its mode.

    :raises ConfigurationError: somebody else may exchange what is there.
    """
    found = path.lstat()
    mode = found.st_mode
    if found.st_uid not in {os.geteuid(), *_believed}:
        raise ConfigurationError(
            f"{path} belongs to user {found.st_uid}, neither root nor who runs echod: chown it,"
            " or use another place"
        )
    # The mode of a link means nothing, and a device is nobody's text.
    written = stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISDIR(mode)
    if (
        written
        and mode & stat.S_IWOTH
        and not (stat.S_ISDIR(mode) and (mode & stat.S_ISVTX or _isReadOnly(path)))
    ):
        raise ConfigurationError(f"anybody may write to {path}: chmod o-w it, or use another place")
    return mode


def _isReadOnly(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
