"""Makes everything that a release consists of into dist/, and tries each part where nothing of it was before.

Invariant: what can't be made or tried on this machine is named at the end, with the reason, and never passes for done;
with `--strict` it is a failure, and so it is in CI. Nothing is published: a maintainer uploads what is in dist/.

    wheel, source distribution    with the pages inside; tried in fresh environments, by the demo
    client for npm                tried in a fresh Node.js project, types included
    Debian packages               for each Debian and machine; tried by installing it in a container
    image                         for the machine that runs this, tried read-only and without any right; what it needs
                                  is fetched for every machine
    bills of materials            CycloneDX, of what is in the image and in the pages

    python -m scripts.release                     all of it
    python -m scripts.release python npm          only these parts
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts import build_web, debian, environments
from scripts.environments import ARCHES, ROOT

__all__ = ["PARTS", "main", "sums"]

IMAGE = "mqtt-browser-gateway"
DEBIAN_IMAGE = os.environ.get("DEBIAN_IMAGE", "debian:trixie-slim")
EXTRAS = ("cluster", "decoders")
PAGE = b"<!doctype html>"
START_SECONDS = 60.0


class UnavailableError(Exception):
    """This machine can't do it; the text says what it lacks."""


class FailedError(Exception):
    """It went wrong."""


def run(command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 1200) -> str:
    """Runs a command quietly; what it printed.

    Raises:
        Failed: it ended with another code than 0; its last lines are in the text.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise FailedError(f"{' '.join(command[:4])} …:\n{(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


def fresh(folder: Path) -> Path:
    """A virtual environment of its own; its interpreter."""
    run([sys.executable, "-m", "venv", str(folder)])
    return folder / "bin" / "python"


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(url: str) -> bytes:
    """The answer of a server on this machine; asked again until it is there.

    Raises:
        Failed: it did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  ours
                data: bytes = answer.read()
                return data
        except OSError as error:
            if time.monotonic() > deadline:
                raise FailedError(f"{url}: {error}") from None
            time.sleep(0.2)


def look_at(address: str) -> None:
    """Whether a gateway serves the dashboard, the client library and readings.

    Raises:
        Failed: it doesn't.
    """
    page = fetch(f"{address}/")
    if PAGE not in page.lower() or b"/assets/" not in page:
        raise FailedError(f"{address}/ is not the dashboard: {page[:200]!r}")
    fetch(f"{address}/client.js")
    deadline = time.monotonic() + START_SECONDS
    while not json.loads(fetch(f"{address}/topics/sensors/%2B/state"))["messages"]:
        if time.monotonic() > deadline:
            raise FailedError(f"{address}: no readings come")
        time.sleep(0.2)


@contextlib.contextmanager
def demo(command: list[str], folder: Path) -> Iterator[str]:
    """The demo, started by this command; its address. It has to end in order."""
    port = free_port()
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "demo", "--port", str(port)], cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        yield f"http://127.0.0.1:{port}"
    except FailedError as error:
        raise FailedError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from None
    finally:
        process.terminate()
        code = process.wait(30)
    if code:
        raise FailedError(f"the demo ended with {code}:\n{log.read_text(errors='replace')[-2000:]}")


def wheel_in(dist: Path) -> Path:
    """The wheel that was made before.

    Raises:
        Failed: there is none, or more than one.
    """
    found = list(dist.glob("*.whl"))
    if len(found) != 1:
        raise FailedError(f"{dist} has {len(found)} wheels: make the part `python` first")
    return found[0]


def make_python(dist: Path, work: Path) -> Iterator[str]:
    """Wheel and source distribution; each runs the demo in an environment of its own."""
    build_web.build(ROOT)
    python = fresh(work / "build")
    run([str(python), "-m", "pip", "install", "--quiet", "build"])
    for old in (*dist.glob("*.whl"), *dist.glob("mqtt_browser_gateway-*.tar.gz")):
        old.unlink()
    run([str(python), "-m", "build", "--outdir", str(dist), str(ROOT)], env={**os.environ, "GATEWAY_BUILD_PAGES": "no"})
    [source] = dist.glob("mqtt_browser_gateway-*.tar.gz")
    for file in (wheel_in(dist), source):
        yield file.name
        python = fresh(work / file.suffix[1:])
        pins = ["--constraint", str(ROOT / "requirements-dev.txt")]
        run([str(python), "-m", "pip", "install", "--quiet", *pins, f"{file}[demo]"], cwd=work)
        run([str(python), "-m", "pip", "check"], cwd=work)
        with demo([str(python.parent / "gateway")], work) as address:
            look_at(address)


