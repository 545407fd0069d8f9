"""A self-signed certificate for tests, made by the openssl command: for localhost, 127.0.0.1 and ::1."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate, which is its own authority, and of its key."""

    certfile: Path
    keyfile: Path

    @property
    def options(self) -> list[str]:
        """The server's options that use it."""
        return ["--certfile", str(self.certfile), "--keyfile", str(self.keyfile)]


def make_certificate(folder: Path) -> Certificate:
    """Raises FileNotFoundError without openssl, CalledProcessError where it fails."""
    certificate = Certificate(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1",
            "-keyout", str(certificate.keyfile), "-out", str(certificate.certfile),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate
