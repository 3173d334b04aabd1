"""Makes everything that a release consists of into dist/, and tries each part where nothing of it was before.

Invariant: what can't be made or tried on this machine is named at the end, with the reason, and never passes for done;
with `--strict` it is a failure, and so it is in CI. Nothing is published: a maintainer uploads what is in dist/.

    wheel, source distribution    with the pages inside; tried in fresh environments, with pip, pipx and uvx: the demo
    client for npm                tried in a fresh Node.js project, types included
    Debian packages               for each Debian and machine; tried by installing them in clean Debians
    image                         for each machine, on what a registry gives under a digest; tried read-only and without
                                  any right
    repository of apps            for Home Assistant's store: what a maintainer pushes, and users add by its address
    bills of materials            CycloneDX, of what is in the image and the packages, and in the pages

    python -m scripts.release                     all of it
    python -m scripts.release python npm          only these parts
    python -m scripts.release --base              only say what the image would stand on, with its digest
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts import build_web, debian, environments, images
from scripts.environments import ARCHES, ROOT
from scripts.trying import FailedError, Missing, UnavailableError, demo, fresh, look_at, made, run, say_size

__all__ = ["PARTS", "bill", "bill_of_pages", "gather_apps", "gather_npm", "main", "sums"]

EXTRAS = ("cluster", "decoders")
PINS = ["--constraint", str(ROOT / "requirements-dev.txt")]
INSTALL_SECONDS = 600.0


def wheel_in(dist: Path) -> Path:
    """The wheel that was made before.

    Raises:
        Failed: there is none, or more than one.
    """
    found = list(dist.glob("*.whl"))
    if len(found) != 1:
        raise FailedError(f"{dist} has {len(found)} wheels: make the part `python` first")
    return found[0]


def version_in(dist: Path) -> str:
    """The version that the wheel says."""
    return wheel_in(dist).name.split("-")[1]


def make_python(dist: Path, work: Path) -> Iterator[str]:
    """Wheel and source distribution; each runs the demo in an environment of its own."""
    build_web.build(ROOT)
    python = fresh(work / "build")
    run([str(python), "-m", "pip", "install", "--quiet", "build", "pipx", "uv"])
    for old in (*dist.glob("*.whl"), *dist.glob("mqtt_browser_gateway-*.tar.gz")):
        old.unlink()
    run([str(python), "-m", "build", "--outdir", str(dist), str(ROOT)], env={**os.environ, "GATEWAY_BUILD_PAGES": "no"})
    [source] = dist.glob("mqtt_browser_gateway-*.tar.gz")
    for file in (wheel_in(dist), source):
        yield made(file)
        own = fresh(work / file.suffix[1:])
        run([str(own), "-m", "pip", "install", "--quiet", *PINS, f"{file}[demo]"], cwd=work)
        run([str(own), "-m", "pip", "check"], cwd=work)
        with demo([str(own.parent / "gateway")], work) as address:
            look_at(address)
        yield f"tried {file.name}: pip installs it, the demo runs"
    for name, command, env in runners(wheel_in(dist), python.parent, work):
        with demo(command, work, env, INSTALL_SECONDS) as address:
            look_at(address)
        yield f"tried {wheel_in(dist).name}: {name} runs the demo"


def runners(wheel: Path, tools: Path, work: Path) -> list[tuple[str, list[str], dict[str, str]]]:
    """Programs that run a command of a package without installing it: name, command, environment.

    Args:
        wheel: the package.
        tools: folder of these programs.
        work: where all that they keep goes, so that nothing was there before.
    """
    what = f"{wheel}[demo]"
    homes = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "pipx-bin", "UV_CACHE_DIR": "uv", "UV_TOOL_DIR": "uv-tools"}
    env = {**os.environ, **{name: str(work / folder) for name, folder in homes.items()}}
    env |= {"PIPX_DEFAULT_PYTHON": sys.executable, "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    # these make the environment of the checkout count, or another one's packages
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        env.pop(name, None)
    pins = f"--pip-args={' '.join(PINS)}"
    return [
        ("pipx", [str(tools / "pipx"), "run", pins, "--spec", what, "gateway"], env),
        ("uvx", [str(tools / "uvx"), "--constraints", PINS[1], "--from", what, "gateway"], env),
    ]


PROJECT = """import { connect, type Message } from "gateway-live";
import { history } from "gateway-live/ask";
const seen: Message[] = [];
export const watch = (url: string): void => {
  connect(url, { topics: ["a/#"] }).on("message", (message) => seen.push(message));
};
console.log(typeof connect, typeof history);
"""


def gather_npm(client: Path, into: Path) -> None:
    """Puts what the npm package has into a folder: with the licence and, in CI, the repository's address.

    npm refuses a package with a provenance that names another address than the package, or where the package has none.

    Args:
        client: the library, built.
        into: is made.
    """
    described = json.loads((client / "package.json").read_text(encoding="utf-8"))
    into.mkdir()
    for name in described["files"]:
        if (client / name).is_dir():
            shutil.copytree(client / name, into / name)
        else:
            shutil.copy(client / name, into / name)
    shutil.copy(ROOT / "LICENSE", into / "LICENSE")
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        address = f"git+{server}/{repository}.git"
        described["repository"] = {"type": "git", "url": address, "directory": "web/client"}
    (into / "package.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def make_npm(dist: Path, work: Path) -> Iterator[str]:
    """The client library as a package; a fresh project imports it, and its types."""
    build_web.build(ROOT)
    npm, env = build_web.install(ROOT)
    for old in dist.glob("gateway-live-*.tgz"):
        old.unlink()
    run([*npm, "run", "--silent", "build"], cwd=ROOT / "web" / "client", env=env)
    gather_npm(ROOT / "web" / "client", work / "package")
    command = [*npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(dist)]
    run(command, cwd=work / "package", env=env)
    [file] = dist.glob("gateway-live-*.tgz")
    yield made(file)
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
    yield f"tried {file.name}: a fresh project imports it, and its types"


def make_debian(dist: Path, _work: Path) -> Iterator[str]:
    """Packages for each Debian and machine, installed in clean Debians; on another machine's kind only the newest."""
    if shutil.which("dpkg-deb") is None:
        raise UnavailableError("dpkg-deb is missing: apt install dpkg")
    for old in dist.glob("*.deb"):
        old.unlink()
    wheel = wheel_in(dist)
    files: dict[tuple[str, str], Path] = {}
    for arch in ARCHES:
        if environments.strip_for(arch) is None:
            binutils = f"binutils-{ARCHES[arch].replace('_', '-')}-linux-gnu"
            yield f"packages for {arch} get larger than they need to be: there is no strip (apt install {binutils})"
    for release in debian.DEBIANS:
        for arch in ARCHES:
            yield f"making the package of Debian {release} for {arch}"
            file = files[release, arch] = debian.build(wheel, debian=release, arch=arch, into=dist)
            yield made(file)
    images.need_docker()
    for (release, arch), file in files.items():
        if arch == images.machine() or release == debian.DEBIANS[-1]:
            try:
                with images.clean_debian(release, arch) as image:
                    yield f"tried {file.name}: {debian.trial(file, image, arch, boots=arch == images.machine())}"
            except UnavailableError as error:
                yield Missing(f"{file.name} was not installed: {error}")


