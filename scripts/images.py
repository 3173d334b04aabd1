"""The image for each machine, what it stands on, and clean Debians to try things in.

Invariant: what an image stands on is named with the digest that a registry gives. Where none answers, an image that is
there is taken, else a Debian that debootstrap makes, and that is told: such an image is for this machine's use, not for
a release. Nothing of the other machine is run to make an image; it is tried where the kernel emulates that machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.environments import ARCHES, ROOT, machine_code
from scripts.trying import FailedError, Missing, UnavailableError, fetch, free_port, is_root, made, run, say_size

__all__ = [
    "NAME",
    "Base",
    "base",
    "base_name",
    "build",
    "clean_debian",
    "digest",
    "machine",
    "need_docker",
    "runs",
    "trial",
]

NAME = "mqtt-browser-gateway"
SUITES = {"12": "bookworm", "13": "trixie"}
DEBIAN_WITH_OUR_PYTHON = "13"
IN_A_DEBIAN = "python3,adduser,init-system-helpers,ca-certificates,systemd"
"""What the gateway's package depends on, and what reads its unit."""

RIGHTS = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
EMULATED_SECONDS = 1800.0
EMULATOR = "an emulator is missing (apt install qemu-user-static)"


@dataclasses.dataclass(frozen=True, slots=True)
class Base:
    """What an image stands on.

    Attributes:
        image: its name, with the digest if there is one.
        digest: as the registry gives it, of all machines together; empty where none answers.
    """

    image: str
    digest: str = ""


def machine() -> str:
    """This machine, by Debian's and Docker's word for it."""
    ours = os.uname().machine
    return next((arch for arch, name in ARCHES.items() if name == ours), ours)


def need_docker() -> None:
    """Whether Docker is there.

    Raises:
        UnavailableError: it is not.
    """
    try:
        run(["docker", "buildx", "version"], timeout=60)
        run(["docker", "info"], timeout=60)
    except (OSError, FailedError):
        raise UnavailableError("Docker with Buildx does not answer here") from None


def base_name() -> str:
    """What the image stands on: the variable BASE, else as the Dockerfile says."""
    if given := os.environ.get("BASE"):
        return given
    [name] = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return str(name)


def digest(image: str) -> str:
    """The digest that a registry gives for an image, of all its machines together; empty where none answers."""
    with contextlib.suppress(FailedError):
        said = run(["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", image], timeout=120)
        found = str(json.loads(said).get("digest", ""))
        if re.fullmatch(r"sha256:[0-9a-f]{64}", found):
            return found
    return ""


def is_here(image: str, arch: str) -> bool:
    """Whether Docker has this image for this machine, without asking a registry."""
    with contextlib.suppress(FailedError):
        return run(["docker", "image", "inspect", "--format", "{{.Architecture}}", image]).strip() == arch
    return False


def runs(image: str, arch: str) -> bool:
    """Whether something of this machine's kind can be run here: by itself, or by the kernel's emulation."""
    with contextlib.suppress(FailedError):
        run(["docker", "run", "--rm", "--platform", f"linux/{arch}", "--entrypoint", "/bin/true", image], timeout=120)
        return True
    return False


@contextlib.contextmanager
def clean_debian(release: str, arch: str) -> Iterator[str]:
    """A Debian with nothing else in it; the name of its image, which is taken away afterwards if it was made here.

    Args:
        release: a key of `SUITES`.
        arch: a key of `ARCHES`.

    Raises:
        UnavailableError: it can be had neither from a registry nor by debootstrap.
    """
    name = f"gateway-release-debian:{release}-{arch}"
    if is_here(name, arch):
        yield name
        return
    official = f"debian:{release}-slim"
    with contextlib.suppress(FailedError):
        run(["docker", "pull", "--quiet", "--platform", f"linux/{arch}", official], timeout=600)
    with tempfile.TemporaryDirectory(prefix="gateway-debian-") as folder:
        if is_here(official, arch):
            _add_to(official, arch, name, Path(folder))
        else:
            _debootstrap(release, arch, name, Path(folder), unpacked=False)
    try:
        yield name
    finally:
        run(["docker", "rmi", "--force", name])


