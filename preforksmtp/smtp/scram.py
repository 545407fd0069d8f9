"""SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, without sending it; and ScramSecret.

A secret is what a server may store instead of a password. Nothing in an exchange, neither its messages nor its work,
tells a wrong password from a user who is not there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from typing import Protocol

from . import reply
from .reply import Reject
from .saslprep import saslprep

ITERATIONS = 4096  # RFC 7677 section 4: the least; more costs each login as much more
NAMES = {"sha1": "SCRAM-SHA-1", "sha256": "SCRAM-SHA-256"}

# Salts of users whose secret we do not have: the same in all workers, for it is made before they are forked.
_CHANCE = os.urandom(32)

_SECRET = re.compile(r"(SCRAM-SHA-(?:1|256))\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class ScramSecret:
    """What is stored of a password: it proves that a client knows it, and cannot be used to log in.

    Its text, str(secret), is the one of PostgreSQL: `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
    """

    __slots__ = ("algorithm", "iterations", "salt", "server_key", "stored_key")

    def __init__(self, algorithm: str, iterations: int, salt: bytes, stored_key: bytes, server_key: bytes) -> None:
        if algorithm not in NAMES:
            raise ValueError(f"algorithm {algorithm!r} is none of {', '.join(NAMES)}")
        self.algorithm = algorithm
        self.iterations = iterations
        self.salt = salt
        self.stored_key = stored_key
        self.server_key = server_key

    @classmethod
    def make(
        cls, password: str, algorithm: str = "sha256", iterations: int = ITERATIONS, salt: bytes | None = None
    ) -> ScramSecret:
        """The secret of a password. Raises ValueError for a password that SASLprep prohibits (RFC 4013)."""
        salt = os.urandom(16) if salt is None else salt
        return cls(algorithm, iterations, salt, *_keys(algorithm, saslprep(password, stored=True), salt, iterations))

    @classmethod
    def parse(cls, text: str) -> ScramSecret:
        """The secret of a stored text. Raises ValueError."""
        found = _SECRET.fullmatch(text.strip())
        if found is None:
            raise ValueError("expected SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
        name, iterations, *values = found.groups()
        try:
            salt, stored_key, server_key = (base64.b64decode(value, validate=True) for value in values)
        except binascii.Error:
            raise ValueError("salt and keys must be base64") from None
        algorithm = next(key for key, value in NAMES.items() if value == name)
        size = hashlib.new(algorithm).digest_size
        if not int(iterations) or len(stored_key) != size or len(server_key) != size:
            raise ValueError("iterations or keys are of a wrong size")
        return cls(algorithm, int(iterations), salt, stored_key, server_key)

    def __str__(self) -> str:
        salt, stored_key, server_key = map(_b64, (self.salt, self.stored_key, self.server_key))
        return f"{NAMES[self.algorithm]}${self.iterations}:{salt}${stored_key}:{server_key}"

    def __repr__(self) -> str:
        return f"<ScramSecret {NAMES[self.algorithm]}>"  # not into a log by accident

    def verify(self, password: str) -> bool:
        """Whether this is the password, as PLAIN and LOGIN ask. Takes as long for every password."""
        try:
            prepared = saslprep(password)
        except ValueError:
            prepared = ""
        stored_key, _ = _keys(self.algorithm, prepared, self.salt, self.iterations)
        return hmac.compare_digest(stored_key, self.stored_key) and bool(prepared)


Secret = str | ScramSecret | None


def check_password(secret: Secret, username: str, password: str) -> bool:
    """Whether `password` is right for a handler's `secret`; the same work whatever the secret is."""
    if isinstance(secret, ScramSecret):
        return secret.verify(password)
    known = decoy(username, "sha256").verify(password)  # always wrong: only its work is wanted
    if secret is None:
        return known
    try:
        return hmac.compare_digest(saslprep(secret).encode(), saslprep(password).encode()) and bool(secret)
    except ValueError:
        return False


def secret_for(secret: Secret, username: str, algorithm: str) -> ScramSecret:
    """What an exchange is done with: the secret, one made of the password, or one that no password fits."""
    if isinstance(secret, ScramSecret) and secret.algorithm == algorithm:
        return secret
    salt = decoy(username, algorithm).salt
    if isinstance(secret, str) and secret:
        try:
            return ScramSecret.make(secret, algorithm, salt=salt)
        except ValueError:
            pass  # a stored password that nobody can send
    ScramSecret.make("no password", algorithm, salt=salt)  # the same work
    return decoy(username, algorithm)


def decoy(username: str, algorithm: str) -> ScramSecret:
    """The secret of a user who is not there: the same salt each time, as a real one has."""
    chance = hmac.digest(_CHANCE, f"{algorithm} {username}".encode(), "sha512")
    size = hashlib.new(algorithm).digest_size
    return ScramSecret(algorithm, ITERATIONS, chance[:16], chance[16 : 16 + size], chance[:size])


def _keys(algorithm: str, password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey (RFC 5802 section 3)."""
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    return hashlib.new(algorithm, client_key).digest(), hmac.digest(salted, b"Server Key", algorithm)


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


# --- the exchange


class Passwords(Protocol):
    def password(self, username: str) -> Secret: ...
    @property
    def server_certificate(self) -> bytes: ...
    @property
    def offers_binding(self) -> bool: ...


_GS2 = r"(?P<gs2>(?P<binding>n|y|p=[A-Za-z0-9.-]+),(?:a=(?P<authorization>[^,]+))?,)"
_NONCE = r"r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*"
_FIRST = re.compile(rf"{_GS2}(?P<bare>n=(?P<name>[^,]+),{_NONCE})")
_FINAL = re.compile(rf"(?P<without>c=(?P<binding>[A-Za-z0-9+/=]+),{_NONCE}),p=(?P<proof>[A-Za-z0-9+/=]+)")
_MALFORMED = Reject(501, "5.5.2 Malformed SCRAM message")


def scram(
    algorithm: str, plus: bool, initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Passwords
) -> str:
    """The exchange of RFC 5802 section 5; the server's signature is a challenge that the client answers empty."""
    first = _match(_FIRST, ask(b"") if initial is None else initial)
    name = _name(first["name"])
    _check_binding(first["binding"], plus, verifier)
    secret = secret_for(verifier.password(name), name, algorithm)
    nonce = first["nonce"] + _b64(os.urandom(18))
    server_first = f"r={nonce},s={_b64(secret.salt)},i={secret.iterations}"
    final = _match(_FINAL, ask(server_first.encode()))
    binding = first["gs2"].encode() + (server_end_point(verifier.server_certificate) if plus else b"")
    # Every check is made before any is answered, so that they fail alike.
    message = f"{first['bare']},{server_first},{final['without']}".encode()
    proven = _proves(secret, message, _unb64(final["proof"]))
    bound = hmac.compare_digest(_unb64(final["binding"]), binding)
    if not (proven and bound and final["nonce"] == nonce and first["authorization"] in (None, first["name"])):
        raise Reject(reply.AUTH_FAILED)
    signature = hmac.digest(secret.server_key, message, algorithm)
    if ask(b"v=" + base64.b64encode(signature)):
        raise _MALFORMED
    return name


def _match(pattern: re.Pattern[str], octets: bytes) -> re.Match[str]:
    try:
        found = pattern.fullmatch(octets.decode("utf-8"))
    except UnicodeDecodeError:
        found = None
    if found is None:  # an extension we must understand (m=) comes here too
        raise _MALFORMED
    return found


def _name(encoded: str) -> str:
    """saslname (RFC 5802 section 5.1)."""
    if re.search("=(?!2C|3D)", encoded):
        raise _MALFORMED
    try:
        name = saslprep(encoded.replace("=2C", ",").replace("=3D", "="))
    except ValueError:
        raise Reject(reply.AUTH_FAILED) from None
    if not name.isprintable() or not name:
        raise Reject(reply.AUTH_FAILED)
    return name


def _check_binding(flag: str, plus: bool, verifier: Passwords) -> None:
    """RFC 5802 section 6: "y" says that we seem not to offer -PLUS; if we did, somebody stands between us."""
    if plus:
        if flag != "p=tls-server-end-point":
            raise Reject(reply.AUTH_FAILED)
    elif flag[0] == "p" or (flag == "y" and verifier.offers_binding):
        raise Reject(reply.AUTH_FAILED)


def _proves(secret: ScramSecret, message: bytes, proof: bytes) -> bool:
    signature = hmac.digest(secret.stored_key, message, secret.algorithm)
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.new(secret.algorithm, client_key).digest(), secret.stored_key)


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _MALFORMED from None


# --- channel binding

# Hash of the certificate by its signature algorithm (RFC 5929 section 4.1): MD5 and SHA-1 count as SHA-256.
_SIGNATURE_HASHES = {
    bytes.fromhex(oid): name
    for oid, name in {
        "2a864886f70d01010c": "sha384",  # sha384WithRSAEncryption
        "2a864886f70d01010d": "sha512",
        "2a864886f70d01010e": "sha224",
        "2a8648ce3d040301": "sha224",  # ecdsa-with-SHA224
        "2a8648ce3d040303": "sha384",
        "2a8648ce3d040304": "sha512",
    }.items()
}


def server_end_point(certificate: bytes) -> bytes:
    """tls-server-end-point (RFC 5929 section 4) of a certificate in DER."""
    return hashlib.new(_SIGNATURE_HASHES.get(_signature_algorithm(certificate), "sha256"), certificate).digest()


def _signature_algorithm(certificate: bytes) -> bytes:
    """The object identifier: Certificate ::= SEQUENCE { tbsCertificate, SEQUENCE { OBJECT IDENTIFIER ... (RFC 5280)"""
    content, _ = _contents(certificate, 0)
    _, after = _contents(certificate, content)
    algorithm, _ = _contents(certificate, after)
    start, end = _contents(certificate, algorithm)
    return certificate[start:end]


def _contents(der: bytes, place: int) -> tuple[int, int]:
    """Where the contents of the DER value at `place` begin and end."""
    length = der[place + 1]
    start = place + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[place + 2 : start], "big")
    return start, start + length
