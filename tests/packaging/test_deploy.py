"""What is in ``deploy``: checked by the tools of its kind, and run as far as can be."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import MODULE, Daemon, run, waitFor
from tests.integration.namespaces import namespace, needsRoot
from tests.packaging.rootfs import WHEELS, makeRoot

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
CONTAINERFILE = DEPLOY / "container/Containerfile"

minutes = pytest.mark.timeout(600)

#: What the pod's own side of ``kubectl port-forward`` asks.
URL = "http://127.0.0.1:9707/health"


def tool(name: str, package: str) -> str:
    """A program of the environment's, or of the system's; the test is skipped without."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} ({package})")
    return found


def check(*command: str | Path) -> str:
    """Run a checker; it must find nothing wrong."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def listeners(configuration: str) -> list[tuple[str, str]]:
    """Protocol and endpoint of each."""
    tables = tomllib.loads(configuration)["listener"]
    return [(table["protocol"], table["endpoint"]) for table in tables]


# -- HAProxy ---------------------------------------------------------------------------------


def test_haproxy() -> None:
    """HAProxy takes its file without a warning."""
    said = check(tool("haproxy", "Debian: haproxy"), "-c", "-f", DEPLOY / "haproxy/haproxy.cfg")
    assert "warning" not in said.lower()


def test_haproxyAndEchod() -> None:
    """Each protocol and port of the balancer's is served, with a header from its address alone."""
    text = (DEPLOY / "haproxy/haproxy.cfg").read_text()
    balanced = re.findall(
        r"^listen (\w+)\n +bind \S+:(\d+)\n +server \w+ \S+:(\d+)", text, re.MULTILINE
    )
    configuration = (DEPLOY / "haproxy/echod.toml").read_text()
    served = listeners(configuration)
    assert [(protocol, f"tcp:{port}:interface=10.0.0.11") for protocol, _, port in balanced] == [
        each for each in served if each[0] != "health"
    ]
    (health,) = (endpoint for protocol, endpoint in served if protocol == "health")
    assert f"tcp-check connect port {health.split(':')[1]}\n" in text
    (source,) = re.findall(r"^ +source (\S+)$", text, re.MULTILINE)
    for table in tomllib.loads(configuration)["listener"]:
        assert table.get("proxy", table.get("allow")) == [f"{source}/32"]
    arguments = ("--check-config", "--config", str(DEPLOY / "haproxy/echod.toml"))
    done = run(*arguments, command=MODULE)
    assert (done.returncode, done.stderr) == (0, "")


def test_drainDelay() -> None:
    """It is longer than HAProxy takes to find out."""
    text = (DEPLOY / "haproxy/haproxy.cfg").read_text()
    inter, fast = (int(re.findall(rf" {word} (\d+)ms", text)[0]) for word in ("inter", "fastinter"))
    (timeout,) = re.findall(r"timeout check (\d+)s", text)
    delay = tomllib.loads((DEPLOY / "haproxy/echod.toml").read_text())["drain_delay"]
    assert (inter + fast) / 1000 + int(timeout) < delay


# -- Kubernetes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Any]:
    """What the manifests make, by kind and name."""
    yaml = pytest.importorskip("yaml", reason="there is no PyYAML (pip install -e '.[deploy]')")
    found = {}
    for path in MANIFESTS:
        for one in yaml.safe_load_all(path.read_text()):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


