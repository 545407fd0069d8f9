"""The TLS handshake of a server: wait for the client's hello, choose the certificate, shake hands, say why it failed.

Every failure is a ConnectionError with one line for the log, in words that tell which side must change what; a client
that left without an octet is EOFError. Runs in session threads, under a deadline.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from preforksmtp.net.channel_binding import channel_bindings
from preforksmtp.net.client_hello import MOST_OCTETS, ClientHello, await_hello
from preforksmtp.net.pace import Wait
from preforksmtp.net.tls import ServerContext

_NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"  # a fatal alert, in a record (RFC 7301 section 3.2)

_DRAINING = "TLS handshake given up, the server shuts down"
_LEFT = "the client left in the middle of it"

# OpenSSL's reasons that people meet, in words. The rest is shown as OpenSSL has it.
_REASONS = {
    "UNSUPPORTED_PROTOCOL": "the client offers no version of TLS that tls_min_version allows",
    "VERSION_TOO_LOW": "the client offers no version of TLS that tls_min_version allows",
    "NO_SHARED_CIPHER": "no cipher in common with the client (setting ciphers, or the kind of our key)",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no signature algorithm in common with the client (the kind of our key)",
    "NO_SUITABLE_KEY_SHARE": "no key exchange in common with the client",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, and cert_reqs requires one",
    "UNEXPECTED_EOF_WHILE_READING": _LEFT,
    "Closed before TLS handshake with data in recv buffer.": _LEFT,  # of the ssl module itself
    "UNEXPECTED_MESSAGE": "the client sent a message out of turn",
    "BAD_SIGNATURE": "the client's signature is wrong",
}
_UNTRUSTED = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED", "UNSUPPORTED_CERTIFICATE")


class TLS(NamedTuple):
    """The facts of a TLS connection.

    version, cipher       as the ssl module names them: "TLSv1.3", "TLS_AES_256_GCM_SHA384"
    sni                   the server name the client asked for, "" if none; odd octets as \\x escapes
    peer_certificate      the verified certificate of the client, as SSLSocket.getpeercert() gives it, or None
    peer_certificate_der  the same as it was sent, or None
    server_certificate    our certificate in use, DER; b"" where a context of the user's own does not tell
    bindings              channel bindings by name (net/channel_binding.py)
    """

    version: str
    cipher: str
    sni: str
    peer_certificate: Any
    peer_certificate_der: bytes | None = None
    server_certificate: bytes = b""
    bindings: Mapping[str, bytes] = MappingProxyType({})


def expect_hello(sock: socket.socket, context: ssl.SSLContext, wait: Wait) -> ClientHello:
    """Wait for the client to begin. Refuses protocols (ALPN) that are not ours."""
    try:
        hello = await_hello(sock, wait)
    except TimeoutError as late:
        why = f"TLS handshake not begun {wait.told(late)}: does the client speak in clear?"
        raise ConnectionError(why) from None
    except InterruptedError:
        raise ConnectionError(_DRAINING) from None
    except OSError as error:
        raise ConnectionError(f"TLS handshake failed: {error}") from None
    if hello.protocols and isinstance(context, ServerContext) and context.protocols.isdisjoint(hello.protocols):
        # OpenSSL would go on without; but what was meant for a web server must not be taken for mail (ALPACA).
        sock.recv(MOST_OCTETS)  # unread, it would turn the close into a reset, and that destroys the alert
        sock.sendall(_NO_APPLICATION_PROTOCOL)
        offered = ", ".join(ascii(name)[2:-1] for name in hello.protocols[:4])
        raise ConnectionError(f"TLS handshake failed: the client speaks {offered:.80}, not smtp (ALPN)")
    return hello


def choose_context(context: ssl.SSLContext, hello: ClientHello) -> ssl.SSLContext:
    """The one for the server name that the client asks for."""
    return context.for_name(hello.server_name) if isinstance(context, ServerContext) else context


@contextmanager
def explained() -> Iterator[None]:
    """Whatever fails inside becomes a ConnectionError with one clear line."""
    try:
        yield
    except InterruptedError:
        raise ConnectionError(_DRAINING) from None
    except TimeoutError as late:
        why = "the client stopped in the middle of it" + (f" ({late})" if late.args else "")
    except ssl.SSLError as error:
        why = explain(error)
    except OSError:  # reset, broken pipe: the client's, whatever its number
        why = _LEFT
    else:
        return
    raise ConnectionError(f"TLS handshake failed: {why}")


def shake_hands(sock: ssl.SSLSocket, wait: Wait) -> None:
    """The handshake itself; call it within explained()."""
    sock.settimeout(0)
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            events = select.POLLIN
        except ssl.SSLWantWriteError:
            events = select.POLLOUT
        wait.ready(sock, events)


def describe(sock: ssl.SSLSocket, context: ssl.SSLContext, hello: ClientHello) -> TLS:
    """The facts, once hands are shaken."""
    cipher = sock.cipher()
    certificate = context.certificate if isinstance(context, ServerContext) else b""
    return TLS(
        version=sock.version() or "",
        cipher=cipher[0] if cipher else "",
        sni=hello.server_name.decode("latin-1").encode("unicode_escape").decode("ascii"),
        peer_certificate=sock.getpeercert() or None,
        peer_certificate_der=sock.getpeercert(True),
        server_certificate=certificate,
        bindings=channel_bindings(sock, certificate),
    )


def explain(error: ssl.SSLError) -> str:
    """Why a handshake failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)):
        return _LEFT
    reason = error.reason or ""
    if "_ALERT_" in reason:  # sent by the client
        alert = reason.partition("_ALERT_")[2]
        words = alert.lower().replace("_", " ")
        if alert in _UNTRUSTED:
            return f"the client does not trust our certificate (alert {words})"
        return f"the client gave up (alert {words})"
    return _REASONS.get(reason) or (reason or str(error)).lower().replace("_", " ")