def make_image(dist: Path, _work: Path) -> Iterator[str]:
    """The image for each machine, tried without any right."""
    for old in dist.glob("*_image.tar*"):
        old.unlink()
    yield from images.make(dist, version_in(dist))


def gather_apps(image: str, into: Path) -> None:
    """Makes a repository of apps (add-ons) as Home Assistant's store reads it, with the gateway as its only app.

    Args:
        image: the gateway's, as machines with Home Assistant find it.
        into: is made.

    Raises:
        FailedError: the app's Dockerfile names no image.
    """
    app = into / "mqtt_browser_gateway"
    shutil.copytree(ROOT / "deploy" / "home-assistant", app, ignore=shutil.ignore_patterns("__pycache__"))
    text = (app / "Dockerfile").read_text(encoding="utf-8")
    text, count = re.subn(r"^ARG GATEWAY_IMAGE=.*$", lambda _: f"ARG GATEWAY_IMAGE={image}", text, flags=re.MULTILINE)
    if count != 1:
        raise FailedError(f"the app's Dockerfile names {count} images")
    (app / "Dockerfile").write_text(text, encoding="utf-8")
    about = {"name": "MQTT to browser gateway"}
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        about["url"] = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
    lines = [f"{name}: {json.dumps(value)}\n" for name, value in about.items()]
    (into / "repository.yaml").write_text("".join(lines), encoding="utf-8")


def make_apps(dist: Path, work: Path) -> Iterator[str]:
    """The repository for Home Assistant's store; the variable IMAGE names the image in a registry."""
    version = version_in(dist)
    for old in dist.glob("*_home-assistant.tar.gz"):
        old.unlink()
    image = os.environ.get("IMAGE") or f"{images.NAME}:{version}"
    gather_apps(image, work / "apps")
    file = dist / f"{images.NAME}_{version}_home-assistant.tar.gz"
    with tarfile.open(file, "w:gz") as packed:
        for path in sorted((work / "apps").iterdir()):
            packed.add(path, path.name)
    yield f"{made(file)}, its app stands on {image}"


