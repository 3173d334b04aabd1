"""The build of web/; `make web-check` has its own checks."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gateway
from gateway.routes.dashboard import why_not_built

from .support.waiting import eventually, missing

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "build_web.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_web", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_web = _load()


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout: the script and a web/ that needs no packages."""
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "scripts")
    (root / "web" / "src").mkdir(parents=True)
    (root / "web" / "package.json").write_text(json.dumps({"name": "web", "version": "1.0.0"}))
    (root / "web" / "package-lock.json").write_text(json.dumps({"packages": {"": {"name": "web"}}}))
    (root / "web" / "src" / "a.ts").write_text("export {};")
    return root


def _run(root: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "build_web.py"), *arguments]
    # no package index: what isn't there stays away
    environment = {**os.environ, "PATH": str(path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=110, check=False)


# npm that notes what it was called for, installs nothing and builds one file
NPM = """echo "$1 $2" >> "{log}"
case "$1" in
  ci) /bin/mkdir -p node_modules; echo '{{"packages": {{}}}}' > node_modules/.package-lock.json ;;
  run) /bin/mkdir -p ../gateway/static; echo built > ../gateway/static/client.js ;;
esac"""


@pytest.fixture
def tools(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a `node` and an `npm`, and where that npm notes its calls."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    log.touch()
    _program(folder, "node", "echo v22.12.0")
    _program(folder, "npm", NPM.format(log=log))
    return folder, log


@pytest.mark.parametrize(
    ("version", "usable"),
    [
        ((20, 18, 3), False),
        ((20, 19, 0), True),
        ((21, 7, 0), False),
        ((22, 11, 0), False),
        ((22, 12, 0), True),
        ((26, 0, 0), True),
        ((), False),
    ],
)
def test_usable_versions_are_those_of_package_json(version: tuple[int, ...], usable: bool) -> None:
    assert json.loads((ROOT / "web" / "package.json").read_text())["engines"]["node"] == "^20.19.0 || >=22.12.0"
    assert build_web.is_usable(version) is usable


def test_builds_once_and_again_when_a_source_changed(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    for expected in (["ci --no-audit", "run build"], []):
        log.write_text("")
        assert _run(checkout, folder).returncode == 0
        assert log.read_text().splitlines() == expected
    (checkout / "web" / "src" / "a.ts").write_text("export const a = 1;")
    (checkout / "web" / "node_modules" / "other.js").write_text("not a source")
    assert _run(checkout, folder).returncode == 0
    assert log.read_text().splitlines() == ["run build"]


def test_builds_again_when_what_was_built_is_gone(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    assert _run(checkout, folder).returncode == 0
    (checkout / "gateway" / "static" / "client.js").unlink()
    log.write_text("")
    assert _run(checkout, folder).returncode == 0
    assert log.read_text().splitlines() == ["run build"]


def test_a_failed_build_says_why_and_is_tried_again(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    _program(folder, "npm", 'if [ "$1" = run ]; then echo "src/a.ts: no such thing" >&2; exit 1; fi')
    for _ in range(2):
        failed = _run(checkout, folder)
        assert failed.returncode == 1
        assert "src/a.ts: no such thing" in failed.stderr
    assert _run(checkout, folder, "--optional").returncode == 0
    _program(folder, "npm", NPM.format(log=log))
    assert _run(checkout, folder).returncode == 0


def test_of_requests_that_npm_names_only_the_last_that_failed_is_shown(
    checkout: Path, tools: tuple[Path, Path]
) -> None:
    """What it says at its end may be no more than that a handler of its own was not called."""
    requests = ["GET 200 /a 5ms", "GET /b attempt 1 failed with EAI_AGAIN", "GET /b attempt 3 failed with ECONNREFUSED"]
    lines = [*(f"npm http fetch {request}" for request in requests), "npm error Exit handler never called!"]
    _program(tools[0], "npm", "\n".join([*(f"echo '{line}' >&2" for line in lines), "exit 1"]))
    failed = _run(checkout, tools[0])
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == ["The web pages: npm ci failed:", *lines[2:]]


def test_ctrl_c_ends_a_build_without_a_traceback(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    _program(folder, "npm", f'echo "$1" > "{log}"; exec /bin/sleep 30')
    command = [sys.executable, str(checkout / "scripts" / "build_web.py"), "--optional"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PATH": str(folder)}) as build:
        eventually(lambda: log.read_text() == "ci\n", 25, "npm runs")
        build.send_signal(signal.SIGINT)
        assert build.communicate(timeout=25)[1] == ""
    assert build.returncode == 130


def test_why_there_are_no_pages_is_kept_until_there_are(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    reason = checkout / "gateway" / "static" / "not-built.txt"
    _program(folder, "npm", 'echo "npm error network: no such host" >&2; exit 1')
    assert _run(checkout, folder).returncode == 1
    assert not reason.exists()
    assert _run(checkout, folder, "--optional").returncode == 0
    assert "network: no such host" in reason.read_text()
    assert "network: no such host" in (why_not_built(reason.parent) or "")
    _program(folder, "npm", NPM.format(log=log))
    assert _run(checkout, folder).returncode == 0
    assert not reason.exists()
    (reason.parent / "index.html").touch()
    assert why_not_built(reason.parent) is None


@pytest.mark.slow
def test_without_node_and_network_it_says_what_happens_instead(checkout: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = _run(checkout, empty, "--optional")
    assert done.returncode == 0
    assert "fetching Node.js from PyPI failed" in done.stderr
    assert "serves its small page instead" in done.stderr
    assert _run(checkout, empty).returncode == 1


@pytest.mark.slow
def test_an_old_node_is_not_used(checkout: Path, tools: tuple[Path, Path]) -> None:
    folder, log = tools
    _program(folder, "node", "echo v18.20.4")
    assert _run(checkout, folder).returncode == 1
    assert log.read_text() == ""


def test_installed_packages_are_compared_with_the_lock_file(checkout: Path) -> None:
    web = checkout / "web"
    lock = {
        "": {"name": "web"},
        "client": {"version": "0.1.0"},
        "node_modules/vite": {"version": "8.0.0"},
        "node_modules/only-for-mac": {"version": "1.0.0", "optional": True},
    }
    (web / "package-lock.json").write_text(json.dumps({"packages": lock}))
    assert not build_web.is_installed(web)
    (web / "node_modules").mkdir()
    hidden = web / "node_modules" / ".package-lock.json"
    hidden.write_text(json.dumps({"packages": {"node_modules/vite": {"version": "8.0.0"}}}))
    assert build_web.is_installed(web)
    hidden.write_text(json.dumps({"packages": {"node_modules/vite": {"version": "7.0.0"}}}))
    assert not build_web.is_installed(web)


def test_the_lock_file_holds_no_addresses_of_packages() -> None:
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    assert [name for name, entry in packages.items() if "://" in entry.get("resolved", "")] == []


def test_versions_are_the_gateways() -> None:
    assert json.loads((ROOT / "web" / "client" / "package.json").read_text())["version"] == gateway.__version__


def test_the_client_library_takes_at_most_4_kib() -> None:
    if not build_web.is_built(ROOT):
        missing("the web pages as they are now (make web)")
    code = (ROOT / "gateway" / "static" / "client.js").read_bytes()
    assert b"import" not in code.replace(b"import.meta", b"")
    assert len(gzip.compress(code, 9)) <= 4096
    # what one socket for all tabs costs beyond that: a page loads the first, the browser the second
    for name in ("client-shared.js", "client-worker.js", "client-ask.js"):
        assert len(gzip.compress((ROOT / "gateway" / "static" / name).read_bytes(), 9)) <= 5120, name


def test_the_lock_file_holds_the_packages_of_every_platform() -> None:
    """`npm install` leaves those out that its registry or node_modules lacks, and then `npm ci` refuses the file."""
    packages = json.loads((ROOT / "web" / "package-lock.json").read_bytes())["packages"]
    missing_packages = {
        optional
        for entry in packages.values()
        for optional in entry.get("optionalDependencies", {})
        if f"node_modules/{optional}" not in packages
    }
    assert not missing_packages
