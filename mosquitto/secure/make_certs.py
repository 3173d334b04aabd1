#!/usr/bin/env python3
"""Makes a private certificate authority and the certificates of broker, gateway and clients, or renews them.

Run it again at any time: it keeps what is good, and makes anew what is missing, has other names than asked for, or ends
within 30 days. The authority's key stays in its own folder, which only this program needs.

    FOLDER/authority/  ca.pem ca.key
    FOLDER/authority/nodes/  ca.pem ca.key                  vouches for a cluster's nodes at the broker, for nobody else
    FOLDER/broker/     ca.pem server.pem server.key nodes-ca.pem
    FOLDER/gateway/    ca.pem server.pem server.key         for HTTPS, which the gateway ends itself
                       node.pem node.key                    for the broker, where the gateway is the node of a cluster
    FOLDER/valkey/     ca.pem server.pem server.key         for the server of a cluster
    FOLDER/balancer/   ca.pem server.pem server.key         for what stands before a cluster
    FOLDER/sensors/    ca.pem
    FOLDER/clients/    NAME.pem NAME.key                    with --client NAME
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import re
import sys
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from whole_files import write

AUTHORITY_DAYS = 3_650
RENEW_DAYS = 30
# Names under which the broker is reached in docker-compose.yml and on the machine itself.
BROKER_HOSTS = ("mosquitto", "localhost", "127.0.0.1", "::1")
GATEWAY_HOSTS = ("gateway", "gateway-2", "gateway-3", "localhost", "127.0.0.1", "::1")
VALKEY_HOSTS = ("valkey", "localhost", "127.0.0.1", "::1")
BALANCER_HOSTS = ("balancer", "localhost", "127.0.0.1", "::1")

Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM, without a password: a service has to read it unattended."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def general_name(host: str) -> x509.GeneralName:
    """A host name or an address, as certificates hold it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def make_authority(folder: Path, kind: str = "Sensor network authority") -> Authority:
    """The authority of this folder, made if there is none."""
    cert_file, key_file = folder / "ca.pem", folder / "ca.key"
    if cert_file.exists() and key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SystemExit(f"{key_file}: not a key that this program made")
        return x509.load_pem_x509_certificate(cert_file.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    # Every authority has a name of its own: two with the same one confuse those who keep both.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} {serial % 16**8:08x}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write(key_file, key_bytes(key), secret=True)
    write(cert_file, certificate.public_bytes(serialization.Encoding.PEM))
    say(f"made the authority {cert_file}: give its key to nobody")
    return certificate, key


def is_good(path: Path, authority: Authority, hosts: tuple[str, ...]) -> bool:
    """Whether a certificate is there, is ours, names these hosts and doesn't end soon."""
    if not (path.exists() and path.with_suffix(".key").exists()):
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        certificate.verify_directly_issued_by(authority[0])
    except (ValueError, TypeError, InvalidSignature):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left < datetime.timedelta(days=RENEW_DAYS):
        return False
    try:
        names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = set()
    return names == {general_name(host) for host in hosts}


def make_certificate(path: Path, authority: Authority, name: str, hosts: tuple[str, ...], days: int) -> None:
    """A certificate for a server with these hosts, or without hosts for the client `name`; kept if it is good."""
    if is_good(path, authority, hosts):
        return
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(
            issuer.subject,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key.public_key(),
            x509.random_serial_number(),
        )
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(min(now + datetime.timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    # A server that reloads between the two finds a pair that doesn't fit, and keeps what it has.
    write(path.with_suffix(".key"), key_bytes(key), secret=True)
    write(path, certificate.public_bytes(serialization.Encoding.PEM))
    say(f"made {path} for {', '.join(hosts) or name}, good until {certificate.not_valid_after_utc:%Y-%m-%d}")


def say(text: str) -> None:
    """Tells the user."""
    sys.stdout.write(text + "\n")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where everything goes")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="a name or address of the broker; repeatable"
    )
    parser.add_argument(
        "--gateway-host", action="append", default=[], metavar="NAME", help="likewise of the gateway; repeatable"
    )
    parser.add_argument("--client", action="append", default=[], metavar="NAME", help="a certificate for this client")
    parser.add_argument("--days", type=int, default=397, metavar="N", help="how long certificates are good (397)")
    arguments = parser.parse_args(argv)
    for name in arguments.client:
        if not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
            parser.error(f"client {name!r}: must be 1 to 64 of a–z, 0–9, '_' and '-', for it becomes part of topics")
    folder: Path = arguments.folder
    authority = make_authority(folder / "authority")
    nodes = make_authority(folder / "authority" / "nodes", "Authority of a cluster's nodes")
    broker_hosts = tuple(dict.fromkeys((*BROKER_HOSTS, *arguments.host)))
    gateway_hosts = tuple(dict.fromkeys((*GATEWAY_HOSTS, *arguments.gateway_host)))
    make_certificate(folder / "broker" / "server.pem", authority, "broker", broker_hosts, arguments.days)
    balancer_hosts = tuple(dict.fromkeys((*BALANCER_HOSTS, *arguments.gateway_host)))
    for part, hosts in (("gateway", gateway_hosts), ("valkey", VALKEY_HOSTS), ("balancer", balancer_hosts)):
        make_certificate(folder / part / "server.pem", authority, part, hosts, arguments.days)
    make_certificate(folder / "gateway" / "node.pem", nodes, "gateway", (), arguments.days)
    for name in arguments.client:
        make_certificate(folder / "clients" / f"{name}.pem", authority, name, (), arguments.days)
    copies = [(folder / part / "ca.pem", authority) for part in ("broker", "gateway", "valkey", "balancer", "sensors")]
    for copy, (certificate, _) in (*copies, (folder / "broker" / "nodes-ca.pem", nodes)):
        public = certificate.public_bytes(serialization.Encoding.PEM)
        if not copy.exists() or copy.read_bytes() != public:
            write(copy, public)
    return 0


if __name__ == "__main__":
    sys.exit(main())
