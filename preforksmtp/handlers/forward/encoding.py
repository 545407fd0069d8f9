"""What a message looks like on its way to the next hop: parameters encoded again, and the content behind DATA.

Pure functions and one small state machine; knows no connection, only the keywords that the next hop's EHLO offered.
Raises Reject where the message needs what the next hop does not offer, and for content that could end it early.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from preforksmtp import Reject

if TYPE_CHECKING:
    from preforksmtp import Message

BLOCK = 64 * 1024
MOST_RECEIVED = 100  # RFC 5321 section 6.3
_LONGEST_ENVID = 100  # RFC 3461 section 4.4
_LONGEST_ORCPT = 500  # section 4.2

_NOT_XTEXT = re.compile(r"[^!-*,-<>-~]")
_NOT_UTF8_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")
_ANY_NEWLINE = re.compile(rb"\r\n|\r|\n")


def mail_parameters(
    params: Mapping[str, Any], keywords: Mapping[str, str], *, authenticated: bool, verified: bool, local: bool
) -> list[str]:
    """The parameters of MAIL for a next hop with these keywords.

    `authenticated`: we have logged in there; `verified`: by TLS, its certificate checked; `local`: a unix socket.
    """
    body = params.get("BODY")
    if body == "BINARYMIME" and not {"BINARYMIME", "CHUNKING"} <= keywords.keys():  # RFC 3030 section 3
        raise Reject(554, "5.6.1 BODY=BINARYMIME is not supported by the next hop")
    if "REQUIRETLS" in params and not local and not (verified and "REQUIRETLS" in keywords):  # RFC 8689 section 4.2.1
        raise Reject(550, "5.7.30 REQUIRETLS support required: the next hop does not offer it, or is not verified")
    words = []
    if "SIZE" in params and "SIZE" in keywords:
        words.append(f"SIZE={params['SIZE']}")
    if body is not None and ("8BITMIME" in keywords or body == "BINARYMIME"):
        words.append(f"BODY={body}")
    if "SMTPUTF8" in params and "SMTPUTF8" in keywords:
        words.append("SMTPUTF8")
    if "REQUIRETLS" in params and "REQUIRETLS" in keywords:
        words.append("REQUIRETLS")
    if "AUTH" in params and "AUTH" in keywords and authenticated:  # RFC 4954 section 5: else nobody believes it
        words.append(f"AUTH={xtext(params['AUTH']) or '<>'}")
    if "DSN" in keywords:  # without it they are dropped (RFC 3461 section 5.2.2), but no "relayed" report is sent
        if "RET" in params:
            words.append(f"RET={params['RET']}")
        if "ENVID" in params and len(envid := xtext(params["ENVID"])) <= _LONGEST_ENVID and params["ENVID"].isascii():
            words.append(f"ENVID={envid}")
    if "MT-PRIORITY" in params and "MT-PRIORITY" in keywords:
        words.append(f"MT-PRIORITY={params['MT-PRIORITY']}")
    return words


def rcpt_parameters(params: Mapping[str, Any], keywords: Mapping[str, str]) -> list[str]:
    """The parameters of RCPT for a next hop with these keywords."""
    words = []
    if "DSN" in keywords:
        if "NOTIFY" in params:
            words.append(f"NOTIFY={','.join(params['NOTIFY'])}")
        if "ORCPT" in params and len(original := original_recipient(params["ORCPT"])) <= _LONGEST_ORCPT:
            words.append(f"ORCPT={original}")
    return words


def check_address(address: str, keywords: Mapping[str, str]) -> None:
    """RFC 6531 section 3.5: an address that is not ASCII goes nowhere without SMTPUTF8."""
    if not address.isascii() and "SMTPUTF8" not in keywords:
        raise Reject(550, "5.6.7 Non-ASCII addresses are not supported by the next hop")


def xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return _NOT_XTEXT.sub(lambda found: "".join(f"+{octet:02X}" for octet in found[0].encode()), text)


def original_recipient(value: str) -> str:
    """The value of ORCPT, `type;address`: RFC 3461 section 4.2; for type utf-8 the ASCII form of RFC 6533 section 3.

    An address that is not ASCII is of that type, whatever was said.
    """
    kind, _, address = value.partition(";")
    if kind.lower() == "rfc822" and not address.isascii():
        kind = "utf-8"
    if kind.lower() == "utf-8":
        return f"{kind};" + _NOT_UTF8_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)
    return f"{kind};{xtext(address)}"


def blocks(body: IO[bytes]) -> Iterator[bytes]:
    while block := body.read(BLOCK):
        yield block


def is_seven_bit(message: Message) -> bool:
    with message.open() as body:
        return all(block.isascii() for block in blocks(body))


class DataEncoder:
    """The content as it stands behind DATA: lines end with CRLF, dots are doubled, whatever the borders of blocks.

    A bare CR or LF becomes CRLF: to some servers it ends a line, and a dot may follow (SMTP smuggling). With
    --bare-newlines accept, or in BDAT, they come as far as here; the content is then not the same byte for byte.
    """

    def __init__(self) -> None:
        self._line_begins = True
        self._held = b""  # a CR whose LF may come with the next block

    def encode(self, block: bytes) -> bytes:
        data = self._held + block
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if not data:
            return b""
        rest = b"".join(data.split(b"\r\n"))
        if b"\r" in rest or b"\n" in rest:
            data = _ANY_NEWLINE.sub(b"\r\n", data)
        if b"\0" in data and (b"\r\n\0" in data or (self._line_begins and data[0] == 0)):
            # RFC 5321 and 6152 know no NUL; a server that drops it would see the dot behind it alone on its line.
            raise Reject(554, "5.6.0 A line that begins with NUL cannot be sent to the next hop")
        begins_with_dot = self._line_begins and data[0] == 46
        self._line_begins = data.endswith(b"\r\n")
        data = data.replace(b"\r\n.", b"\r\n..")  # RFC 5321 section 4.5.2
        return b"." + data if begins_with_dot else data

    def finish(self) -> bytes:
        """What is left of the content, up to the end of its last line; without the final dot."""
        whole = self._line_begins and not self._held
        self._held, self._line_begins = b"", True
        return b"" if whole else b"\r\n"