PROJECT = """import { connect, type Message } from "gateway-live";
import { history } from "gateway-live/ask";
const seen: Message[] = [];
export const watch = (url: string): void => {
  connect(url, { topics: ["a/#"] }).on("message", (message) => seen.push(message));
};
console.log(typeof connect, typeof history);
"""


def make_npm(dist: Path, work: Path) -> Iterator[str]:
    """The client library as a package; a fresh project imports it, and its types."""
    build_web.build(ROOT)
    npm, env = build_web.install(ROOT)
    for old in dist.glob("gateway-live-*.tgz"):
        old.unlink()
    run([*npm, "pack", "--silent", "--pack-destination", str(dist)], cwd=ROOT / "web" / "client", env=env)
    [file] = dist.glob("gateway-live-*.tgz")
    yield file.name
    project = work / "npm"
    project.mkdir()
    (project / "package.json").write_text('{"name": "fresh", "private": true, "type": "module"}')
    run([*npm, "install", "--no-audit", "--no-fund", "--no-save", str(file)], cwd=project, env=env)
    (project / "index.ts").write_text(PROJECT)
    tsc = [
        str(ROOT / "web" / "node_modules" / ".bin" / "tsc"),
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--strict",
    ]
    run([*tsc, "--lib", "es2023,dom", "index.ts"], cwd=project, env=env)
    said = run(["node", "index.js"], cwd=project, env=env).split()
    if said != ["function", "function"]:
        raise FailedError(f"the fresh project says {said}")


def make_debian(dist: Path, _work: Path) -> Iterator[str]:
    """Packages for each Debian and machine; the newest is installed in a container without a network."""
    if shutil.which("dpkg-deb") is None:
        raise UnavailableError("dpkg-deb is missing: apt install dpkg")
    for old in dist.glob("*.deb"):
        old.unlink()
    wheel = wheel_in(dist)
    for release in debian.DEBIANS:
        for arch in ARCHES:
            yield debian.build(wheel, debian=release, arch=arch, into=dist).name
    _need_docker()
    if not _has_image(DEBIAN_IMAGE):
        raise UnavailableError(f"the packages are made and were not installed: there is no image {DEBIAN_IMAGE}")
    [file] = dist.glob(f"*~deb{debian.DEBIANS[-1]}_amd64.deb")
    mount = ["--volume", f"{file}:/package.deb:ro", "--volume", f"{ROOT / 'deploy/debian/try.sh'}:/try.sh:ro"]
    run(["docker", "run", "--rm", *mount, DEBIAN_IMAGE, "sh", "/try.sh"])


def _need_docker() -> None:
    try:
        run(["docker", "buildx", "version"])
        run(["docker", "info"])
    except (OSError, FailedError):
        raise UnavailableError("Docker with Buildx does not answer here") from None


def _has_image(name: str) -> bool:
    with contextlib.suppress(FailedError):
        run(["docker", "image", "inspect", name])
        return True
    with contextlib.suppress(FailedError):
        run(["docker", "pull", "--quiet", name])
        return True
    return False


