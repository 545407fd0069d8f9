"""smtp/delivery.py: from the body to the handler and its answer back; the body as `stream` reads it."""

from __future__ import annotations

import errno
import io
import tracemalloc

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.smtp import body as body_module
from preforksmtp.smtp import reply
from preforksmtp.smtp.delivery import BodyStream
from tests.fakes import recording, talk

OPEN = ["EHLO c.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"]
BODY = b"Subject: x\r\n\r\nline\r\n..dot\r\n"
CONTENT = b"Subject: x\r\n\r\nline\r\n.dot\r\n"
SENT = BODY + b".\r\n"
BARE = b"a\nb\r\n.\r\n"


def deliver(handler=None, sent=SENT, *after, **options):
    """The replies behind the 354, and the talk."""
    spoken = talk([*OPEN, sent, *(after or ("NOOP",))], handler, **options)
    assert spoken.codes[3] == 354
    return spoken.replies[4:], spoken


def read_all(handler, message, body):
    handler.content = body.read()


# --- a message, collected


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("threshold", [1, len(CONTENT), 10000])
def test_a_function_gets_the_message(cut, threshold, tmp_path):
    got = []
    replies, spoken = deliver(
        lambda message: got.append(message), cut=cut, spool_threshold=threshold, spool_dir=str(tmp_path)
    )
    assert replies == ["250 2.0.0 Ok: queued as s1-1", "250 2.0.0 Ok"]
    (message,) = got
    assert (message.content, message.size, message.open().read()) == (CONTENT, len(CONTENT), CONTENT)
    assert spoken.journal.events == [("message", "a@b", ["c@d"], len(CONTENT), 250)]
    assert list(tmp_path.iterdir()) == [], "the temporary file has no name"


def test_the_354_and_the_last_reply_are_sent_at_once():
    """The promise must not wait behind what the client has pipelined."""
    spoken = talk([b"".join(f"{line}\r\n".encode() for line in OPEN) + SENT + b"NOOP\r\nNOOP\r\n"])
    assert [chunk.count(b"\r\n") for chunk in spoken.wire.sent][-2:] == [11 + 4, 2]


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (None, "250 2.0.0 Ok: queued as s1-1"),
        ("thank you", "250 2.0.0 thank you"),
        ("2.6.0 thank you", "250 2.6.0 thank you"),
        ("", "250 2.0.0"),
        (Reply(250, "2.0.0 as given"), "250 2.0.0 as given"),
        (Reply(250, ["2.0.0 one", "two"]), "250-2.0.0 one\n250 2.0.0 two"),
        (Reply(550, "5.7.1 returned"), "550 5.7.1 returned"),
        (Reject(550, "5.7.1 raised"), "550 5.7.1 raised"),
        (Reject(452, "4.3.1 full"), "452 4.3.1 full"),
        (Reject(554), "554 5.7.1 Rejected"),
        (OSError("disk"), "451 4.3.0 Local error in processing, try again later"),
        (SystemExit(0), "451 4.3.0 Local error in processing, try again later"),
        (KeyboardInterrupt(), "451 4.3.0 Local error in processing, try again later"),
        (GeneratorExit(), "451 4.3.0 Local error in processing, try again later"),
        ("a\r\n250 forged", "451 4.3.0 Local error in processing, try again later"),
        (True, "451 4.3.0 Local error in processing, try again later"),
        (250, "451 4.3.0 Local error in processing, try again later"),
        (b"bytes", "451 4.3.0 Local error in processing, try again later"),
        (Reply(354, "more"), "451 4.3.0 Local error in processing, try again later"),
        (lambda *_: Reply(200, ""), "200 2.0.0"),
        (lambda *_: Reply(600, ""), "451 4.3.0 Local error in processing, try again later"),
        (lambda *_: Reject(250, "no refusal"), "451 4.3.0 Local error in processing, try again later"),
        (lambda *_: Reject(550, "returned, not raised"), "451 4.3.0 Local error in processing, try again later"),
    ],
)
@pytest.mark.parametrize("hook", ["message", "stream"])
def test_what_the_handler_answers(hook, act, answer):
    replies, spoken = deliver(recording(**{hook: act}))
    assert replies == [answer, "250 2.0.0 Ok"]
    assert spoken.journal.named("message")[0][3] == int(answer[:3])
    assert bool(spoken.journal.named("handler_failed")) == answer.startswith("451")
    assert spoken.dialogue.transaction is None