@pytest.fixture(scope="module")
def pod(objects: dict[tuple[str, str], Any]) -> Any:
    """The pods' template."""
    return objects["Deployment", "echod"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    """The one container of a pod."""
    (found,) = pod["containers"]
    return found


@pytest.fixture(scope="module")
def configuration(objects: dict[tuple[str, str], Any]) -> str:
    """``echod.toml``."""
    return str(objects["ConfigMap", "echod"]["data"]["echod.toml"])


def test_manifests() -> None:
    """Every object is what its kind's schema says, and no more."""
    command = tool("kubernetes-validate", "pip install -e '.[deploy]'")
    said = check(command, "--strict", *MANIFESTS)
    kinds = re.findall(r"passed for resource (\w+)/", said)
    assert sorted(kinds) == [
        *("configmap", "deployment", "horizontalpodautoscaler", "namespace", "networkpolicy"),
        *("poddisruptionbudget", "service", "service"),
    ]


def test_restricted(pod: Any, container: Any) -> None:
    """Pod Security's ``restricted``, and a root file system that is read-only."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    user = [pod["securityContext"][key] for key in ("runAsUser", "runAsGroup")]
    assert "USER {}:{}\n".format(*user) in CONTAINERFILE.read_text()


def test_ports(objects: dict[tuple[str, str], Any], container: Any, configuration: str) -> None:
    """What is served in a network is open, named, offered and let in; nothing else is."""
    served = {
        (kind.upper(), int(port))
        for _, endpoint in listeners(configuration)
        for kind, port in re.findall(r"^(tcp|udp):(\d+)", endpoint)
        if not endpoint.endswith(":interface=127.0.0.1")
    }
    opened = {
        each["name"]: (each["protocol"], each["containerPort"]) for each in container["ports"]
    }
    assert set(opened.values()) == served
    offered = {}
    for name in ("echod", "echod-udp"):
        for each in objects["Service", name]["spec"]["ports"]:
            assert opened[each["targetPort"]] == (each["protocol"], each["port"])
            offered[each["targetPort"]] = each
    assert set(offered) == set(opened)
    policy = objects["NetworkPolicy", "echod"]["spec"]
    (rule,) = policy["ingress"]
    assert {each["port"]: each["protocol"] for each in rule["ports"]} == {
        name: protocol for name, (protocol, _) in opened.items()
    }
    assert policy["egress"] == []


def test_labels(objects: dict[tuple[str, str], Any]) -> None:
    """All that selects pods selects these."""
    deployment = objects["Deployment", "echod"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert objects["PodDisruptionBudget", "echod"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy", "echod"]["spec"]["podSelector"]["matchLabels"] == labels
    for name in ("echod", "echod-udp"):
        assert objects["Service", name]["spec"]["selector"] == labels
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert all(each["labelSelector"]["matchLabels"] == labels for each in spread)
    others = [one for (kind, _), one in objects.items() if kind != "Namespace"]
    assert {one["metadata"]["namespace"] for one in others} == {"echod"}


def test_graceOfAPod(pod: Any, container: Any, configuration: str) -> None:
    """O1: SIGKILL comes after all that a pod's end may take."""
    echod = tomllib.loads(configuration)
    preStop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    taken = preStop + echod["drain_delay"] + echod["drain_timeout"]
    assert pod["terminationGracePeriodSeconds"] >= taken + 5


def test_probesHaveTime(container: Any) -> None:
    """They tell what they found before Kubernetes gives up on them."""
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        command = probe["exec"]["command"]
        assert float(command[command.index("--timeout") + 1]) < probe["timeoutSeconds"]


@needsRoot
def test_configMapAsMounted(configuration: str, tmp_path: Path) -> None:
    """
    A mounted ConfigMap: a folder that anybody might write, with links to one that nobody may.

    Kubernetes mounts it read-only; otherwise everybody could exchange the links.
    """
    volume = tmp_path / "etc"
    data = volume / "..2026_11_21_10_00_00.1"
    data.mkdir(parents=True)
    (data / "echod.toml").write_text(configuration)
    (data / "echod.toml").chmod(0o444)
    data.chmod(0o755)
    (volume / "..data").symlink_to(data.name)
    (volume / "echod.toml").symlink_to("..data/echod.toml")
    volume.chmod(0o777)
    arguments = ["--check-config", "--config", str(volume / "echod.toml")]
    done = run(*arguments, command=MODULE)
    why = f"anybody may write to {volume}: chmod o-w it, or use another place"
    assert (done.returncode, done.stderr) == (1, f"echod: {why}\n")
    mount = f'mount --bind {volume} {volume} && mount -o remount,ro,bind {volume} && exec "$0" "$@"'
    mounted = ["unshare", "--mount", "sh", "-c", mount, *MODULE]
    done = run(*arguments, command=mounted)
    if "mount" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "would listen raw tcp any:1234" in done.stdout


@needsRoot
def test_aPod(container: Any, configuration: str, tmp_path: Path) -> None:
    """
    Its command, its configuration and its probes, in a network of their own: ready and alive; full
    and yet alive; draining, and not ready.
    """
    file = tmp_path / "echod.toml"
    file.write_text(configuration)
    arguments = [each.replace("/etc/echod/echod.toml", str(file)) for each in container["args"]]

    def probe(name: str) -> subprocess.CompletedProcess[str]:
        command = container[f"{name}Probe"]["exec"]["command"]
        assert command[0] == "python"
        return run(*command[1:], command=[*prefix, sys.executable])

    with namespace() as prefix, Daemon(*arguments, command=[*prefix, *MODULE]) as daemon:
        for name in ("liveness", "readiness"):
            done = probe(name)
            assert done.returncode == 0, done.stderr
        for kind in ("raw", "line", "dns"):
            port = {"raw": "1234", "line": "1235", "dns": "1236"}[kind]
            done = run("check", "-p", kind, f"tcp:{port}", command=[*prefix, *MODULE])
            assert done.returncode == 0, done.stderr
        done = run("check", "udp:1234", command=[*prefix, *MODULE])
        assert done.returncode == 0, done.stderr
        asking = "from urllib.request import urlopen; print(urlopen(sys.argv[1]).read())"
        done = run("-c", f"import sys; {asking}", URL, command=[*prefix, sys.executable])
        assert (done.returncode, done.stdout) == (0, "b'ready\\n'\n"), done.stderr
        holding = "import socket, sys; c = socket.create_connection(('127.0.0.1', 1234));"
        holding += "c.sendall(b'x'); c.recv(1); print('held', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [*prefix, sys.executable, "-c", holding],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "held\n"
            daemon.signal(signal.SIGTERM)
            daemon.waitForLine("draining")
            waitFor(lambda: probe("readiness").returncode == 4, "not ready")
            client.communicate("")
        assert daemon.wait() == 0


# -- The image -------------------------------------------------------------------------------


def test_hadolint() -> None:
    """The Containerfile has no fault that is known of others."""
    assert check(tool("hadolint", "pip install -e '.[deploy]'"), CONTAINERFILE) == ""


class Storage:
    """Images in a folder: ``buildah`` without a registry, or anything of the machine's."""

    def __init__(self, command: str, folder: Path) -> None:
        places = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._command = [command, *places, "--storage-driver", "vfs"]

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Its root file system, to be read, and its configuration."""
    command = shutil.which("buildah")
    if command is None:
        pytest.skip("there is no buildah(1)")
    folder = tmp_path_factory.mktemp("image")
    makeRoot(folder / "root", CHECKOUT)
    buildah = Storage(command, folder)
    base = buildah("from", "scratch")
    mounted = buildah("mount", base)
    subprocess.run(["cp", "-a", f"{folder}/root/.", mounted], check=True)
    buildah("umount", base)
    variables = ["PATH=/usr/local/bin:/bin", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={WHEELS}"]
    buildah("config", *(f"--env={variable}" for variable in variables), base)
    buildah("commit", "--rm", base, "localhost/base")
    options = ["--isolation", "chroot", "--format", "docker", "--pull-never"]
    options += ["--build-arg", "BASE=localhost/base", "--file", str(CONTAINERFILE)]
    buildah("bud", *options, "--tag", "localhost/echod", ".", cwd=CHECKOUT)
    made = buildah("from", "--pull-never", "localhost/echod")
    facts = json.loads(buildah("inspect", made))["Docker"]["config"]
    yield Path(buildah("mount", made)), facts
    buildah("umount", made)
    buildah("rm", made)
    shutil.rmtree(folder)


class Container:
    """
    Runs commands as in a container of the image: its user and variables, nothing it could write to.

    :ivar daemon: its command as the image has it, to run a `Daemon`.
    """

    def __init__(self, root: Path, facts: dict[str, Any]) -> None:
        chroot = [str(shutil.which("chroot")), f"--userspec={facts['User']}", str(root)]
        self._inside = ["env", "-i", *facts["Env"], *chroot]
        bound = shlex.join(["mount", "--bind", str(root), str(root)])
        readOnly = shlex.join(["mount", "-o", "remount,bind,ro", str(root)])
        script = f'{bound} && {readOnly} && ip link set lo up && exec "$@"'
        self._apart = ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *self._inside]
        self.daemon = [*self._apart, *facts["Entrypoint"]]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in one of its own."""
        return run(*command, command=self._apart)

    def runBeside(self, pid: int, *command: str) -> subprocess.CompletedProcess[str]:
        """A command beside the process that runs there."""
        return run(*command, command=["nsenter", f"--target={pid}", "-n", "-m", *self._inside])


@pytest.fixture(scope="module")
def inImage(image: tuple[Path, dict[str, Any]]) -> Container:
    """See `Container`; skipped where there are no namespaces to be had."""
    found = Container(*image)
    done = found.run("python", "-c", "")
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"no namespaces of our own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return found


@needsRoot
@pytest.mark.slow
@minutes
def test_image(image: tuple[Path, dict[str, Any]], inImage: Container) -> None:
    """
    It is built; as a user that is nobody, on a root file system that is read-only, it serves; its
    HEALTHCHECK finds it well; SIGTERM ends it with status 0.
    """
    _, facts = image
    assert facts["User"] == "65532:65532"
    with Daemon(*facts["Cmd"], command=inImage.daemon) as daemon:
        assert daemon.ports == {"raw": 1234, "line": 1235, "dns": 1236, "health": 1237}
        kind, *command = facts["Healthcheck"]["Test"]
        assert kind == "CMD"
        done = inImage.runBeside(daemon.pid, *command)
        assert done.returncode == 0, done.stderr
        check = (*facts["Entrypoint"], "check", "--protocol")
        for protocol in ("line", "dns", "health"):
            place = f"tcp:{daemon.ports[protocol]}"
            done = inImage.runBeside(daemon.pid, *check, protocol, place)
            assert done.returncode == 0, done.stderr
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.MULTILINE)
        assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
        assert daemon.stop() == 0
    assert inImage.run(*command).returncode == 2, "nobody runs there any more"


