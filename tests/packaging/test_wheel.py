"""
What is installed is what was tested: the wheel, from a build to an echo and back.

Each environment is fresh and the source is a copy, so that nothing of the checkout helps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.integration.daemon import Daemon, exchange

CHECKOUT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
VERSION: str = PROJECT["project"]["version"]
PLUGIN = "twisted/plugins/echod_plugin.py"

#: Seconds for a build or an installation, which fetch packages.
FETCHING = 180.0
#: Seconds for a command that fetches nothing.
LOCAL = 60.0

slow = pytest.mark.slow
minutes = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def bytecode() -> Iterator[None]:
    """What the first command of an environment has compiled is there for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


def run(*command: str | Path, cwd: Path, timeout: float = LOCAL) -> str:
    """Run to the end, within a deadline; returns standard output, shows all of it on failure."""
    done = subprocess.run(
        command,
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copySource(target: Path) -> Path:
    """Copy what belongs to the project, by the source distribution's own list."""
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    target.mkdir()
    for name in ["pyproject.toml", *(path.lstrip("/") for path in listed)]:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target / name)
    return target


def makeEnvironment(target: Path, *install: str | Path) -> Path:
    """
    Install into a fresh virtual environment; returns the directory of its commands.

    Our pip does it, with nothing compiled beforehand: a third of the processor time.
    """
    run(sys.executable, "-m", "venv", "--without-pip", target, cwd=target.parent)
    commands = target / "bin"
    pip = (sys.executable, "-m", "pip", "--python", commands / "python")
    run(
        *pip,
        *("install", "--quiet", "--no-compile"),
        *install,
        cwd=target.parent,
        timeout=FETCHING,
    )
    return commands


