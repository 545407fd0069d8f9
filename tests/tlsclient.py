"""A TLS client whose records can be sent in pieces: what is encrypted, and what is sent, are two steps."""

from __future__ import annotations

import socket
import ssl


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Sealer:
    """`first` is the ClientHello; `hear(octets)` takes what the server says and returns what is to be sent next."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = (context or trusting()).wrap_bio(self._in, self._out, server_hostname="localhost")
        self.first = self.hear(b"")

    def hear(self, octets: bytes) -> bytes:
        self._in.write(octets)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._out.read()

    def seal(self, octets: bytes) -> bytes:
        """In a record of its own."""
        self._tls.write(octets)
        return self._out.read()

    def open(self, octets: bytes) -> bytes:
        """What the server's records hold, as far as they are here."""
        self._in.write(octets)
        content = b""
        try:
            while data := self._tls.read(65536):
                content += data
        except ssl.SSLWantReadError:
            pass
        return content

    def shake(self, sock: socket.socket) -> None:
        """The handshake, over a blocking socket."""
        sock.sendall(self.first)
        while self._tls.version() is None or not self._finished():
            sock.sendall(self.hear(sock.recv(65536)))

    def _finished(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True
