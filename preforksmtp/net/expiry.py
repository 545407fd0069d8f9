"""When a certificate ends: the notAfter of the first one in a PEM file (RFC 5280 section 4.1.2.5).

The ssl module tells it of peers' certificates only. What cannot be read is None: a certificate that does not load is
somebody else's error.
"""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone

from preforksmtp.process.place import reading

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_MOST = 1 << 20  # octets of a file
_SEQUENCE, _VERSION, _UTC = 0x30, 0xA0, 0x17


def expiry(path: str) -> float | None:
    """Seconds since the epoch."""
    try:
        with reading(path) as fd, open(fd, "rb", closefd=False) as file:
            found = _CERTIFICATE.search(file.read(_MOST))
        return not_after(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))) if found else None
    except (OSError, ValueError, IndexError):
        return None


def not_after(der: bytes) -> float:
    """The same of a certificate in DER. ValueError, IndexError: it is none."""
    _, certificate, _ = _element(der)
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)  # the version, which old certificates lack, or the serial number
    if tag == _VERSION:
        _, _, rest = _element(rest)
    for _ in range(2):  # the algorithm, the issuer
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    when = text.decode("ascii")
    if tag == _UTC:  # two digits: 1950 to 2049
        when = ("19" if when[0] >= "5" else "20") + when
    return datetime.strptime(when, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + length], der[start + length :]