def _add_to(official: str, arch: str, name: str, folder: Path) -> None:
    """Adds what the gateway's package depends on to the official image, which has next to nothing."""
    if not runs(official, arch):
        raise UnavailableError(f"{official} for {arch} does not run here: {EMULATOR}")
    packages = IN_A_DEBIAN.replace(",", " ")
    install = f"apt-get update && apt-get install --yes --no-install-recommends {packages}"
    _build_image(f"FROM {official}\nRUN {install}\n", arch, name, folder)


def _build_image(dockerfile: str, arch: str, name: str, folder: Path) -> None:
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    run(["docker", "buildx", "build", "--platform", f"linux/{arch}", "--load", "--tag", name, str(folder)])


def _debootstrap(release: str, arch: str, name: str, folder: Path, *, unpacked: bool) -> None:
    """Makes a Debian from Debian's archive.

    Args:
        release: a key of `SUITES`.
        arch: its machine.
        name: of the image.
        folder: for what is needed on the way.
        unpacked: only unpacks what is in it, so that nothing of the other machine is run. Python runs there, packages
            can't be installed.
    """
    if shutil.which("debootstrap") is None or not is_root():
        needed = "to make one takes root and debootstrap (apt install debootstrap)"
        raise UnavailableError(f"no registry gives a Debian {release} for {arch}; {needed}")
    root, context = folder / "root", folder / "image"
    # what it mounts goes with it, however it ends
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--arch={arch}", f"--include={IN_A_DEBIAN}"]
    try:
        run([*command, *(["--foreign"] if unpacked else []), SUITES[release], str(root)], timeout=3000)
    except FailedError as error:
        hint = "" if unpacked or arch == machine() else f" ({EMULATOR})"
        raise UnavailableError(f"debootstrap can't make Debian {release} for {arch}{hint}: {error}") from None
    if unpacked:
        for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), str(root)])
        shutil.rmtree(root / "debootstrap")
    shutil.rmtree(root / "var/cache/apt/archives")
    context.mkdir()
    packed = str(context / "root.tar")
    run(["tar", "--directory", str(root), "--exclude", "./dev/*", "--create", "--file", packed, "."])
    _build_image("FROM scratch\nADD root.tar /\n", arch, name, context)


@contextlib.contextmanager
def base(arch: str) -> Iterator[Base]:
    """What the image for a machine can stand on here.

    Raises:
        UnavailableError: there is nothing.
    """
    plain, _, given = base_name().partition("@")
    if found := given or digest(plain):
        pinned = f"{plain}@{found}"
        run(["docker", "pull", "--quiet", "--platform", f"linux/{arch}", pinned])
        yield Base(pinned, found)
    elif is_here(plain, arch):
        yield Base(plain)
    else:
        name = f"gateway-release-base:{arch}"
        with tempfile.TemporaryDirectory(prefix="gateway-base-") as folder:
            _debootstrap(DEBIAN_WITH_OUR_PYTHON, arch, name, Path(folder), unpacked=True)
        try:
            yield Base(name)
        finally:
            run(["docker", "rmi", "--force", name])


def build(arch: str, version: str, on: Base, dist: Path) -> Path:
    """Makes the image for a machine; leaves it in Docker, and as a file that `docker load` takes.

    Raises:
        FailedError: it can't be made, or has machine code of another machine.
    """
    image = f"{NAME}:{version}"
    named = on.image.partition("@")[0]
    arguments = ["--build-arg", f"BASE={on.image}", "--build-arg", f"BUILD_BASE={_build_base(on)}"]
    labels = {"version": version, "base.name": named} | ({"base.digest": on.digest} if on.digest else {})
    for label, value in labels.items():
        arguments += ["--label", f"org.opencontainers.image.{label}={value}"]
    command = ["docker", "buildx", "build", "--platform", f"linux/{arch}", *arguments]
    run([*command, "--load", "--tag", image, "."])
    with tempfile.TemporaryDirectory(prefix="gateway-image-") as folder:
        run([*command, "--target", "files", "--output", f"type=local,dest={folder}", "."])
        for path, found in machine_code(Path(folder)).items():
            if found != arch:
                raise FailedError(f"the image for {arch} has machine code for {found}: {path.relative_to(folder)}")
    file = dist / f"{NAME}_{version}_{arch}_image.tar.gz"
    with tempfile.TemporaryDirectory(prefix="gateway-image-") as folder:
        plain = Path(folder) / "image.tar"
        run(["docker", "save", "--output", str(plain), image])
        with (
            plain.open("rb") as saved,
            file.open("wb") as output,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=output, mtime=0) as packed,
        ):
            shutil.copyfileobj(saved, packed, 1 << 20)
    return file