def bill(packages: Path, tool: Path, file: Path) -> None:
    """Writes the bill of materials of a folder of packages.

    Args:
        packages: as the image and the Debian package have it, for whichever machine: nothing in it is run.
        tool: the program `cyclonedx-py`.
        file: where it goes, as CycloneDX in JSON.

    Raises:
        FailedError: the tool can't, or finds that what it made is not as the schema wants it.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-bill-") as folder:
        # the tool asks an interpreter where packages are, and the one that is meant may be another machine's
        path = Path(folder) / "python"
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps([str(packages)])}\nEND\n", encoding="utf-8")
        path.chmod(0o755)
        command = [str(tool), "environment", "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
        run([*command, "--of", "JSON", "--validate", "--output-file", str(file), str(path)])


def make_sbom(dist: Path, work: Path) -> Iterator[str]:
    """Bills of materials: of what is in the image and the Debian packages, and of what the pages are made of."""
    python = fresh(work / "tool")
    run([str(python), "-m", "pip", "install", "--quiet", *PINS, "cyclonedx-bom"])
    version = version_in(dist)
    for old in dist.glob("*.cdx.json"):
        old.unlink()
    for arch in ARCHES:
        folder = work / arch
        environments.make(folder, at=str(folder), home="/usr/bin", arch=arch, python="3.13", extras=EXTRAS)
        file = dist / f"{images.NAME}_{version}_{arch}.cdx.json"
        bill(folder / "lib" / "python3.13" / "site-packages", python.parent / "cyclonedx-py", file)
        yield f"{made(file)}, {len(json.loads(file.read_bytes())['components'])} packages"
    pages = dist / f"gateway-web_{version}.cdx.json"
    pages.write_text(bill_of_pages(), encoding="utf-8")
    yield f"{made(pages)}, {len(json.loads(pages.read_bytes())['components'])} packages"


def bill_of_pages() -> str:
    """The bill of materials of what the dashboard and the client library are made of, as CycloneDX in JSON.

    Raises:
        FailedError: npm can't make it.
        BuildError: there is no npm.
    """
    npm, env = build_web.install(ROOT)
    listing = ["sbom", "--sbom-format", "cyclonedx", "--package-lock-only"]
    bill = json.loads(run([*npm, *listing], cwd=ROOT / "web", env=env))
    # npm's own `--omit dev` leaves out what is needed here and by a tool as well
    tools = {
        each["bom-ref"]
        for each in bill["components"]
        if {"name": "cdx:npm:package:development", "value": "true"} in each["properties"]
    }
    bill["components"] = [each for each in bill["components"] if each["bom-ref"] not in tools]
    bill["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each["dependsOn"] if ref not in tools]}
        for each in bill["dependencies"]
        if each["ref"] not in tools
    ]
    return json.dumps(bill, indent=2) + "\n"


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
    "home-assistant": make_apps,
    "sbom": make_sbom,
}
"""In the order in which they need each other: all others take the wheel. Each tells its steps, and what is missing."""

FAILURES = (
    FailedError,
    build_web.BuildError,
    environments.CannotMakeError,
    OSError,
    subprocess.SubprocessError,
)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes everything that a release consists of, and tries it.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where it goes")
    parser.add_argument("--strict", action="store_true", help="what can't be done on this machine is a failure")
    parser.add_argument("--base", action="store_true", help="only say what the image stands on, with its digest")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is no part; there are {', '.join(PARTS)}")
    if options.base:
        plain, _, given = images.base_name().partition("@")
        found = given or images.digest(plain)
        print(f"{plain}@{found}" if found else plain)
        return 0 if found or not options.strict else 1
    options.dist.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    missing: list[str] = []
    for name in options.parts or PARTS:
        _make(name, options.dist.resolve(), failed, missing)
    written = sums(options.dist)
    (options.dist / "SHA256SUMS").write_text(written, encoding="utf-8")
    total = sum(path.stat().st_size for path in options.dist.iterdir())
    print(f"\n{options.dist} has {len(written.splitlines())} files of {say_size(total)}, and SHA256SUMS of them")
    for title, texts in (("Not made or tried on this machine", missing), ("Failed", failed)):
        if texts:
            print(f"\n{title}:", *texts, sep="\n  ")
    return 1 if failed or (missing and options.strict) else 0


def _make(name: str, dist: Path, failed: list[str], missing: list[str]) -> None:
    """Makes one part, telling how far it is; what went wrong, or can't be done here, goes into these lists."""
    print(f"{name}:", flush=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - began:5.0f} s  {text}", flush=True)

    def lacks(text: str) -> None:
        missing.append(f"{name}: {text}")
        say(f"SKIPPED {text.splitlines()[0]}")

    with tempfile.TemporaryDirectory(prefix="gateway-release-") as work:
        try:
            for step in PARTS[name](dist, Path(work)):
                (lacks if isinstance(step, Missing) else say)(step)
        except UnavailableError as error:
            lacks(str(error))
        except FAILURES as error:
            failed.append(f"{name}: {error}")
            say("FAILED")


if __name__ == "__main__":
    sys.exit(main())
