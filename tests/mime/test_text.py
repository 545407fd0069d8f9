"""mime/text.py: the text for people."""

from __future__ import annotations

import random

import pytest

from preforksmtp.mime.source import Memory
from preforksmtp.mime.structure import read_structure
from preforksmtp.mime.text import MOST_MARKUP, read_html, read_text, strip_markup


def text_of(content: bytes) -> tuple[str, str | None]:
    source = Memory(content.replace(b"\n", b"\r\n"))
    root = read_structure(source)
    return read_text(root, source), read_html(root, source)


PARTS = {
    "plain": b"Content-Type: text/plain\n\nplain",
    "other": b"Content-Type: text/plain\n\nother",
    "blank": b"Content-Type: text/plain\n\n \n",
    "html": b"Content-Type: text/html\n\n<p>html</p>",
    "file": b"Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\nfile",
    "unnamed": b"Content-Type: text/plain\nContent-Disposition: attachment\n\nunnamed",
    "named": b"Content-Type: text/plain; name=a.txt\n\nnamed",
    "image": b"Content-Type: image/png\nContent-ID: <i@x>\n\nimage",
    "start": b"Content-Type: text/html\nContent-ID: <s@x>\n\n<p>start</p>",
    "message": b"Content-Type: message/rfc822\n\nSubject: x\n\ninner",
    "richtext": b"Content-Type: text/enriched\n\nrich",
}


def multipart(kind: str, *names: str, boundary: str = "b", more: str = "") -> bytes:
    parts = b"".join(b"--%b\n%b\n" % (boundary.encode(), PARTS.get(name, name.encode("latin-1"))) for name in names)
    return f"Content-Type: multipart/{kind}; boundary={boundary}{more}\n\n".encode() + parts + f"--{boundary}--\n".encode()


def nested(kind: str, *names: str) -> str:
    return multipart(kind, *names, boundary="inner").decode("latin-1")


@pytest.mark.parametrize(
    ("content", "text", "html"),
    [
        (b"\nplain\n", "plain\n", None),
        (b"", "", None),
        (PARTS["html"], "html\n", "<p>html</p>"),
        (PARTS["file"], "", None),
        (PARTS["named"], "named", None),
        (PARTS["image"], "", None),
        (PARTS["message"], "", None),
        (PARTS["richtext"], "rich", None),
        (multipart("alternative", "plain", "html"), "plain", "<p>html</p>"),
        (multipart("alternative", "html", "plain"), "plain", "<p>html</p>"),
        (multipart("alternative", "blank", "html"), "html\n", "<p>html</p>"),
        (multipart("alternative", "richtext", "plain"), "rich", None),
        (multipart("mixed", "file", "plain"), "plain", None),
        (multipart("mixed", "unnamed", "plain"), "plain", None),
        (multipart("mixed", "named", "plain"), "plain", None),
        (multipart("mixed", "named", "image"), "named", None),
        (multipart("mixed", "html", "plain"), "html\n", "<p>html</p>"),
        (multipart("mixed", "blank", "image", "other"), "other", None),
        (multipart("mixed", "message", "plain"), "plain", None),
        (multipart("related", "html", "image"), "html\n", "<p>html</p>"),
        (multipart("related", "image", "start", more='; start="<s@x>"'), "start\n", "<p>start</p>"),
        (multipart("related", "html", "plain"), "html\n", "<p>html</p>"),
        (multipart("mixed", nested("alternative", "plain", "html"), "image"), "plain", "<p>html</p>"),
        (multipart("alternative", "plain", nested("related", "html", "image")), "plain", "<p>html</p>"),
        (multipart("signed", nested("mixed", "plain", "file"), "image"), "plain", None),
        (b"Content-Type: multipart/mixed\n\nno boundary\n", "no boundary\n", None),
    ],
)
def test_which(content: bytes, text: str, html: str | None) -> None:
    assert text_of(content) == (text, html)


def test_line_ends_and_byte_order_mark() -> None:
    source = Memory(b"\r\n\xef\xbb\xbfone\r\ntwo\rthree\nfour")
    assert read_text(read_structure(source), source) == "one\ntwo\nthree\nfour"


def test_charset_of_html_in_the_html() -> None:
    meta = b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">'
    assert text_of(b"Content-Type: text/html\n\n" + meta + b"\xe9") == ("é\n", meta.decode() + "é")
    assert text_of(b"Content-Type: text/html; charset=utf-8\n\n" + meta + b"\xe9")[0] == "\ufffd\n"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("plain", "plain\n"),
        ("<p>a</p><p>b</p>", "a\nb\n"),
        ("a<br>b<br/>c<BR />d", "a\nb\nc\nd\n"),
        ("<div>a<div>b</div></div>c", "a\nb\nc\n"),
        ("<p>a</p>\n\n<br><br><br><p>b</p>", "a\n\nb\n"),
        ("a <b>b</b><i>c</i>", "a bc\n"),
        ("<tr><td>1</td><td>2</td></tr><tr><td>3</td></tr>", "1 2\n3\n"),
        ("<ul><li>a<li>b</ul>", "a\nb\n"),
        ("a\n   b\t\tc", "a b c\n"),
        ("a &amp; b &lt;c&gt; &quot;&eacute;&#233;&#xE9;&nbsp;&copy", 'a & b <c> "éé\u00e9 ©\n'),
        ("&unknown; & &; &#; &#x; &#0; &#xD800; &#x110000; &#99999999999; &#13;x", None),
        ("a<!-- <p>no</p> -->b", "ab\n"),
        ("a<!-- never ends <p>b", "a\n"),
        ("<style>p{}</style>a<script>x<y</script >b<SCRIPT>z</SCRIPT>", "ab\n"),
        ("<title>t</title><head><style>", ""),
        ('<a href="x>y" title=\'>\'>link</a>', "link\n"),
        ("1 < 2 <3 <-- x", "1 < 2 <3 <-- x\n"),
        ("<a <b>x", "<a x\n"),
        ("<unclosed", "<unclosed\n"),
        ("<!DOCTYPE html><?xml version='1.0'?>a", "a\n"),
        ("<img src=x alt=y>z", "z\n"),
        ("<o:p>a</o:p>", "a\n"),
    ],
)
def test_markup(html: str, text: str | None) -> None:
    stripped = strip_markup(html)
    assert stripped.encode() is not None
    if text is not None:
        assert stripped == text


def test_any_markup() -> None:
    chance = random.Random(4)
    pieces = ["<", ">", "</", "<!--", "-->", "<script", "</script>", "<p ", '"', "'", "&", "#", "x", "9", ";", "<br", "=", " ", "\n", "é"]
    for _ in range(5000):
        text = strip_markup("".join(chance.choice(pieces) for _ in range(chance.randrange(20))))
        assert text == "" or text.endswith("\n")


def test_not_more_markup_than_one_reads() -> None:
    text, html = text_of(b"Content-Type: text/html\n\n" + b"<b>x" * MOST_MARKUP)
    assert len(text) == MOST_MARKUP // 4 + 1
    assert html is not None and len(html) == 4 * MOST_MARKUP
