"""Makes the Debian package: the gateway with all that it needs in /usr/lib/mqtt-browser-gateway, and a service.

Invariant: what it needs comes along in the versions that were tested, beside Debian's own Python and apart from
Debian's own packages, so that neither can break the other. So there is a package for each Debian (its Python) and each
machine; all of them are made anywhere, since nothing of the other machine is run. Needs Python's standard library, pip
and dpkg-deb.

    python -m scripts.debian dist/….whl --debian 13 --arch arm64 --into dist
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.environments import ARCHES, ROOT, CannotMakeError, make
from scripts.trying import run

__all__ = ["DEBIANS", "NAME", "build", "trial"]

NAME = "mqtt-browser-gateway"
PYTHONS = {"12": "3.11", "13": "3.13"}
DEBIANS = tuple(PYTHONS)
"""Releases of Debian for which there is a package; Raspberry Pi OS has their numbers, too."""

MAINTAINER = f"{os.environ.get('DEBFULLNAME', NAME)} <{os.environ.get('DEBEMAIL', 'noreply@example.org')}>"
"""Who vouches for the package, by the variables of Debian's tools."""

PLACE = f"usr/lib/{NAME}"
EXTRAS = ("cluster", "decoders")
COMMANDS = ("gateway", "sensors-sim")
CONFFILES = ("etc/gateway/gateway.toml",)

AS_A_MACHINE = ["--tmpfs", "/run", "--tmpfs", "/tmp", "--security-opt", "seccomp=unconfined"]  # noqa: S108  in there
AS_A_MACHINE += ["--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined"]
AS_A_MACHINE += [
    f"--cap-add={right}" for right in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "DAC_READ_SEARCH", "SYSLOG")
]
"""What a container needs so that systemd runs in it and can do all that the unit asks of it."""

_CONTROL = """Package: {name}
Version: {version}
Architecture: {arch}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6 (>= 2.36), adduser, init-system-helpers (>= 1.54~)
Recommends: mosquitto, ca-certificates
Section: net
Priority: optional
Description: relays MQTT messages to browsers
 Sensors publish to an MQTT broker. The gateway subscribes once and relays each
 message to every browser that asked for its topic, over a plain WebSocket,
 server-sent events or HTTP, with history, charts and alerts. It brings a
 dashboard, and attaches to the broker that is there.
"""

_COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Comment: Python packages in /{place} have their licences beside them, in their .dist-info folders.

Files: *
{holder}
License: Expat

