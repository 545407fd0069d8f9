"""TLS settings -> ServerContext: an ssl.SSLContext that knows its certificate, and the contexts of other names (SNI).

Built once in the master before the fork: the key may be readable by root only, and the session ticket keys
are then shared by all workers, so that a client resumes its session with any of them. On reload a new
context is built first and takes the place of the old one only if that works.
Fails with TLSError, one line that names the setting and the file; never asks for a password on the terminal.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import ssl
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from preforksmtp.process.place import name_of, reading


class TLSError(Exception):
    """The TLS settings cannot be used; str() is one clear line."""


class TLSSettings(Protocol):
    """The settings read here."""

    @property
    def certfile(self) -> str | None: ...
    @property
    def keyfile(self) -> str | None: ...
    @property
    def keyfile_password_file(self) -> str | None: ...
    @property
    def ca_certs(self) -> str | None: ...
    @property
    def cert_reqs(self) -> str: ...
    @property
    def ciphers(self) -> str | None: ...
    @property
    def tls_min_version(self) -> str: ...
    @property
    def sni(self) -> Mapping[str, tuple[str, str | None]]: ...  # name -> certificate, key (None: in the same file)


MIN_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_CERTIFICATES = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----\s.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.S
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----(?:\r?\nProc-Type: 4,ENCRYPTED)?")


ALPN_PROTOCOL = "smtp"


class ServerContext(ssl.SSLContext):
    """A context with what the ssl module does not give back.

    certificate  the server's certificate, DER
    protocols    what a client that offers protocols (ALPN) must offer one of
    named        the contexts of other names: "mx.example.org", "*.example.org"
    """

    def __init__(self, protocol: int) -> None:
        """`protocol` is taken by SSLContext.__new__."""
        super().__init__()
        self.certificate = b""
        self.protocols: frozenset[bytes] = frozenset()
        self.named: dict[str, ServerContext] = {}

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        names = list(alpn_protocols)
        super().set_alpn_protocols(names)
        self.protocols = frozenset(name.encode() for name in names)

    def for_name(self, server_name: bytes) -> ServerContext:
        """The context for the name a client asks for: the name's own, its domain's wildcard, or this one."""
        if not self.named or not server_name:
            return self
        name = server_name.decode("latin-1").lower().removesuffix(".")
        return self.named.get(name) or self.named.get("*." + name.partition(".")[2]) or self


def server_context(settings: TLSSettings) -> ServerContext:
    """The context of a listener, with those of its other names in it; TLSError with one clear line."""
    context = _build(settings)
    pairs: dict[tuple[str, str | None], ServerContext] = {}  # several names may have one certificate
    for name, pair in settings.sni.items():
        if pair not in pairs:
            try:
                pairs[pair] = _build(_Named(settings, *pair))
            except TLSError as error:
                raise TLSError(f"sni {name}: {error}") from None
        context.named[name] = pairs[pair]
    return context


class _Named:
    """The settings, with the certificate of one name."""

    def __init__(self, settings: TLSSettings, certfile: str, keyfile: str | None) -> None:
        self.certfile = certfile
        self.keyfile = keyfile
        self.keyfile_password_file = settings.keyfile_password_file
        self.ca_certs = settings.ca_certs
        self.cert_reqs = settings.cert_reqs
        self.ciphers = settings.ciphers
        self.tls_min_version = settings.tls_min_version
        self.sni: Mapping[str, tuple[str, str | None]] = {}


def _build(settings: TLSSettings) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # Renegotiation lets a client make the server work for nothing, and TLS 1.3 has none.
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0)
    context.set_alpn_protocols([ALPN_PROTOCOL])
    _set_min_version(context, settings.tls_min_version)
    _set_ciphers(context, settings.ciphers)
    _load_certificate(context, settings)
    _set_client_certificates(context, settings)
    return context


def _set_min_version(context: ssl.SSLContext, version: str) -> None:
    if version not in MIN_VERSIONS:
        raise TLSError(f"tls_min_version {version!r} is not one of {', '.join(MIN_VERSIONS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 1.0 and 1.1 are asked for, for old devices
        context.minimum_version = MIN_VERSIONS[version]


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None) -> None:
    if not ciphers:
        return  # Python's default: forward secrecy and AEAD first
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise TLSError(
            f"ciphers {ciphers!r}: OpenSSL knows none of them (for TLS 1.2 and older; see openssl ciphers)"
        ) from None


# --- the server's certificate and key


def _load_certificate(context: ServerContext, settings: TLSSettings) -> None:
    certfile = settings.certfile
    if not certfile:
        raise TLSError("certfile is not set; TLS needs a certificate in certfile, its key in keyfile (PEM)")
    keyfile, key_setting = settings.keyfile or certfile, "keyfile" if settings.keyfile else "certfile"
    with _open("certfile", certfile) as chain_fd, _open(key_setting, keyfile) as key_fd:
        certificate = _CERTIFICATES.search(_content(chain_fd))
        if certificate is None:
            raise TLSError(f"certfile {certfile} has no certificate in PEM format (-----BEGIN CERTIFICATE-----)")
        key = _PRIVATE_KEY.search(_content(key_fd))
        if key is None:
            hint = "" if settings.keyfile else "; set keyfile"
            raise TLSError(f"{key_setting} {keyfile} has no private key in PEM format{hint}")
        encrypted = b"ENCRYPTED" in key[0]
        password = _read_password(settings, f"{key_setting} {keyfile}") if encrypted else b""
        try:
            # A password is always given: without one OpenSSL would ask on the terminal.
            context.load_cert_chain(name_of(chain_fd, certfile), name_of(key_fd, keyfile), password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise TLSError(_explain(error, settings, certfile, f"{key_setting} {keyfile}", encrypted)) from None
    context.certificate = _der(certificate[0])


def _der(pem: bytes) -> bytes:
    """The certificate of a PEM block; a TRUSTED CERTIFICATE has OpenSSL's own data behind it."""
    der = base64.b64decode(b"".join(pem.split(b"-----")[2].split()))
    if der[1] < 0x80:
        return der[: 2 + der[1]]
    start = 2 + (der[1] & 0x7F)
    return der[: start + int.from_bytes(der[2:start], "big")]


