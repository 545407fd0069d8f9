"""mime/transfer.py: content decoded, at once and in pieces."""

from __future__ import annotations

import base64
import binascii
import io
import random

import pytest

from preforksmtp.mime import transfer
from preforksmtp.mime.transfer import decode_transfer, name_encoding, open_decoded

UU = b"begin 644 a\r\n#0V%T\r\n`\r\nend\r\n"


@pytest.mark.parametrize(
    ("encoding", "encoded", "decoded"),
    [
        ("base64", b"SGVsbG8=", b"Hello"),
        ("base64", b"SGVs\r\nbG8=\r\n", b"Hello"),
        ("base64", b"S G!V*s\xff\0b-G8", b"Hello"),
        ("base64", b"SGVsbG8=\r\n-- \r\nA footer", b"Hello"),
        ("base64", b"SGVsbG8hI", b"Hello!"),
        ("base64", b"=SGVs=bG8=", b"Hello"),
        ("base64", b"SG=VsbG8=", b"Hello"),
        ("base64", b"SGVsbG8", b"Hello"),
        ("base64", b"", b""),
        ("base64", b"=", b""),
        ("base64", b"A", b""),
        ("quoted-printable", b"Gr=C3=BC=\r\n=C3=9Fe\r\n", "Grüße\r\n".encode()),
        ("quoted-printable", b"=ZZ = =", b"=ZZ = "),
        ("quoted-printable", b"=4", b"=4"),
        ("x-uuencode", UU, b"Cat"),
        ("uuencode", b"before\n" + UU.replace(b"\r", b"") + b"behind", b"Cat"),
        ("uue", b"begin 644 a\r\n#0V%T", b"Cat"),
        ("x-uue", b"begin 644 a\r\n\xff\xff\xff\r\n#0V%T\r\nend", b"Cat"),
        ("x-uuencode", b"no beginning\r\n", b"no beginning\r\n"),
        ("", b"as \xff it is", b"as \xff it is"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 7, 64 * 1024])
def test_decode(monkeypatch: pytest.MonkeyPatch, encoding: str, encoded: bytes, decoded: bytes, size: int) -> None:
    if encoding.endswith(("uuencode", "uue")) and size < 64 * 1024:
        size = 64  # whether there is a beginning is seen in the first block
    monkeypatch.setattr(transfer, "BLOCK", size)
    assert decode_transfer(encoded, encoding) == decoded
    with open_decoded(io.BytesIO(encoded), encoding) as file:
        assert file.read() == decoded


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-uuencode"])
def test_it_does_not_matter_where_the_blocks_end(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    chance = random.Random(encoding)
    for _ in range(300):
        encoded = bytes(chance.choice(b"AZaz09+/==\r\n\n .-#`") for _ in range(chance.randrange(200)))
        if encoding == "x-uuencode":
            encoded = b"begin 644 a\n" + encoded
        monkeypatch.setattr(transfer, "BLOCK", 64 * 1024)
        whole = decode_transfer(encoded, encoding)
        monkeypatch.setattr(transfer, "BLOCK", chance.randrange(12, 40))
        assert decode_transfer(encoded, encoding) == whole, encoded
        with open_decoded(io.BytesIO(encoded), encoding) as file:
            pieces = iter(lambda: file.read(chance.randrange(1, 9)), b"")
            assert b"".join(pieces) == whole, encoded


def test_large_content_is_what_the_standard_library_decodes() -> None:
    content = random.Random(2).randbytes(300_000)
    for encoding, encoded in (("base64", base64.encodebytes(content)), ("quoted-printable", binascii.b2a_qp(content, istext=False))):
        with open_decoded(io.BytesIO(encoded), encoding) as file:
            assert file.read() == content


def test_a_line_without_end_is_not_collected() -> None:
    class Endless(io.RawIOBase):
        """A million blocks, if somebody asks for them."""

        read_so_far = 0

        def read(self, size: int = -1, /) -> bytes:
            self.read_so_far += size
            return b"x" * size

    endless = Endless()
    with open_decoded(endless, "quoted-printable") as file:  # type: ignore[arg-type]
        assert file.read(100) == b"x" * 100
        assert endless.read_so_far <= 3 * transfer.BLOCK


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("base64", "base64"), ("BASE64 ", "base64"), ('"base64"', "base64"), ("base64; x=y", "base64"),
        ("Quoted-Printable", "quoted-printable"), ("x-uuencode", "x-uuencode"), ("7bit", ""), ("8-bit", ""), ("", ""),
        (None, ""), (" ", ""), ("binary", ""), ("base64base64", ""),
    ],
)  # fmt: skip
def test_names(value: str | None, name: str) -> None:
    assert name_encoding(value) == name