@needsRoot
@pytest.mark.slow
@minutes
def test_twistdInTheImage(inImage: Container) -> None:
    """The cache of plugins is there, and nobody tries in vain to write it."""
    program = (
        "import sys\n"
        "from twisted.python import log\n"
        "log.startLogging(sys.stderr, setStdout=False)\n"
        "from twisted.plugin import IPlugin, getPlugins\n"
        "print(len(list(getPlugins(IPlugin))))\n"
    )
    done = inImage.run("python", "-c", program)
    assert int(done.stdout) > 10
    assert "Log opened" in done.stderr
    assert "Unable to write to plugin cache" not in done.stderr
    done = inImage.run("twistd", "-n", "--pidfile=", "echod", "--port=0", "--check-config")
    assert (done.returncode, done.stderr) == (0, "")


@needsRoot
@pytest.mark.slow
@minutes
def test_nothingIsCompiledAtEachStart(inImage: Container) -> None:
    """All that a daemon and a probe import is there as bytecode."""
    program = (
        "import sys, pathlib, echod.daemon.options, echod.client.check, echod.tls.context\n"
        "import twisted.internet.reactor\n"
        "cached = {name: getattr(each, '__cached__', None) for name, each in sys.modules.items()}\n"
        "print(len(cached), *(n for n, f in cached.items() if f and not pathlib.Path(f).exists()))"
    )
    done = inImage.run("python", "-c", program)
    assert done.stderr == ""
    count, *missing = done.stdout.split()
    assert int(count) > 300
    assert missing == []
