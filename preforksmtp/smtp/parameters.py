"""The parameters that extensions add to MAIL and RCPT: a table of rows, each with the function that reads the value.

Text in, the value handlers see out, or Reject: malformed 501, unknown or not offered to this session 555. What is only
of use to reports (RFC 3461), or is believed of few (AUTH), has a lenient reader too: mail is not lost over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.xtext import decode_lenient_xtext, decode_xtext

Reader = Callable[[str | None], Any]
Parameters = Mapping[str, Reader]


class Parameter(NamedTuple):
    extension: str  # the EHLO keyword that must be offered; "" = accepted from everybody
    read: Reader
    lenient: Reader | None = None  # of address_syntax=lenient; it may return DROPPED, and never refuses


DROPPED = object()  # as if the parameter had not been given


def read_parameters(given: Mapping[str, str | None], known: Parameters) -> dict[str, Any]:
    """The values of the parameters given, each by its row of the table `known`."""
    values = {}
    for keyword, text in given.items():
        read = known.get(keyword)
        if read is None:
            raise Reject(reply.UNKNOWN_PARAMETER)
        value = read(text)
        if value is not DROPPED:
            values[keyword] = value
    if "HOLDFOR" in values and "HOLDUNTIL" in values:  # RFC 4865 section 5
        raise Reject(reply.BAD_PARAMETER)
    return values


def _need(value: str | None, condition: bool) -> str:
    if value is None or not condition:
        raise Reject(reply.BAD_PARAMETER)
    return value


def _size(value: str | None) -> int:
    """RFC 1870: up to 20 digits."""
    digits = value or ""
    return int(_need(value, digits.isascii() and digits.isdigit() and len(digits) <= 20))


def _one_of(*words: str) -> Callable[[str | None], str]:
    def read(value: str | None) -> str:
        word = (value or "").upper()
        _need(value, word in words)
        return word

    return read


def _flag(value: str | None) -> bool:
    if value is not None:
        raise Reject(reply.BAD_PARAMETER)
    return True


def _xtext(value: str | None) -> str:
    text = decode_xtext(value or "")
    if text is None:
        raise Reject(reply.BAD_PARAMETER)
    return text


def _submitter(value: str | None) -> str:
    """AUTH= (RFC 4954 section 5): who submitted it first, "" for `<>`."""
    text = _xtext(value)
    return "" if text == "<>" else text


def _lenient_submitter(value: str | None) -> str:
    """What cannot be read counts as `<>`."""
    text = decode_lenient_xtext(value or "")
    return "" if text is None or not text.isascii() or text == "<>" else text


def _envid(value: str | None) -> str:
    """RFC 3461 section 4.4: up to 100 characters as sent."""
    return _xtext(_need(value, len(value or "") <= 100))


def _lenient_envid(value: str | None) -> Any:
    """As text where it is no xtext."""
    return decode_lenient_xtext(value or "") or value or DROPPED


def _lenient_return(value: str | None) -> Any:
    word = (value or "").upper()
    return word if word in ("FULL", "HDRS") else DROPPED


def _notify(value: str | None) -> tuple[str, ...]:
    """RFC 3461 section 4.1: NEVER alone, or some of SUCCESS, FAILURE, DELAY."""
    words = tuple((value or "").upper().split(","))
    known = {"SUCCESS", "FAILURE", "DELAY"}.issuperset(words) and len(set(words)) == len(words)
    _need(value, known or words == ("NEVER",))
    return words


def _lenient_notify(value: str | None) -> Any:
    """The words that there are; of a NEVER that is not alone nobody knows what was meant."""
    words = (value or "").upper().split(",")
    known = tuple(dict.fromkeys(word for word in words if word in ("NEVER", "SUCCESS", "FAILURE", "DELAY")))
    return known if known and ("NEVER" not in known or len(known) == 1) else DROPPED


_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_UTF8_XTEXT = re.compile(r"(?:[^\x00-\x20+=\\\x7f-\xa0]|\\x\{[0-9A-F]{2,6}\}|\+[0-9A-F]{2})+")
_LENIENT_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}|((?:\+[0-9A-Fa-f]{2})+)")
_ESCAPED = re.compile(r"\\x\{([0-9A-F]{2,6})\}|\+([0-9A-F]{2})")


def _orcpt(value: str | None) -> str:
    """RFC 3461 section 4.2: `rfc822;mailbox`, the address decoded; RFC 6533 section 3 for type utf-8."""
    kind, semicolon, address = _need(value, len(value or "") <= 500).partition(";")
    if not semicolon or _ADDRESS_TYPE.fullmatch(kind) is None:
        raise Reject(reply.BAD_PARAMETER)
    if kind.lower() == "utf-8":
        text = _decode_unicode(address)
        if text is None:
            raise Reject(reply.BAD_PARAMETER)
        return f"{kind};{text}"
    return f"{kind};{_xtext(address)}"


def _lenient_orcpt(value: str | None) -> Any:
    """As text where it is no xtext. Postfix writes UTF-8 with the type rfc822 (RFC 6533 section 3 wants utf-8)."""
    kind, _, address = (value or "").partition(";")
    if not address or _ADDRESS_TYPE.fullmatch(kind) is None:
        return DROPPED
    text = _decode_lenient_unicode(address) if kind.lower() == "utf-8" else decode_lenient_xtext(address)
    return f"{kind};{text or address}"


def _decode_unicode(address: str) -> str | None:
    if _UTF8_XTEXT.fullmatch(address) is None:
        return None
    try:
        text = _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), address)  # once: \x{2B} is a plus sign
    except ValueError:  # beyond U+10FFFF
        return None
    return text if text.isprintable() else None


def _decode_lenient_unicode(address: str) -> str | None:
    try:
        text = _LENIENT_ESCAPED.sub(_unescape, address)
    except ValueError:  # beyond U+10FFFF, or octets that are no UTF-8
        return None
    return text if text.isprintable() else None


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else bytes.fromhex(found[2].replace("+", "")).decode()


def _priority(value: str | None) -> int:
    """RFC 6710: -9 to 9."""
    return int(_need(value, re.fullmatch(r"0|-?[1-9]", value or "") is not None))


class DeliverBy(NamedTuple):
    """BY= (RFC 2852): `seconds` from now, `mode` "N"otify or "R"eturn, and whether to trace."""

    seconds: int
    mode: str
    trace: bool


def _deliver_by(value: str | None) -> DeliverBy:
    found = re.fullmatch(r"([-+]?[0-9]{1,9});([NR])(T?)", value or "", re.IGNORECASE)
    if found is None:
        raise Reject(reply.BAD_PARAMETER)
    seconds, mode = int(found[1]), found[2].upper()
    if mode == "R" and seconds <= 0:  # RFC 2852 section 4
        raise Reject(reply.BAD_PARAMETER)
    return DeliverBy(seconds, mode, bool(found[3]))


def _hold_for(value: str | None) -> int:
    """RFC 4865 section 4: seconds from now."""
    return int(_need(value, re.fullmatch(r"[1-9][0-9]{0,8}", value or "") is not None))


def check_declared(params: Mapping[str, Any], extensions: Mapping[str, str]) -> None:
    """Refuse what is beyond the limits that EHLO has told, as the handler declares them in `extensions`."""
    hold = params.get("HOLDFOR", 0)
    if "HOLDUNTIL" in params:
        hold = (params["HOLDUNTIL"] - datetime.now(timezone.utc)).total_seconds()
    if hold > int(extensions.get("FUTURERELEASE", 0)):  # RFC 4865 section 4
        raise Reject(reply.BAD_PARAMETER)
    by = params.get("BY")
    if by is not None and by.mode == "R" and by.seconds < int(extensions["DELIVERBY"] or 0):  # RFC 2852 section 4
        raise Reject(reply.BY_TOO_SHORT)


_TWO = "[0-9]{2}"
_DATE_TIME = re.compile(rf"[0-9]{{4}}-{_TWO}-{_TWO}T{_TWO}:{_TWO}:{_TWO}(?:\.[0-9]+)?(?:Z|[-+]{_TWO}:{_TWO})")


def _date_time(value: str | None) -> datetime:
    """RFC 3339, as RFC 4865 and RFC 7293 have it: 2026-11-24T08:00:00Z."""
    text = _need(value, _DATE_TIME.fullmatch(value or "") is not None)
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", text.replace("Z", "+00:00")))
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise Reject(reply.BAD_PARAMETER) from None


class ValidSince(NamedTuple):
    """RRVS= (RFC 7293): the recipient must have owned the mailbox since; `action` is "R"eject or "C"ontinue."""

    since: datetime
    action: str


def _valid_since(value: str | None) -> ValidSince:
    moment, semicolon, action = (value or "").partition(";")
    action = action.upper() or "R"
    if semicolon and action not in ("C", "R"):
        raise Reject(reply.BAD_PARAMETER)
    return ValidSince(_date_time(moment), action)


MAIL_PARAMETERS = {
    "SIZE": Parameter("SIZE", _size),
    "BODY": Parameter("8BITMIME", _one_of("7BIT", "8BITMIME", "BINARYMIME")),
    "SMTPUTF8": Parameter("SMTPUTF8", _flag),
    "AUTH": Parameter("", _submitter, _lenient_submitter),  # even clients that were offered no AUTH send AUTH=<>
    "RET": Parameter("DSN", _one_of("FULL", "HDRS"), _lenient_return),
    "ENVID": Parameter("DSN", _envid, _lenient_envid),
    "REQUIRETLS": Parameter("REQUIRETLS", _flag),
    "MT-PRIORITY": Parameter("MT-PRIORITY", _priority),
    "BY": Parameter("DELIVERBY", _deliver_by),
    "HOLDFOR": Parameter("FUTURERELEASE", _hold_for),
    "HOLDUNTIL": Parameter("FUTURERELEASE", _date_time),
    "PRDR": Parameter("PRDR", _flag),
}
RCPT_PARAMETERS = {
    "NOTIFY": Parameter("DSN", _notify, _lenient_notify),
    "ORCPT": Parameter("DSN", _orcpt, _lenient_orcpt),
    "RRVS": Parameter("RRVS", _valid_since),
}
FORGIVEN = frozenset(
    name for table in (MAIL_PARAMETERS, RCPT_PARAMETERS) for name, row in table.items() if row.lenient is not None
)
