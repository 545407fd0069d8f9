"""The end of mail data, transparency, bare newlines, size: each case whole, byte by byte and cut in two everywhere."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import pytest

from preforksmtp.smtp import reply
from preforksmtp.smtp.body import BodyFault, DataReader, Spool, has_bare_newline
from tests.fakes import FakeWire

NEWLINES = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\0", b"\0\r\n", b"\n\0", b"\r\0"]
NEXT = b"MAIL FROM:<evil@example.com>\r\n"


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same octets as they may arrive."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def read(chunks: list[bytes], limit: int = 0, strict: bool = True, line_limit: int = 0) -> tuple[bytes, object, bytes]:
    """(content, None or the reply of the fault, what is left for the command loop), as delivery.py reads a body."""
    wire = FakeWire(chunks)
    reader = DataReader(wire, limit, strict, line_limit)
    content = reader.read_whole()
    fault: object = None
    if content is None:
        content = b""
        try:
            while block := reader.read_block():
                content += block
        except BodyFault as first:
            fault = first.reply
            try:
                reader.drain()
            except BodyFault as fatal:
                fault = fatal.reply
    assert reader.finished
    if fault is None:
        assert reader.size == len(content)
    return content, fault, wire.unread


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"...\r\n..\r\n.\r\n", b"..\r\n.\r\n"),
        (b"a.\r\n.b.\r\n.\r\n", b"a.\r\nb.\r\n"),
        (b"a\0b\r\n.\r\n", b"a\0b\r\n"),
        (b"\xff\xfe\r\n.\r\n", b"\xff\xfe\r\n"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_content(sent: bytes, content: bytes, strict: bool) -> None:
    for chunks in cuts(sent + NEXT):
        assert read(chunks, strict=strict) == (content, None, NEXT), chunks


@pytest.mark.parametrize(("before", "after"), list(itertools.product(NEWLINES, NEWLINES)))
def test_nothing_but_crlf_dot_crlf_ends_a_message(before: bytes, after: bytes) -> None:
    """The smuggling corpus: one message that ends at CRLF.CRLF, or a refusal that closes, or one that is in sync."""
    sent = b"text" + before + b"." + after + NEXT + b"RCPT TO:<x@example.com>\r\n.\r\n" + b"NOOP\r\n"
    outcomes = set()
    for chunks in cuts(sent):
        content, fault, left = read(chunks)
        outcomes.add((fault, left if fault is not reply.SMUGGLING else b"closed"))
    assert len(outcomes) == 1, "how the octets arrive must not matter"
    fault, left = outcomes.pop()
    if before[-2:] == b"\r\n" and after[:2] == b"\r\n":  # a true end; what stands before it may still be refused
        assert left == sent[sent.index(b"\r\n.\r\n") + 5 :]
        assert (fault is reply.BARE_NEWLINES) == has_bare_newline(b"text" + before)
    else:
        assert fault is reply.SMUGGLING


@pytest.mark.parametrize(("before", "after"), list(itertools.product(NEWLINES, NEWLINES)))
def test_accepted_newlines_are_content(before: bytes, after: bytes) -> None:
    sent = b"text" + before + b"." + after + b"more\r\n.\r\n"
    end = sent.index(b"\r\n.\r\n")
    wanted = (sent[: end + 2].replace(b"\r\n.", b"\r\n"), None, sent[end + 5 :])
    for chunks in cuts(sent):
        assert read(chunks, strict=False) == wanted


@pytest.mark.parametrize("text", [b"a\nb", b"a\rb", b"\na", b"a\n", b"a\r", b"a\n..b", b"a\r.b", b"a\r\n.b\nc"])
def test_bare_newlines_are_refused_in_sync(text: bytes) -> None:
    for chunks in cuts(text + b"\r\n.\r\n" + NEXT):
        _, fault, left = read(chunks)
        assert (fault, left) == (reply.BARE_NEWLINES, NEXT), chunks


def test_size_is_counted_without_transparency() -> None:
    sent = b"..\r\n12345\r\n.\r\n"  # 3 + 7 octets of content
    for chunks in cuts(sent + NEXT):
        assert read(chunks, limit=10) == (b".\r\n12345\r\n", None, NEXT)
        assert read(chunks, limit=9)[1:] == (reply.TOO_LARGE, NEXT)


def test_too_large_is_dropped_with_bounded_memory() -> None:
    wire = FakeWire([b"x" * 65536] * 50 + [b"\r\n.\r\nNOOP\r\n"])
    reader = DataReader(wire, 1000, True)
    assert reader.read_whole() is None
    with pytest.raises(BodyFault) as fault:
        reader.read_block()
    assert fault.value.reply is reply.TOO_LARGE
    reader.drain()
    assert reader.size < 1000 + 2 * 65536
    assert wire.unread == b"NOOP\r\n"


@pytest.mark.parametrize(
    ("line", "fault"), [(b"x" * 8, None), (b"x" * 9, reply.BODY_LINE_TOO_LONG), (b"." + b"x" * 8, None)]
)
def test_line_limit_counts_crlf_and_no_transparency_dot(line: bytes, fault: object) -> None:
    for chunks in cuts(b"ab\r\n" + line + b"\r\n.\r\n" + NEXT):
        assert read(chunks, line_limit=10)[1:] == (fault, NEXT)


def test_a_body_cut_off_is_no_message() -> None:
    wire = FakeWire([b"a\r\n."])
    reader = DataReader(wire, 0, True)
    assert reader.read_whole() is None
    with pytest.raises(EOFError):
        while reader.read_block():
            pass
    assert not reader.finished


@pytest.mark.parametrize("sizes", [[10], [50, 50], [100, 1], [60, 60, 60]])
def test_spool(sizes: list[int], tmp_path: object) -> None:
    spool = Spool(100, str(tmp_path))
    blocks = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    for block in blocks:
        spool.add(block)
    content = spool.finish()
    if sum(sizes) > 100:
        assert content == b"" and spool.file is not None
        spool.file.seek(0)
        content = spool.file.read()
    assert content == b"".join(blocks)
    spool.close()


@pytest.mark.parametrize("size", [1, 7, 100, 4095, 4096, 65536])
def test_the_threshold_is_what_is_used_however_small_the_blocks(size: int, tmp_path: object) -> None:
    """Blocks are what a TLS record or a chunk held: one octet, if the client so wants."""
    threshold = 256 * 1024
    spool = Spool(threshold, str(tmp_path))
    alphabet = bytes(range(256)) * 300
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, threshold, size):
            spool.add(alphabet[start % 256 :][: min(size, threshold - start)])
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert spool.file is None
    assert peak < 1.5 * threshold
    spool.add(b"x")
    assert spool.file is not None
    spool.file.seek(0)
    assert spool.file.read() == b"".join(
        alphabet[start % 256 :][: min(size, threshold - start)] for start in range(0, threshold, size)
    ) + b"x"
    spool.close()


def test_small_and_large_blocks_keep_their_order(tmp_path: object) -> None:
    blocks = [b"a", b"b" * 5000, b"c", b"d" * 100, b"e" * 70000, b"f" * 4096, b"g"]
    spool = Spool(1 << 20, str(tmp_path))
    for block in blocks:
        spool.add(block)
    assert spool.finish() == b"".join(blocks)
    spool.close()