def _build_base(on: Base) -> str:
    """What runs while the image is made: of this machine."""
    return on.image if on.digest else base_name()


def trial(image: str, arch: str) -> str:
    """Runs an image without any right, on a file system that can't be written; what it found.

    Raises:
        FailedError: it does not run, is not what it should be, or does not end in order.
        UnavailableError: this machine can't run it.
    """
    seconds = 60.0 if arch == machine() else EMULATED_SECONDS
    if not runs(image, arch):
        raise UnavailableError(f"it is made, and was not run: {EMULATOR}")
    user = run(["docker", "image", "inspect", "--format", "{{.Config.User}}", image]).strip()
    if user.partition(":")[0] in ("", "0", "root"):
        raise FailedError(f"{image} runs as {user or 'root'}")
    port = free_port()
    name = f"gateway-release-{os.getpid()}"
    start = ["docker", "run", "--detach", "--platform", f"linux/{arch}", "--name", name, *RIGHTS]
    start += ["--tmpfs", "/var/lib/gateway:uid=10001", "--env", "GATEWAY_ACCESS_ALLOW_ANONYMOUS=true"]
    # asked once below: under emulation it takes longer than Docker gives it, and as much as the gateway's own start
    start.append("--no-healthcheck")
    run([*start, "--publish", f"127.0.0.1:{port}:8000", image])

    def lives() -> bool:
        return run(["docker", "inspect", "--format", "{{.State.Running}}", name]).strip() == "true"

    try:
        if b"/assets/" not in fetch(f"http://127.0.0.1:{port}/", seconds, lives):
            raise FailedError(f"{image} has no dashboard")
        fetch(f"http://127.0.0.1:{port}/health/live", seconds, lives)
        asked = "import os, platform, uvloop, cryptography; print(platform.machine(), os.getuid())"
        found = run(["docker", "exec", name, "python", "-c", asked], timeout=seconds).split()
        if found[0] != ARCHES[arch] or found[1] == "0":
            raise FailedError(f"{image} for {arch} runs on {found[0]} as user {found[1]}")
        # what HEALTHCHECK runs
        run(["docker", "exec", name, "python", "-m", "gateway.ops.healthcheck"], timeout=seconds)
        run(["docker", "stop", "-t", "30", name])
        code = run(["docker", "inspect", "--format", "{{.State.ExitCode}}", name]).strip()
        if code != "0":
            raise FailedError(f"the container ended with {code}")
    except FailedError as error:
        raise FailedError(f"{error}\n{_log(name)}") from None
    finally:
        run(["docker", "rm", "--force", "--volumes", name])
    return f"read-only, without any right, as user {found[1]} on {found[0]}, healthy, ended in order"


def _log(container: str) -> str:
    command = ["docker", "logs", container]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr)[-1500:]


def make(dist: Path, version: str) -> Iterator[str]:
    """Makes and tries the image for every machine; a line for each step.

    Raises:
        FailedError: an image can't be made, or is not as it should be.
        UnavailableError: there is no Docker.
    """
    need_docker()
    # this machine's own last: its tag stays
    for arch in sorted(ARCHES, key=lambda arch: arch == machine()):
        try:
            with base(arch) as on:
                yield f"making the image for {arch} on {on.image}"
                file = build(arch, version, on, dist)
                if not on.digest:
                    found = f"{file.name} is for trying only, on {on.image}"
                    yield Missing(f"no registry gives a digest of {base_name()}: {found}")
                below = _size(on.image)
                yield f"{made(file)}: {say_size(_size(f'{NAME}:{version}') - below)} on {say_size(below)} of {on.image}"
                yield f"tried {file.name}: {trial(f'{NAME}:{version}', arch)}"
        except UnavailableError as error:
            yield Missing(f"the image for {arch}: {error}")
        finally:
            if arch != machine():
                with contextlib.suppress(FailedError):
                    run(["docker", "rmi", f"{NAME}:{version}"])


def _size(image: str) -> int:
    with contextlib.suppress(FailedError):
        return int(run(["docker", "image", "inspect", "--format", "{{.Size}}", image]))
    return 0
