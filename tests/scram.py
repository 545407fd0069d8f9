"""An honest SCRAM client (RFC 5802), of which tests may change what they like."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable


class ScramClient:
    """Called with each challenge of the server, it returns the response.

    gs2, binding  its flag and the channel's data behind it
    nonce         what a test makes of the nonce it was given, before it signs
    change        what a test does to the final message
    said          the challenges; `signature` is what the server has to prove itself with
    """

    def __init__(
        self, password: str = "pencil", name: str = "user", algorithm: str = "sha256", gs2: str = "n,,"
    ) -> None:
        self.password, self.name, self.algorithm, self.gs2 = password, name, algorithm, gs2
        self.binding = b""
        self.bare = f"n={name},r=clientnonce"
        self.said: list[bytes] = []
        self.signature = b""
        self.nonce: Callable[[str], str] = lambda nonce: nonce
        self.change: Callable[[str], str] = lambda final: final

    @property
    def first(self) -> bytes:
        return (self.gs2 + self.bare).encode()

    def __call__(self, challenge: bytes) -> bytes:
        self.said.append(challenge)
        if challenge.startswith(b"v="):
            return b""
        server = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salt, iterations = base64.b64decode(server["s"]), int(server["i"])
        salted = hashlib.pbkdf2_hmac(self.algorithm, self.password.encode(), salt, iterations)
        key = hmac.digest(salted, b"Client Key", self.algorithm)
        binding = base64.b64encode(self.gs2.encode() + self.binding).decode()
        without = f"c={binding},r={self.nonce(server['r'])}"
        message = f"{self.bare},{challenge.decode()},{without}".encode()
        signature = hmac.digest(hashlib.new(self.algorithm, key).digest(), message, self.algorithm)
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", self.algorithm), message, self.algorithm)
        return self.change(f"{without},p={proof}").encode()