@pytest.mark.parametrize("hook", ["message", "stream"])
def test_421_of_the_handler_ends_the_session(hook):
    replies, spoken = deliver(recording(**{hook: Reject(421, "4.3.2 later")}))
    assert replies == ["421 4.3.2 later"]
    assert spoken.wire.unread == b"NOOP\r\n"
    assert spoken.fault is None


@pytest.mark.parametrize(
    ("sent", "rules", "answer"),
    [
        (BARE, {}, "550 5.6.0 Bare"),
        (b"x" * 100 + b"\r\n.\r\n", {"max_message_size": 101}, "552 5.3.4"),
        (b"x" * 100 + b"\r\n.\r\n", {"max_line_length": 101}, "554 5.6.0"),
    ],
)
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    "hooks", [{"message": None}, {"stream": read_all}, {"stream": None}, {"stream": read_all, "message": None}]
)
def test_a_fault_of_the_body(hooks, cut, sent, rules, answer):
    handler = recording(**hooks)
    replies, spoken = deliver(handler, sent, cut=cut, **rules)
    assert replies[0].startswith(answer)
    assert replies[1:] == ["250 2.0.0 Ok"], "in sync"
    assert "message" not in [event[0] for event in handler.events]
    assert spoken.journal.named("handler_failed") == []
    assert spoken.journal.named("message")[0][3] == int(answer[:3])


@pytest.mark.parametrize(
    "hooks", [{"message": None}, {"stream": read_all}, {"stream": None}, {"stream": read_all, "message": None}]
)
def test_smuggling_closes(hooks):
    replies, spoken = deliver(recording(**hooks), b"a\n.\nMAIL FROM:<evil@x>\r\n.\r\n", "NOOP")
    assert [answer[:9] for answer in replies] == ["550 5.6.0"]
    assert spoken.fault is None
    assert [event[:2] for event in spoken.journal.events] == [("message", "a@b")]


def test_a_fault_found_after_the_handler_refused_does_not_matter():
    replies, _ = deliver(recording(stream=Reject(550, "5.7.1 spam")), BARE)
    assert replies == ["550 5.7.1 spam", "250 2.0.0 Ok"]


# --- stream


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_stream_reads_the_body(cut):
    handler = recording(stream=lambda self, message, body: f"{body.read()!r}")
    replies, spoken = deliver(handler, cut=cut)
    assert replies[0] == f"250 2.0.0 {CONTENT!r}"
    assert spoken.journal.named("message") == [("a@b", ["c@d"], len(CONTENT), 250)]


def test_stream_gets_nothing_before_it_asks():
    """Back-pressure: what the handler does not read stays on the wire."""
    seen = []

    def stream(self, message, body):
        seen.append(self.wire.unread)
        seen.append(next(body))
        seen.append(self.wire.unread)

    handler = recording(stream=stream)
    blocks = [b"one\r\n", b"two\r\n", b".\r\n"]
    talk([*OPEN, *blocks], handler, before=lambda dialogue: setattr(handler, "wire", dialogue.wire))
    assert seen == [b"one\r\ntwo\r\n.\r\n", b"one", b"two\r\n.\r\n"]


@pytest.mark.parametrize("act", ["ok", Reject(550, "5.7.1 early"), ValueError("early"), Reply(550, "5.7.1 early")])
def test_a_handler_that_reads_nothing(act):
    """Early return, early refusal: the rest is read and dropped."""
    replies, spoken = deliver(recording(stream=act), cut=2)
    assert replies[0].startswith(
        "250 2.0.0 ok" if act == "ok" else "451" if isinstance(act, ValueError) else "550 5.7.1"
    )
    assert replies[1:] == ["250 2.0.0 Ok"]
    assert spoken.journal.named("message")[0][2] == len(CONTENT)


def test_message_after_stream_gets_what_stream_read_and_what_it_left():
    handler = recording(stream=lambda self, message, body: (body.read(3), "from stream")[1], message=None)
    replies, _ = deliver(handler)
    assert replies[0] == "250 2.0.0 from stream", "message says nothing of its own"
    message = handler.events[-1][1]
    assert (message.content, message.size) == (CONTENT, len(CONTENT))
    assert message is handler.events[0][1], "the same object"