License: Expat
{text}
"""


def _copyright(root: Path) -> str:
    licence = (root / "LICENSE").read_text(encoding="utf-8")
    holder = next(line for line in licence.splitlines() if line.startswith("Copyright"))
    body = licence.partition(holder)[2].strip()
    text = "\n".join(f" {line}" if line.strip() else " ." for line in body.splitlines())
    return _COPYRIGHT.format(place=PLACE, holder=re.sub(r"^Copyright (\(c\) )?", "Copyright: ", holder), text=text)


def _write(path: Path, text: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)


def build(
    wheel: Path,
    *,
    debian: str,
    arch: str,
    into: Path,
    needs: Path | None = None,
    compression: Sequence[str] = ("-Zxz",),
    root: Path = ROOT,
) -> Path:
    """Makes the package for one Debian and one machine.

    Args:
        wheel: the project, whose name says the version.
        debian: a key of `DEBIANS`.
        arch: `amd64` or `arm64`.
        into: folder of the file.
        needs: a folder with the packages that it needs, for this Python and machine; None fetches them.
        compression: how, as dpkg-deb is told.
        root: the checkout.

    Returns:
        The file.

    Raises:
        CannotMakeError: something can't be had for this machine.
        CalledProcessError: dpkg-deb failed.
    """
    python = PYTHONS[debian]
    version = f"{wheel.name.split('-')[1]}-1~deb{debian}"
    with tempfile.TemporaryDirectory(prefix="gateway-deb-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        if needs is not None:
            shutil.copytree(needs, tree / PLACE / "lib" / f"python{python}" / "site-packages")
        make(
            tree / PLACE,
            at=f"/{PLACE}",
            home="/usr/bin",
            arch=arch,
            python=python,
            extras=EXTRAS,
            wheel=wheel,
            has_needs=needs is not None,
            without=["sensors-flash"],  # its tools are not in
        )
        _clean(tree / PLACE)
        for name in COMMANDS:
            command = tree / "usr" / "bin" / name
            command.parent.mkdir(parents=True, exist_ok=True)
            command.symlink_to(f"../lib/{NAME}/bin/{name}")
        deploy = root / "deploy"
        units = tree / "usr/lib/systemd/system"
        _write(units / "gateway.service", (deploy / "gateway.service").read_bytes())
        _write(units / "gateway.service.d" / "10-package.conf", (deploy / "debian/package.conf").read_bytes())
        _write(tree / "etc/gateway/gateway.toml", (deploy / "gateway.toml").read_bytes())
        documents = tree / "usr/share/doc" / NAME
        for page in sorted((root / "docs").glob("*.md")):
            _write(documents / page.name, page.read_bytes())
        _write(tree / "usr/share/lintian/overrides" / NAME, (deploy / "debian/lintian-overrides").read_bytes())
        _write(documents / "copyright", _copyright(root))
        change = f"{NAME} ({version}) stable; urgency=medium\n\n  * CHANGELOG.md says what is new.\n\n"
        change += f" -- {MAINTAINER}  Thu, 01 Jan 2026 00:00:00 +0000\n"
        _write(documents / "changelog.Debian.gz", gzip.compress(change.encode(), 9, mtime=0))
        news = (root / "CHANGELOG.md").read_bytes()
        _write(documents / "changelog.gz", gzip.compress(news, 9, mtime=0))
        _add_control(tree, version, arch, python, deploy / "debian")
        into.mkdir(parents=True, exist_ok=True)
        file = into / f"{NAME}_{version}_{arch}.deb"
        command_line = ["dpkg-deb", "--root-owner-group", *compression, "--build", str(tree), str(file)]
        subprocess.run(command_line, check=True, capture_output=True, text=True)
        return file


def trial(file: Path, image: str, arch: str, *, boots: bool = True, network: str = "none", root: Path = ROOT) -> str:
    """Installs the package in a container, runs what it brings, removes and purges it; what it found.

    Args:
        file: the package.
        image: a Debian, with what the package depends on if there is no network.
        arch: its machine.
        boots: whether systemd runs in it, which takes many rights.
        network: `none`, or one from which apt-get can fetch what is missing.
        root: the checkout.

    Raises:
        FailedError: something is not as it should be.
    """
    name = f"gateway-try-{os.getpid()}"
    scripts = root / "deploy" / "debian"
    start = ["docker", "run", "--network", network, "--platform", f"linux/{arch}", "--env", f"TRIAL={name}"]
    for source, target in ((file, "package.deb"), (scripts / "try.sh", "try.sh"), (scripts / "boot.sh", "boot.sh")):
        start += ["--volume", f"{source}:/{target}:ro"]
    if not boots:
        return run([*start, "--rm", image, "sh", "/try.sh"]).strip().splitlines()[-1]
    run([*start, *AS_A_MACHINE, "--detach", "--name", name, image, "sh", "/boot.sh"])
    try:
        return run(["docker", "exec", name, "sh", "/try.sh", "booted"]).strip().splitlines()[-1]
    finally:
        run(["docker", "rm", "--force", "--volumes", name])
        run([*start, *AS_A_MACHINE, "--rm", image, "sh", "/boot.sh", "clean"])


def _clean(environment: Path) -> None:
    """Leaves out bytecode, which is made where it is installed, and pip's notes of where wheels came from."""
    for path in sorted(environment.rglob("*"), reverse=True):
        if path.name == "__pycache__":
            shutil.rmtree(path)
        elif path.name in ("direct_url.json", "REQUESTED", "INSTALLER"):
            path.unlink()
        elif path.is_file() and not path.is_symlink():
            path.chmod(0o755 if path.parent == environment / "bin" else 0o644)


def _add_control(tree: Path, version: str, arch: str, python: str, scripts: Path) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    minor = int(python.partition(".")[2])
    control = _CONTROL.format(
        name=NAME,
        version=version,
        maintainer=MAINTAINER,
        arch=arch,
        size=sum(path.stat().st_size for path in files) // 1024,
        python=python,
        next_python=f"3.{minor + 1}",
    )
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files]  # noqa: S324
    _write(tree / "DEBIAN/control", control)
    _write(
        tree / "DEBIAN/md5sums", "".join(line for line in sums if not line.endswith(tuple(f"{c}\n" for c in CONFFILES)))
    )
    _write(tree / "DEBIAN/conffiles", "".join(f"/{name}\n" for name in CONFFILES))
    for name in ("postinst", "prerm", "postrm"):
        _write(tree / "DEBIAN" / name, (scripts / name).read_bytes(), 0o755)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes the Debian package.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--debian", choices=DEBIANS, default=DEBIANS[-1])
    parser.add_argument("--arch", choices=ARCHES, default="amd64")
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    try:
        print(build(options.wheel, debian=options.debian, arch=options.arch, into=options.into))
    except CannotMakeError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"dpkg-deb: {error.stderr}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