def make_image(dist: Path, _work: Path) -> Iterator[str]:
    """The image, tried without any right; and whether what it needs is there for every machine."""
    for arch in ARCHES:
        environments.check(arch, "3.13", EXTRAS)
    _need_docker()
    version = re.sub(r".*-(\d[^-]*)-py3.*", r"\1", wheel_in(dist).name)
    run(["docker", "buildx", "build", "--load", "--tag", f"{IMAGE}:{version}", "."])
    size = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", f"{IMAGE}:{version}"]))
    base = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", _base()]))
    file = dist / f"{IMAGE}_{version}_image.tar"
    run(["docker", "save", "--output", str(file), f"{IMAGE}:{version}"])
    yield f"{file.name} ({(size - base) // 1_000_000} MB on top of {base // 1_000_000} MB of {_base()})"
    port = free_port()
    rights = [
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--tmpfs",
        "/var/lib/gateway:uid=10001",
    ]
    settings = ["--env", "GATEWAY_ACCESS_ALLOW_ANONYMOUS=true"]
    name = f"gateway-release-{os.getpid()}"
    image = f"{IMAGE}:{version}"
    run(["docker", "run", "--detach", "--name", name, *rights, *settings, "--publish", f"127.0.0.1:{port}:8000", image])
    try:
        if b"/assets/" not in fetch(f"http://127.0.0.1:{port}/"):
            raise FailedError("the image has no dashboard")
        run(["docker", "stop", "--timeout", "20", name])
        code = run(["docker", "inspect", "--format", "{{.State.ExitCode}}", name]).strip()
        if code != "0":
            raise FailedError(f"the container ended with {code}")
    finally:
        run(["docker", "rm", "--force", name])


def _base() -> str:
    return str(re.findall(r"^FROM (?!--)(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[-1])


def make_sbom(dist: Path, work: Path) -> Iterator[str]:
    """Bills of materials: of what is in the image and the Debian packages, and of what the pages are made of."""
    python = fresh(work / "tool")
    run([str(python), "-m", "pip", "install", "--quiet", "cyclonedx-bom"])
    version = wheel_in(dist).name.split("-")[1]
    pins = work / "pins.txt"
    wheels = [name.split("-") for name in environments.check("amd64", "3.13", EXTRAS)]
    pins.write_text("".join(f"{name.replace('_', '-')}=={number}\n" for name, number, *_ in wheels), encoding="utf-8")
    file = dist / f"mqtt-browser-gateway-{version}.cdx.json"
    tool = [str(python.parent / "cyclonedx-py"), "requirements", "--pyproject", str(ROOT / "pyproject.toml")]
    run([*tool, "--of", "JSON", "--output-reproducible", "--output-file", str(file), str(pins)])
    yield file.name
    npm, env = build_web.install(ROOT)
    pages = dist / f"gateway-web-{version}.cdx.json"
    pages.write_text(
        run(
            [*npm, "sbom", "--sbom-format", "cyclonedx", "--package-lock-only", "--omit", "dev"],
            cwd=ROOT / "web",
            env=env,
        )
    )
    yield pages.name


def sums(dist: Path) -> str:
    """SHA256SUMS of the files in a folder, as `sha256sum --check` reads it."""
    files = sorted(path for path in dist.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = []
    for path in files:
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return "".join(lines)


PARTS: dict[str, Callable[[Path, Path], Iterator[str]]] = {
    "python": make_python,
    "npm": make_npm,
    "debian": make_debian,
    "image": make_image,
    "sbom": make_sbom,
}
"""In the order in which they need each other: all others take the wheel."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes everything that a release consists of, and tries it.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where it goes")
    parser.add_argument("--strict", action="store_true", help="what can't be done on this machine is a failure")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is no part; there are {', '.join(PARTS)}")
    options.dist.mkdir(parents=True, exist_ok=True)
    failed, missing = [], []
    for name in options.parts or PARTS:
        print(f"{name}:", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="gateway-release-") as work:
            try:
                for made in PARTS[name](options.dist.resolve(), Path(work)):
                    print(f"  {made}", flush=True)
                print(f"  made and tried in {time.monotonic() - began:.0f} s", flush=True)
            except UnavailableError as error:
                missing.append(f"{name}: {error}")
            except (
                FailedError,
                build_web.BuildError,
                environments.CannotMakeError,
                OSError,
                subprocess.SubprocessError,
            ) as error:
                failed.append(f"{name}: {error}")
                print("  FAILED", flush=True)
    (options.dist / "SHA256SUMS").write_text(sums(options.dist), encoding="utf-8")
    for title, texts in (("Not made or tried on this machine", missing), ("Failed", failed)):
        if texts:
            print(f"\n{title}:", *texts, sep="\n  ")
    return 1 if failed or (missing and options.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