def test_message_after_stream_has_the_last_word():
    replies, _ = deliver(recording(stream="from stream", message=Reject(550, "5.7.1 from message")))
    assert replies[0] == "550 5.7.1 from message"


@pytest.mark.parametrize("act", [Reject(550, "5.7.1 no"), Reply(550, "5.7.1 no")])
def test_no_message_after_stream_refused(act):
    handler = recording(stream=act, message=None)
    replies, _ = deliver(handler)
    assert replies == ["550 5.7.1 no", "250 2.0.0 Ok"]
    assert [event[0] for event in handler.events] == ["stream"]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_handler_that_swallows_the_fault_cannot_acknowledge(cut):
    raised = []

    def stream(self, message, body):
        for _ in range(5):
            try:
                while body.read(1):
                    pass
            except Reject as fault:
                raised.append(fault.reply.code)
        return "all fine"

    replies, _ = deliver(recording(stream=stream), b"good\r\n" + BARE, cut=cut)
    assert replies[0].startswith("550 5.6.0")
    assert replies[1:] == ["250 2.0.0 Ok"]
    assert raised == [550] * 5, "raised again and again"


def test_with_and_commit_after_the_loop():
    """The contract's own example: a fault unwinds, nothing is committed."""
    done = []

    class File:
        def __enter__(self):
            return self

        def __exit__(self, kind, *_):
            done.append("rolled back" if kind else "closed")

    def stream(self, message, body):
        with File():
            for _ in body:
                pass
        done.append("committed")

    deliver(recording(stream=stream), BARE)
    assert done == ["rolled back"]
    deliver(recording(stream=stream))
    assert done == ["rolled back", "closed", "committed"]