def _explain(error: Exception, settings: TLSSettings, certfile: str, key: str, encrypted: bool) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return f"{key} does not belong to the certificate of certfile {certfile}"
    if reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
        return f"certfile {certfile} is too weak for OpenSSL's security level ({_words(reason)})"
    try:
        chain = b"\n".join(_CERTIFICATES.findall(_read("certfile", certfile))).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=chain)
    except (OSError, ValueError):
        return f"certfile {certfile} is damaged: the certificate cannot be read"
    if encrypted:
        return f"{key} cannot be decrypted: the password in {settings.keyfile_password_file} is wrong"
    return f"{key} is damaged: the private key cannot be read" + (f" ({_words(reason)})" if reason else "")


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _read_password(settings: TLSSettings, key: str) -> bytes:
    path = settings.keyfile_password_file
    if not path:
        raise TLSError(f"{key} is encrypted; put its password in a file and set keyfile_password_file")
    password = _read("keyfile_password_file", path).rstrip(b"\r\n")
    if not password:
        raise TLSError(f"keyfile_password_file {path} is empty")
    if len(password) > 1024:  # PEM_BUFSIZE of OpenSSL
        raise TLSError(f"keyfile_password_file {path} has more than the 1024 bytes OpenSSL takes")
    return password


# --- client certificates


def _set_client_certificates(context: ssl.SSLContext, settings: TLSSettings) -> None:
    if settings.cert_reqs not in CERT_REQS:
        raise TLSError(f"cert_reqs {settings.cert_reqs!r} is not one of {', '.join(CERT_REQS)}")
    if settings.ca_certs:
        _load_ca_certs(context, settings.ca_certs)
    elif settings.cert_reqs != "none":
        raise TLSError(f"cert_reqs {settings.cert_reqs} needs ca_certs, the file of the authorities to trust")
    context.verify_mode = CERT_REQS[settings.cert_reqs]


def _load_ca_certs(context: ssl.SSLContext, path: str) -> None:
    if os.path.isdir(path):  # a folder made by openssl rehash
        context.load_verify_locations(capath=path)
        return
    with _open("ca_certs", path) as fd:
        if not _CERTIFICATES.search(_content(fd)):
            raise TLSError(f"ca_certs {path} has no certificate in PEM format (-----BEGIN CERTIFICATE-----)")
        try:
            context.load_verify_locations(name_of(fd, path))
        except OSError:
            raise TLSError(f"ca_certs {path} is damaged: a certificate cannot be read") from None


def _read(setting: str, path: str) -> bytes:
    with _open(setting, path) as fd:
        return _content(fd)


def _content(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read()


@contextlib.contextmanager
def _open(setting: str, path: str) -> Iterator[int]:
    """TLSError. Root reads no secret that another user has linked to, and waits for no FIFO: see place.py."""
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(reading(path))
        except FileNotFoundError:
            raise TLSError(f"{setting} {path} does not exist") from None
        except OSError as error:
            raise TLSError(f"{setting} {path} cannot be read: {error.strerror}") from None
        except ValueError:  # a zero byte in the path
            raise TLSError(f"{setting} {path!r} is not a file name") from None
        yield fd
