"""The two grammars of commands, by the setting address_syntax: `strict` is the RFCs', `lenient` what real clients send.

A Syntax is the functions that differ. Policy is in neither: section 4.1.4 of RFC 5321 forbids refusing mail over the
name in EHLO, and who may send what to whom is the handler's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from preforksmtp.smtp import address, command, lenient
from preforksmtp.smtp.address import Path
from preforksmtp.smtp.parameters import FORGIVEN, Parameter, Reader

_remember = lru_cache(1024)  # paths: addresses come again, and matching one is the dearest part of MAIL and RCPT


class Syntax(NamedTuple):
    decode: Callable[[bytes], str]  # a command line
    is_helo: Callable[[str], bool]  # of a name that is not empty
    read_sender: Callable[[str], Path | None]
    read_recipient: Callable[[str], Path | None]
    recall_sender: Callable[[str], Path | None]  # the same two, remembered: for what is not long
    recall_recipient: Callable[[str], Path | None]
    parse_parameters: Callable[[str], dict[str, str | None]]
    choose_reader: Callable[[Parameter], Reader]
    find_path: Callable[[str, str], str | None]  # what follows "FROM:" or "TO:", where it does not stand at once
    forgives: bool  # what is of no use for delivery is dropped rather than refused


def _absent(argument: str, keyword: str) -> None:
    return None


def _find_path(argument: str, keyword: str) -> str | None:
    """With blanks before the keyword or before its colon."""
    found = re.match(rf"[ \t]*{keyword}[ \t]*:", argument, re.IGNORECASE | re.ASCII)
    return argument[found.end() :] if found else None


SYNTAXES: Mapping[str, Syntax] = {
    "strict": Syntax(
        decode=command.decode,
        is_helo=address.is_helo_name,
        read_sender=address.read_reverse_path,
        read_recipient=address.read_forward_path,
        recall_sender=_remember(address.read_reverse_path),
        recall_recipient=_remember(address.read_forward_path),
        parse_parameters=command.parse_parameters,
        choose_reader=lambda row: row.read,
        find_path=_absent,
        forgives=False,
    ),
    "lenient": Syntax(
        decode=command.decode_lenient,
        is_helo=str.isprintable,
        read_sender=lenient.read_reverse_path,
        read_recipient=lenient.read_forward_path,
        recall_sender=_remember(lenient.read_reverse_path),
        recall_recipient=_remember(lenient.read_forward_path),
        parse_parameters=partial(command.parse_parameters, blanks=" \t", forgiven=FORGIVEN),
        choose_reader=lambda row: row.lenient or row.read,
        find_path=_find_path,
        forgives=True,
    ),
}