FAULTS = [EOFError("gone"), ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("hooks", ["message", "stream", "swallow", "both"])
def test_the_connection_fails_in_the_body(hooks, fault):
    def swallow(self, message, body):
        try:
            body.read()
        except Exception:
            return "all fine"

    handler = recording(
        close=None,
        **{
            "message": {"message": None},
            "stream": {"stream": read_all},
            "swallow": {"stream": swallow},
            "both": {"stream": swallow, "message": None},
        }[hooks],
    )
    spoken = talk([*OPEN, b"begun\r\n", fault], handler)
    assert "message" not in [event[0] for event in handler.events]
    assert handler.events[-1] == ("close",)
    assert spoken.journal.named("message") == [], "neither accepted nor refused"
    if isinstance(fault, TimeoutError):
        assert spoken.replies[4:] == ["421 4.4.2 Timeout, closing the connection"]
        assert spoken.journal.named("timed_out") == [("",)]
    else:
        assert spoken.fault is fault
        assert len(spoken.replies) == 4
    assert spoken.journal.named("handler_failed") == []


# --- no room


class FullDisk(io.BytesIO):
    """A temporary file that fails at its `fails`-th write; at 0, when it is flushed."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails or None
        self.flushed = fails == 0

    def write(self, block):
        if self.fails is not None:
            self.fails -= 1
        if self.fails == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(block)

    def flush(self):
        if self.flushed:
            raise OSError(errno.ENOSPC, "No space left on device")

    def writelines(self, blocks):
        for block in blocks:
            self.write(block)


@pytest.mark.parametrize(
    "hooks", [{"message": None}, {"stream": read_all, "message": None}, {"stream": "ok", "message": None}]
)
@pytest.mark.parametrize("fails", [1, 2, 0])
def test_a_full_disk_is_452_and_in_sync(monkeypatch, hooks, fails):
    monkeypatch.setattr(body_module.tempfile, "TemporaryFile", lambda **_: FullDisk(fails))
    handler = recording(**hooks)
    replies, spoken = deliver(handler, b"12345\r\n" * 4 + b".\r\n", cut=7, spool_threshold=10)
    assert replies == [*[answer.wire.decode().strip() for answer in (reply.NO_STORAGE, reply.OK)]]
    assert "message" not in [event[0] for event in handler.events]
    ((cause,),) = spoken.journal.named("storage_failed")
    assert "No space left on device" in str(cause)
    assert spoken.journal.named("handler_failed") == []


def test_a_handler_that_swallows_the_full_disk_cannot_acknowledge(monkeypatch):
    """A block is lost: what follows must not become a message with a hole."""
    monkeypatch.setattr(body_module.tempfile, "TemporaryFile", lambda **_: FullDisk(2))

    def stream(self, message, body):
        for _ in range(20):
            try:
                body.read(1)
            except Exception:
                pass
        return "all fine"

    handler = recording(stream=stream, message=None)
    replies, _ = deliver(handler, b"12345\r\n" * 4 + b".\r\n", cut=7, spool_threshold=10)
    assert [answer[:9] for answer in replies] == ["452 4.3.1", "250 2.0.0"]
    assert [event[0] for event in handler.events] == ["stream"]


def test_no_folder_for_the_temporary_file(tmp_path):
    replies, spoken = deliver(None, cut=9, spool_threshold=1, spool_dir=str(tmp_path / "missing"))
    assert [answer[:9] for answer in replies] == ["452 4.3.1", "250 2.0.0"]
    assert spoken.journal.named("storage_failed")


# --- the body as a file


class Blocks:
    """A reader of ready blocks."""

    fault = None
    last = True

    def __init__(self, *blocks):
        self.blocks = [*blocks, b""]

    def read_block(self):
        return self.blocks.pop(0) if len(self.blocks) > 1 else b""


class Silent:
    def handling(self, hook, since): ...


@pytest.fixture
def body():
    return BodyStream(Blocks(b"ab", b"cd\r\nef", b"\r\n", b"gh"), None, Silent())


def test_read(body):
    assert body.readable()
    assert body.read(0) == b""
    assert body.read(1) == b"a"
    assert body.read(3) == b"bcd"
    assert body.read(None) == b"\r\nef\r\ngh"
    assert body.read() == b""
    assert body.read(5) == b""


def test_read1(body):
    assert body.read1(0) == b""
    assert [body.read1(1), body.read1(9), body.read1(), body.read1(None), body.read1(2), body.read1()] == [
        b"a", b"b", b"cd\r\nef", b"\r\n", b"gh", b"",
    ]  # fmt: skip


def test_readline(body):
    assert [body.readline(), body.readline(2), body.readline(), body.readline(), body.readline()] == [
        b"abcd\r\n", b"ef", b"\r\n", b"gh", b"",
    ]  # fmt: skip


def test_readlines(body):
    assert list(iter(body.readline, b"")) == [b"abcd\r\n", b"ef\r\n", b"gh"]


def test_iteration_gives_blocks_not_lines(body):
    assert list(body) == [b"ab", b"cd\r\nef", b"\r\n", b"gh"]


def test_readinto(body):
    buffer = bytearray(5)
    assert body.readinto(buffer) == 5
    assert bytes(buffer) == b"abcd\r"
    assert body.readinto1(buffer) == 3
    assert bytes(buffer[:3]) == b"\nef"


def test_it_is_what_the_standard_library_takes_for_a_file(body):
    assert io.TextIOWrapper(body, newline="").read() == "abcd\r\nef\r\ngh"


def test_it_is_read_only(body):
    assert not body.writable()
    with pytest.raises(io.UnsupportedOperation):
        body.write(b"x")


@pytest.mark.parametrize("read", [lambda body: body.read(), lambda body: body.read(10**6), lambda body: body.readline()])
def test_what_is_read_at_once_takes_its_own_size(read):
    """However small the blocks are in which it came."""
    octets = [b"x"] * 20_000
    body = BodyStream(Blocks(*octets), None, Silent())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        content = read(body)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert content == b"x" * 20_000
    assert peak < 200_000, "1.1 million in a list of octets"


def test_lines_of_one_large_block(body):
    """Each octet is looked at once, not once a line."""
    text = b"\r\n" * 30_000 + b"x" * 5000 + b"\n\nend"
    stream = BodyStream(Blocks(text), None, Silent())
    assert b"".join(iter(stream.readline, b"")) == text
    stream = BodyStream(Blocks(text, text), None, Silent())
    assert b"".join(iter(lambda: stream.readline(7), b"")) == text * 2
    stream = BodyStream(Blocks(text, text), None, Silent())
    assert b"".join(iter(lambda: stream.read1(7), b"")) == text * 2