def twistdCommands(commands: Path, cwd: Path) -> list[str]:
    """The subcommands that ``twistd --help`` lists."""
    _, _, listed = run(commands / "twistd", "--help", cwd=cwd).partition("\nCommands:\n")
    return re.findall(r"^ {4}(\w\S*)", listed, re.MULTILINE)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a source distribution, and the wheel built from that."""
    directory = tmp_path_factory.mktemp("build")
    source = copySource(directory / "source")
    out = directory / "dist"
    run(
        *(sys.executable, "-m", "build", "--outdir", out, source),
        cwd=directory,
        timeout=FETCHING,
    )
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    """The one wheel."""
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel and what it requires, no more."""
    return makeEnvironment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def metadataOf(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


@slow
@minutes
def test_wheelContents(wheel: Path) -> None:
    """
    The wheel has the package, its type marker and the twistd plugin, and neither tests nor
    anything else of Twisted's package: a `twisted/plugins/__init__.py` would hide the
    plugins of others.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"twisted_echod-{VERSION}.dist-info"
    modules = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "echod").rglob("*")
        if path.suffix == ".py"
    }
    outside = {name for name in names if not name.startswith(f"{info}/")}
    assert outside == modules | {"echod/py.typed", PLUGIN}
    assert f"{info}/licenses/LICENSE" in names


@slow
@minutes
def test_metadata(wheel: Path) -> None:
    """The distribution is `twisted-echod`, and takes the Twisted whose private parts it knows."""
    metadata = metadataOf(wheel)
    assert metadata["Name"] == "twisted-echod"
    assert metadata["Version"] == VERSION
    requirements = {
        requirement.name.lower(): requirement
        for requirement in map(Requirement, metadata.get_all("Requires-Dist", []))
        if requirement.marker is None
    }
    # Without the extra "tls": the reactor imports pyOpenSSL wherever it finds it, which echod
    # never uses.
    assert requirements["twisted"].extras == set()
    assert requirements["twisted"].specifier == SpecifierSet(">=26.10,<27")


@slow
@minutes
def test_sourceDistribution(distributions: Path) -> None:
    """The source distribution has what builds, tests and explains the project, no leftovers."""
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert path.name == f"twisted_echod-{VERSION}.tar.gz"
    expected = {
        *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
        *("echod/py.typed", "twisted_plugins/echod_plugin.py", "tests/conftest.py"),
    }
    assert expected <= names
    assert not [name for name in names if "__pycache__" in name or ".venv" in name]


@slow
@minutes
def test_twistdListsTheInstalledCommand(installed: Path, tmp_path: Path) -> None:
    """Once the wheel is installed, `twistd --help` lists `echod`."""
    assert "echod" in twistdCommands(installed, tmp_path)


@slow
@minutes
def test_installedDaemonEchoes(installed: Path, tmp_path: Path) -> None:
    """
    E1, O1, O6: the installed `twistd echod` says where it listens, returns every byte and the FIN
    and ends with status 0 on SIGTERM; it leaves no file behind.
    """
    command = [str(installed / "twistd"), "-n", "--pidfile=", "echod"]
    data = os.urandom(300_000)
    with Daemon("--port", "0", command=command, cwd=tmp_path) as daemon:
        daemon.waitForLine("listening raw tcp 127.0.0.1:")
        assert exchange(daemon.connect(), data) == data
        assert daemon.stop() == 0
    assert list(tmp_path.iterdir()) == []


@slow
@minutes
def test_installedModuleTellsItsVersion(installed: Path, tmp_path: Path) -> None:
    """`echod --version`, also as `python -m echod`, tells the version of the distribution."""
    for command in ([installed / "echod"], [installed / "python", "-m", "echod"]):
        assert run(*command, "--version", cwd=tmp_path) == f"echod {VERSION}\n"


@slow
@minutes
def test_installedCommandServes(installed: Path, tmp_path: Path) -> None:
    """The command `echod` serves as `twistd echod` does, and asks itself whether it does."""
    command = [str(installed / "echod")]
    with Daemon("--port", "0", command=command, cwd=tmp_path) as daemon:
        place = f"tcp:{daemon.ports['raw']}"
        assert run(installed / "echod", "check", place, cwd=tmp_path).startswith("ok raw tcp ")
        assert daemon.stop() == 0
    assert "raw  " in run(installed / "echod", "protocols", cwd=tmp_path)


@slow
@minutes
def test_thirdParty(wheel: Path, tmp_path: Path) -> None:
    """
    A protocol of another distribution is built, installed beside echod, listed with its
    version, served by `twistd`, and passes its own tests, which use the conformance kit.
    """
    source = tmp_path / "echod-rot13"
    shutil.copytree(
        CHECKOUT / "examples" / "echod-rot13",
        source,
        ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"),
    )
    run(
        *(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source),
        cwd=tmp_path,
        timeout=FETCHING,
    )
    (rot13,) = (tmp_path / "dist").glob("*.whl")
    commands = makeEnvironment(tmp_path / "venv", wheel, f"{rot13}[test]")
    listed = run(commands / "python", "-m", "echod", "--list-protocols", cwd=tmp_path)
    assert "rot13  each letter is moved by thirteen  (echod-rot13 1.0)" in listed.splitlines()
    command = [str(commands / "twistd"), "-n", "--pidfile=", "echod"]
    arguments = ["--listen", "rot13=tcp:0", "--listen", "rot13-lines=tcp:0"]
    arguments += ["--listen", "rot13-twisted=tcp:0", "--option", "rot13-lines.prefix=> "]
    with Daemon(*arguments, command=command, cwd=tmp_path) as daemon:
        for name, answer in (
            ("rot13", b"Uryyb\n"),
            ("rot13-lines", b"> Uryyb\n"),
            ("rot13-twisted", b"Uryyb\n"),
        ):
            assert exchange(daemon.connect(name), b"Hello\n") == answer
        port = daemon.ports["rot13-twisted"]
        daemon.waitForLine(f"listening rot13-twisted tcp 127.0.0.1:{port} (no half-close)")
        assert daemon.stop() == 0
    summary = run(commands / "python", "-m", "pytest", "-q", source / "tests", cwd=source)
    assert re.search(r"^5 passed", summary, re.MULTILINE)


@slow
@minutes
def test_editableInstallation(tmp_path: Path) -> None:
    """`pip install -e .` makes `twistd` list `echod` too, and serves it from the source."""
    source = copySource(tmp_path / "source")
    commands = makeEnvironment(tmp_path / "venv", "-e", source)
    assert "echod" in twistdCommands(commands, tmp_path)
    where = run(commands / "python", "-c", "import echod; print(echod.__file__)", cwd=tmp_path)
    assert Path(where.strip()) == source / "echod" / "__init__.py"


def test_pluginImportsNothing(tmp_path: Path) -> None:
    """
    To look for plugins is to import this module, in every `twistd` command: neither a
    reactor, which would take the choice from `--reactor`, nor echod comes with it.
    """
    program = (
        "import sys\n"
        "import twisted.plugins.echod_plugin\n"
        "assert twisted.plugins.echod_plugin.echod.tapname == 'echod'\n"
        "print(*sys.modules, sep='\\n')\n"
    )
    modules = run(sys.executable, "-c", program, cwd=tmp_path).splitlines()
    assert PLUGIN.removesuffix(".py").replace("/", ".") in modules
    unwanted = re.compile(r"echod\b|twisted\.internet\.\w*reactor$")
    assert list(filter(unwanted.match, modules)) == []
