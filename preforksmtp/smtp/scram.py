"""SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, without sending it; and ScramSecret.

A secret is what a server may store instead of a password. Nothing in an exchange, neither its messages nor its work,
tells a wrong password from a user who is not there: such a user has a salt as well, made of the name and a key that
outlives the server (preforksmtp/server/salts.py), so that it is the same today and tomorrow, here and on the next host.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.saslprep import MOST, saslprep

ITERATIONS = 4096  # RFC 7677 section 4: the least; more costs each login as much more
MOST_ITERATIONS = 10_000_000  # some seconds of a processor for each attempt: who stores more means something else
SALT_OCTETS = 16
MOST_SALT_OCTETS = 128
NAMES = {"sha1": "SCRAM-SHA-1", "sha256": "SCRAM-SHA-256"}

_SECRET = re.compile(r"(SCRAM-SHA-(?:1|256))\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class ScramSecret:
    """What is stored of a password: it proves that a client knows it, and cannot be used to log in.

    Its text, str(secret), is the one of PostgreSQL: `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
    """

    __slots__ = ("algorithm", "iterations", "salt", "server_key", "stored_key")

    def __init__(self, algorithm: str, iterations: int, salt: bytes, stored_key: bytes, server_key: bytes) -> None:
        if algorithm not in NAMES:
            raise ValueError(f"algorithm {algorithm!r} is none of {', '.join(NAMES)}")
        if not 0 < iterations <= MOST_ITERATIONS:
            raise ValueError(f"{iterations} iterations are not from 1 to {MOST_ITERATIONS}")
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
        salt = os.urandom(SALT_OCTETS) if salt is None else salt
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
        if len(stored_key) != size or len(server_key) != size:
            raise ValueError("keys are of a wrong size")
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


def read_iterations(value: object) -> int:
    """Handler.scram_iterations. Raises ValueError for what is none, or less than RFC 7677 section 4 allows."""
    if isinstance(value, bool) or not isinstance(value, int) or not ITERATIONS <= value <= MOST_ITERATIONS:
        raise ValueError(f"scram_iterations must be from {ITERATIONS} to {MOST_ITERATIONS} (RFC 7677), not {value!r}")
    return value


def read_salt_octets(value: object) -> int:
    """Handler.scram_salt_octets. Raises ValueError for what is no length of a salt."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SALT_OCTETS:
        raise ValueError(f"scram_salt_octets must be from 1 to {MOST_SALT_OCTETS}, not {value!r}")
    return value


def check_password(secret: Secret, password: str, iterations: int = ITERATIONS) -> bool:
    """Whether `password` is right for a handler's `secret`, as PLAIN and LOGIN ask; the same work whatever that is."""
    if isinstance(secret, ScramSecret):
        return secret.verify(password)
    try:
        prepared, wanted = saslprep(password), saslprep(secret or "")
    except ValueError:
        prepared = wanted = ""
    _keys("sha256", prepared, b"", iterations)
    return hmac.compare_digest(wanted.encode(), prepared.encode()) and bool(wanted)


def _keys(algorithm: str, password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey (RFC 5802 section 3)."""
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    return hashlib.new(algorithm, client_key).digest(), hmac.digest(salted, b"Server Key", algorithm)


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


# --- what an exchange is done with


class Credential:
    """A user's secret in one exchange; one that is not there, or not of this hash, cannot be told from a wrong one.

    `salt` and `iterations` are there at once, whatever they are of, and a password is not worked on before the proof
    is there; then each failure costs one derivation, and each success one at most.
    """

    def __init__(self, secret: Secret, username: str, algorithm: str, server: Passwords) -> None:
        self._algorithm = algorithm
        self._stored: ScramSecret | None = None
        self._password = ""
        if isinstance(secret, ScramSecret):
            if secret.algorithm == algorithm:
                self._stored = secret
        elif secret is not None:
            try:
                self._password = saslprep(secret)
            except ValueError:
                pass  # a password that nobody can send
        # Those of others than stored secrets stay the same for a user, as a stored one does.
        self.salt = self._stored.salt if self._stored else _salt(algorithm, username, server)
        self.iterations = self._stored.iterations if self._stored else server.iterations

    def prove(self, message: bytes, proof: bytes, valid: bool) -> bytes:
        """The server's signature of an exchange that is `valid` but for the client's proof. Raises Reject."""
        stored = self._stored
        if stored is None or not valid:
            stored_key, server_key = _keys(self._algorithm, self._password, self.salt, self.iterations)
            valid = valid and bool(self._password)
        else:
            stored_key, server_key = stored.stored_key, stored.server_key
        if _proves(self._algorithm, stored_key, message, proof) and valid:
            return hmac.digest(server_key, message, self._algorithm)
        if stored is not None and valid:
            _keys(self._algorithm, "", self.salt, self.iterations)  # the work that all others have done
        raise Reject(reply.AUTH_FAILED)


def _salt(algorithm: str, username: str, server: Passwords) -> bytes:
    """For each hash another one, for that is what a user has of whom one hash is stored. As long as the stored ones."""
    name = f"{algorithm} {username}".encode()
    return hashlib.shake_256(hmac.digest(server.salt_key, name, "sha256")).digest(server.salt_octets)


def _proves(algorithm: str, stored_key: bytes, message: bytes, proof: bytes) -> bool:
    signature = hmac.digest(stored_key, message, algorithm)
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.new(algorithm, client_key).digest(), stored_key)


# --- the exchange


class Attempts(Protocol):
    """What keeps count of those who try."""

    def attempt(self) -> None:
        """The handler is about to be asked about what the client says. Raises Reject where it has tried too often."""

    def succeeded(self) -> None:
        """It was right."""


class Passwords(Attempts, Protocol):
    """`iterations` and `salt_octets` of secrets made here, the `salt_key` of users who have none; the channel
    `bindings` of the connection, whether any -PLUS is offered, and what the client asks for, in words for the log."""

    iterations: int
    salt_octets: int
    salt_key: bytes
    bindings: Mapping[str, bytes]
    offers_binding: bool
    asked_binding: str

    def password(self, username: str) -> Secret: ...


# Extensions are let pass where RFC 5802 section 5.1 has them, but for m=, which one must understand. Lengths are ours:
# a client's nonce is part of our challenge, and the name of a binding comes into the log.
_GS2 = r"(?P<gs2>(?P<binding>n|y|p=[A-Za-z0-9.-]{1,40}),(?:a=(?P<authorization>[^,]+))?,)"
_PRINTABLE, _EXTENSIONS = r"[!-+\--~]", r"(?:,[A-Za-ln-z]=[^,\0]+)*"
_FIRST = re.compile(rf"{_GS2}(?P<bare>n=(?P<name>[^,]+),r=(?P<nonce>{_PRINTABLE}{{1,1024}}){_EXTENSIONS})")
_FINAL = re.compile(
    rf"(?P<without>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>{_PRINTABLE}+){_EXTENSIONS}),p=(?P<proof>[A-Za-z0-9+/=]+)"
)


def scram(algorithm: str, plus: bool, initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Passwords) -> str:
    """The exchange of RFC 5802 section 5; the server's signature is a challenge that the client answers empty."""
    first = _match(_FIRST, ask(b"") if initial is None else initial)
    name = _name(first["name"])
    binding = first["gs2"].encode() + _channel_binding(first["binding"], plus, verifier)
    if first["authorization"] and _name(first["authorization"]) != name:  # nobody acts for another here
        raise Reject(reply.AUTH_FAILED)
    verifier.attempt()  # before the hook: how long it looks for somebody may be what the client wants to know
    credential = Credential(verifier.password(name), name, algorithm, verifier)
    nonce = first["nonce"] + _b64(os.urandom(18))
    server_first = f"r={nonce},s={_b64(credential.salt)},i={credential.iterations}"
    final = _match(_FINAL, ask(server_first.encode()))
    message = f"{first['bare']},{server_first},{final['without']}".encode()
    bound = hmac.compare_digest(_unb64(final["binding"]), binding)
    signature = credential.prove(message, _unb64(final["proof"]), bound and final["nonce"] == nonce)
    verifier.succeeded()
    if ask(b"v=" + base64.b64encode(signature)):
        raise Reject(reply.MALFORMED_SCRAM)
    return name


def _match(pattern: re.Pattern[str], octets: bytes) -> re.Match[str]:
    try:
        found = pattern.fullmatch(octets.decode("utf-8"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise Reject(reply.MALFORMED_SCRAM)
    return found


def _name(encoded: str) -> str:
    """saslname (RFC 5802 section 5.1)."""
    if re.search("=(?!2C|3D)", encoded):
        raise Reject(reply.MALFORMED_SCRAM)
    encoded = encoded.replace("=2C", ",").replace("=3D", "=")
    if len(encoded.encode()) > MOST:
        raise Reject(reply.AUTH_FAILED)
    try:
        name = saslprep(encoded)
    except ValueError:
        raise Reject(reply.AUTH_FAILED) from None
    if not name.isprintable() or not name:
        raise Reject(reply.AUTH_FAILED)
    return name


def _channel_binding(flag: str, plus: bool, verifier: Passwords) -> bytes:
    """The data that the client's flag asks for (RFC 5802 section 6).

    "y" says that we seem not to offer -PLUS; if we did, somebody stands between us.
    """
    name = flag[2:]
    if not plus:
        if flag == "y" and verifier.offers_binding:
            verifier.asked_binding = "none, for it was told of none"
        elif name:
            verifier.asked_binding = f"{name}, without -PLUS"
        else:
            return b""
        raise Reject(reply.AUTH_FAILED)
    binding = verifier.bindings.get(name)
    verifier.asked_binding = (name or "none") + (", which this connection lacks" if name and binding is None else "")
    if binding is None:
        raise Reject(reply.AUTH_FAILED)
    return binding


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Reject(reply.MALFORMED_SCRAM) from None
