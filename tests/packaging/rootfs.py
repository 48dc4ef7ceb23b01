"""
A root file system with a Python in it, for building images where no registry can be reached.

The Python is that of the tests, moved to ``/usr/local`` as in Python's official images: without
bytecode, as they are, and with pip.  Besides, there is a shell and what both are linked with, and
the wheels that the project is built and run with: how pip reaches an index (variables, authorities,
a proxy) is the machine's business, and no image has it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pip

__all__ = ["WHEELS", "makeRoot"]

#: Where the wheels are: ``PIP_FIND_LINKS``, with ``PIP_NO_INDEX``.
WHEELS = "/wheels"

_LEFT_OUT = (
    *("__pycache__", "site-packages", "dist-packages", "test", "tests", "config-*", "*.a"),
    *("ensurepip", "idlelib", "tkinter", "turtledemo"),
)
#: Of the C library and the compiler; what wheels may be linked with (PEP 600), besides.
_LIBRARIES = re.compile(r"lib(c|m|dl|rt|util|pthread|resolv|gcc_s|stdc\+\+)\.so\.\d+$")


def makeRoot(root: Path, checkout: Path) -> None:
    """
    Make it in ``root``, which is not there yet.

    :param checkout: the project's, for what its ``pyproject.toml`` requires.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = root / "usr/local/lib" / version
    shutil.copytree(
        sysconfig.get_path("stdlib"), library, ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )
    # Beside the standard library: some distributions look for no site-packages there.
    shutil.copytree(
        Path(pip.__file__).parent, library / "pip", ignore=shutil.ignore_patterns("__pycache__")
    )
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # that of venvs
    commands = root / "usr/local/bin"
    commands.mkdir(parents=True)
    shutil.copy2(interpreter, commands / version)
    for name in ("python", "python3"):
        (commands / name).symlink_to(version)
    shell = Path("/bin/sh").resolve()
    (root / "bin").mkdir()
    shutil.copy2(shell, root / "bin/sh")
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    libraries = {path for path in re.findall(r"=> (/\S+)", known.stdout) if _LIBRARIES.search(path)}
    for linked in (interpreter, shell, *(library / "lib-dynload").glob("*.so")):
        told = subprocess.run(["ldd", linked], capture_output=True, text=True, check=False)
        libraries.update(re.findall(r"(/\S+) \(0x", told.stdout))
    for path in libraries:
        # The interpreter has been moved; where it looked for its own library is not there.
        place = f"/usr/local/lib/{Path(path).name}" if "/libpython" in path else path
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(path).resolve(), target)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    subprocess.run(["/sbin/ldconfig", "-r", str(root)], check=True)
    for name in ("dev", "proc", "sys", "tmp"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    required = tomllib.loads((checkout / "pyproject.toml").read_text())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:"),
            *("-d", root / WHEELS.lstrip("/")),
            *required["build-system"]["requires"],
            *required["project"]["dependencies"],
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
