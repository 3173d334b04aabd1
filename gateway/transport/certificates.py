"""The gateway's own certificate: read again when its files change, so that a renewal needs no restart.

Invariant: a pair of files that can't be used leaves the former certificate in use and is logged; connections that exist
keep theirs. Making and renewing certificates is somebody else's business.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cryptography import x509

from gateway.transport.records import Records

__all__ = ["CHECK_SECONDS", "Certificate", "server_context"]

logger = logging.getLogger(__name__)


CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, as Mozilla's "intermediate" has them; TLS 1.3 has its own, all of them good."""

CHECK_SECONDS = 10.0


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """What TLS is spoken with: 1.2 and 1.3, and records in turns.

    Raises:
        OSError: the files can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Records
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.load_cert_chain(cert_file, key_file, password="")
    return context


class Certificate:
    """A certificate and its key in a TLS context that is in use.

    Attributes:
        expires_at: when the certificate ends, in seconds since 1970; None if that can't be told.
    """

    def __init__(self, context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
        """`context` has loaded these files already."""
        self._context = context
        self._cert_file = cert_file
        self._key_file = key_file
        self._stamp = self._look()
        self.expires_at = _end_of(cert_file)

    def _look(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            found = [path.stat() for path in (self._cert_file, self._key_file)]
        except OSError:
            return None
        return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in found)

    def check(self) -> bool:
        """Takes the files if they have changed and can be used; whether it did."""
        stamp = self._look()
        if stamp is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            # In a context of its own first: a pair that doesn't fit must not touch the one in use. An empty password,
            # so that an encrypted key is an error and no question.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert_file, self._key_file, password="")
            self._context.load_cert_chain(self._cert_file, self._key_file, password="")
        except (OSError, ssl.SSLError) as error:
            logger.warning("%s has changed but can't be used, the former certificate stays: %s", self._cert_file, error)
            return False
        self.expires_at = _end_of(self._cert_file)
        logger.info("%s has changed: new connections get the new certificate", self._cert_file)
        return True


def _end_of(cert_file: Path) -> float | None:
    try:
        return x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None
