"""Channel bindings: what both ends of one TLS connection know and nobody between them has (RFC 5056).

tls-server-end-point (RFC 5929 section 4) is a hash of our certificate, tls-unique (section 3) the handshake's first
Finished message, tls-exporter (RFC 9266) a key made for the purpose, where Python's ssl module has it. What is not
defined for a connection is not there: nothing here fails.
"""

from __future__ import annotations

import hashlib
import ssl

# The hash of a certificate's signature algorithm, by object identifier. RFC 5929 section 4.1: MD5 and SHA-1 count as
# SHA-256; a signature without a hash of its own (Ed25519) has no binding.
_SIGNATURES = {
    "2a864886f70d010104": "sha256",  # md5WithRSAEncryption
    "2a864886f70d010105": "sha256",  # sha1WithRSAEncryption
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a864886f70d01010e": "sha224",
    "2a8648ce3d0401": "sha256",  # ecdsa-with-SHA1
    "2a8648ce3d040301": "sha224",
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
}
_PSS = "2a864886f70d01010a"  # its hash is a parameter (RFC 4055 section 3.1), SHA-1 where there is none
_HASHES = {
    "2b0e03021a": "sha256",  # SHA-1
    "608648016503040201": "sha256",
    "608648016503040202": "sha384",
    "608648016503040203": "sha512",
    "608648016503040204": "sha224",
}
_OBJECT_IDENTIFIER, _SEQUENCE, _FIRST = 0x06, 0x30, 0xA0


def channel_bindings(sock: ssl.SSLSocket, certificate: bytes) -> dict[str, bytes]:
    """The bindings of a connection by their names; `certificate` is ours, DER, b"" if not known."""
    bindings = {}
    end_point = server_end_point(certificate)
    if end_point is not None:
        bindings["tls-server-end-point"] = end_point
    # Not with TLS 1.3, where it is not defined (RFC 9266), and not in a resumed session, where somebody between two
    # connections could have made it the same (the triple handshake, RFC 7627 section 1).
    if sock.version() in ("TLSv1", "TLSv1.1", "TLSv1.2") and not sock.session_reused:
        unique = sock.get_channel_binding("tls-unique")
        if unique:
            bindings["tls-unique"] = unique
    # Only here: before TLS 1.3 it is as good as tls-unique with an extended master secret alone (RFC 9266 section 4.2).
    if sock.version() == "TLSv1.3" and "tls-exporter" in ssl.CHANNEL_BINDING_TYPES:
        exported = sock.get_channel_binding("tls-exporter")
        if exported:
            bindings["tls-exporter"] = exported
    return bindings


def server_end_point(certificate: bytes) -> bytes | None:
    """tls-server-end-point of a certificate in DER; None where it has none."""
    try:
        name = _signature_hash(certificate)
    except ValueError:
        return None
    return hashlib.new(name, certificate).digest() if name else None


def _signature_hash(certificate: bytes) -> str | None:
    """Certificate ::= SEQUENCE { tbsCertificate, AlgorithmIdentifier, BIT STRING } (RFC 5280 section 4.1)."""
    start, end = _contents(certificate, 0, len(certificate), _SEQUENCE)
    _, place = _contents(certificate, start, end, _SEQUENCE)
    start, end = _contents(certificate, place, end, _SEQUENCE)
    identifier, place = _identifier(certificate, start, end)
    if identifier != _PSS:
        return _SIGNATURES.get(identifier)
    start, end = _contents(certificate, place, end, _SEQUENCE)
    if start == end or certificate[start] != _FIRST:
        return "sha256"  # SHA-1
    start, end = _contents(certificate, start, end, _FIRST)
    start, end = _contents(certificate, start, end, _SEQUENCE)
    return _HASHES.get(_identifier(certificate, start, end)[0])


def _identifier(der: bytes, place: int, end: int) -> tuple[str, int]:
    """The object identifier at `place`, in hexadecimal, and where it ends."""
    start, after = _contents(der, place, end, _OBJECT_IDENTIFIER)
    return der[start:after].hex(), after


def _contents(der: bytes, place: int, end: int, tag: int) -> tuple[int, int]:
    """Where the contents of the value at `place` begin and end. Raises ValueError where it is not one of `tag`, or
    reaches beyond `end`."""
    start = place + 2
    if start > end or der[place] != tag:
        raise ValueError("not the value expected")
    length = der[place + 1]
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[place + 2 : start], "big")
    if start > end or length > end - start:
        raise ValueError("the value is cut off")
    return start, start + length
