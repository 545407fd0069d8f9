"""Seeded, bounded fuzzing of what comes over a TLS connection, against OpenSSL itself: before the handshake and behind it.

Whatever comes, the wire raises what a connection may raise, in time, and hands on nothing that was not encrypted.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from preforksmtp.net.wire import Wire
from preforksmtp.prefork.worker.seat import Drain
from tests.certificates import make_certificate
from tests.net.pacing import within
from tests.program.conftest import need
from tests.tlsclient import Sealer

DRAIN = Drain()
SECRET = b"THIS WAS ENCRYPTED\r\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    need("openssl")
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    return context


@contextlib.contextmanager
def connection(context: ssl.SSLContext) -> Iterator[tuple[socket.socket, Wire]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 10)
        wire = Wire(listener.accept()[0], DRAIN, within(10.0), context)
    with client:
        yield client, wire
    wire.close(False)


def mutate(dice: random.Random, octets: bytes) -> bytes:
    text = bytearray(octets)
    for _ in range(dice.randrange(1, 5)):
        how, place = dice.randrange(4), dice.randrange(len(text))
        if how == 0:
            text[place] = dice.choice((0, 1, 22, 23, 255, dice.randrange(256)))
        elif how == 1:
            del text[place : place + dice.randrange(1, 20)]
        elif how == 2:
            text[place:place] = dice.choice((b"\x17\x03\x03\0\0", b"\x15\x03\x03\0\2\1\0", b"\x16\x03\x01\0\1\1", dice.randbytes(9)))
        elif len(text) > 1:
            del text[dice.randrange(1, len(text)) :]
        if not text:
            text += b"\x16"
    return bytes(text)


@pytest.mark.parametrize("seed", range(150))
def test_before_the_handshake(context: ssl.SSLContext, seed: int) -> None:
    dice = random.Random(seed)
    sent = mutate(dice, Sealer().first)
    with connection(context) as (client, wire):

        def speak() -> None:
            with contextlib.suppress(OSError):
                cut = dice.randrange(len(sent))
                client.sendall(sent[:cut])
                client.sendall(sent[cut:])
                client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises((EOFError, ConnectionError)) as caught:
            wire.start_tls()
            wire.read_line(100)  # a hello that was not hurt, and then nothing
        assert str(caught.value).isprintable()
        thread.join()


@pytest.mark.parametrize("seed", range(60))
def test_behind_the_handshake(context: ssl.SSLContext, seed: int) -> None:
    dice = random.Random(seed)
    with connection(context) as (client, wire):
        sealer = Sealer()
        thread = threading.Thread(target=sealer.shake, args=(client,))
        thread.start()
        wire.start_tls()
        thread.join()
        wire.write(b"220\r\n")
        wire.flush()
        sent = b"".join(sealer.seal(SECRET) for _ in range(3))
        client.sendall(mutate(dice, sent) + b"QUIT\r\n" * dice.randrange(3))
        client.shutdown(socket.SHUT_WR)
        heard = []
        with pytest.raises((EOFError, ConnectionError)):
            while len(heard) < 10:
                heard.append(wire.read_line(100) if dice.random() < 0.5 else wire.read_block(100))
        assert b"".join(part or b"" for part in heard) in [SECRET * count for count in range(4)]
