"""What hostile clients say in AUTH: mutants of honest messages, and the worst that each parser can be given.

Seeded by whoever asks, endless, and nothing but bytes: the tests of smtp/ feed it to a dialogue, the soak to a server.
"""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Iterator

from preforksmtp.smtp.sasl import MECHANISMS
from preforksmtp.smtp.saslprep import MOST

BINDING = "tls-unique"
# What clients say in each mechanism, of which mutants are made: to `bob`, whose password nobody says, and `eve`.
MESSAGES: dict[str, list[bytes]] = {
    "EXTERNAL": [b"", b"alice"],
    "CRAM-MD5": [b"bob b913a602c7eda7a495b4e6e7334d3890"],
    "OAUTHBEARER": [b"n,a=bob,\1host=h\1port=25\1auth=Bearer abc\1\1", b"\1"],
    "XOAUTH2": [b"user=bob\1auth=Bearer abc\1\1", b""],
    "PLAIN": [b"\0bob\0secret", b"bob\0bob\0secret", b"\0eve\0wrong"],
    "LOGIN": [b"bob", b"secret"],
}
for name in MECHANISMS:
    if name.startswith("SCRAM"):
        gs2 = f"p={BINDING},,".encode() if name.endswith("PLUS") else b"n,,"
        MESSAGES[name] = [gs2 + b"n=bob,r=abc", b"c=" + base64.b64encode(gs2 + b"x") + b",r=abc,p=" + b"A" * 43 + b"="]

ROOM = 9000  # octets that base64 makes a line of, RFC 4954 section 4
_GROWS = "\ufdfa"  # three octets, and eighteen characters once normalized
_SORTED = "".join(sorted(map(chr, range(0x300, 0x34F)), key=ord, reverse=True))  # combining marks, to be put in order
_WORDS = (_GROWS, _SORTED, "\u00ad", "\u0627", "\U0001f600", "x", "\t", ",", "=", "=2C", "a=,", "\1", "a\1", "a=\1", "\0")


def mutate(chance: random.Random, octets: bytes) -> bytes:
    """A few octets changed, taken out, put in; or all of it many times."""
    text = bytearray(octets)
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        place = chance.randrange(len(text) + 1)
        text[place : place + chance.randrange(3)] = chance.choice(
            [b"", b"\0", b",", b"=", b"\1", b"\xff", b"\r\n", "\u00ad\u0627".encode(), bytes([chance.randrange(256)])]
        )
    return bytes(text) * chance.choice([1, 1, 1, 1, 1, 2, 50])


def exchanges(chance: random.Random, mechanism: str) -> list[bytes]:
    """A few AUTH commands and what follows each, as lines; most messages are base64 of a mutant, some are mutants of
    base64, a few cancel."""
    lines = []
    for _ in range(chance.randrange(1, 4)):
        lines.append(b"AUTH " + mechanism.encode())
        messages = MESSAGES[mechanism]
        for number in range(chance.randrange(4)):
            line = base64.b64encode(mutate(chance, messages[number % len(messages)]))
            if chance.random() < 0.2:
                line = mutate(chance, line).replace(b"\r", b"").replace(b"\n", b"")
            if chance.random() < 0.05:
                line = b"*"
            if number == 0 and chance.random() < 0.5:
                lines[-1] += b" " + line
            else:
                lines.append(line)
    return [line[:20000] + b"\r\n" for line in lines]  # beyond the 12288 octets of a line, but not far


def worst(mechanism: str) -> Iterator[list[bytes]]:
    """The messages of one exchange that cost the parser most: every field as long as a line lets it be, or as a name may
    be, and filled with each kind of text that somebody looks at more closely."""
    honest = MESSAGES[mechanism]
    for number, message in enumerate(honest):
        for word, size in itertools.product(_WORDS, (ROOM - len(message), MOST - 10)):
            filling = (word * size).encode()[:size].decode("utf-8", "ignore").encode()
            for place in _fields(message):
                yield [*honest[:number], message[:place] + filling + message[place:], *honest[number + 1 :]]


def _fields(message: bytes) -> Iterator[int]:
    """Where one begins or ends."""
    yield 0
    for place, octet in enumerate(message):
        if octet in b"\0\1,= ":
            yield place
            yield place + 1
    yield len(message)
