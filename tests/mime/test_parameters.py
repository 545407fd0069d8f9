"""mime/parameters.py: Content-Type, Content-Disposition and their parameters."""

from __future__ import annotations

import pytest

from preforksmtp.mime.parameters import MOST_PARAMETERS, parse_parameters


@pytest.mark.parametrize(
    ("raw", "value", "parameters"),
    [
        ("text/plain", "text/plain", {}),
        ("Text/PLAIN; Charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        ('text/plain; charset="us-ascii"; format=flowed', "text/plain", {"charset": "us-ascii", "format": "flowed"}),
        ("text/plain (a comment); charset=x", "text/plain", {"charset": "x"}),
        ("text/html charset=utf-8", "text/html", {}),
        ("text/plain;;; ; charset = x ;", "text/plain", {"charset": "x"}),
        ("text/plain; charset=a; charset=b", "text/plain", {"charset": "a"}),
        ("text/plain; name*", "text/plain", {"name": ""}),
        ("text/plain; name", "text/plain", {"name": ""}),
        ("text/plain; =x; y=z", "text/plain", {"y": "z"}),
        ("attachment; filename=my file (1).pdf; size=1", "attachment", {"filename": "my file (1).pdf", "size": "1"}),
        ('attachment; filename="a;b.txt"', "attachment", {"filename": "a;b.txt"}),
        ('attachment; filename="a\\"b\\\\c.txt"', "attachment", {"filename": 'a"b\\c.txt'}),
        ('attachment; filename="C:\\Users\\me\\a.txt"', "attachment", {"filename": "C:\\Users\\me\\a.txt"}),
        ('attachment; filename="never ends; x=y', "attachment", {"filename": "never ends; x=y"}),
        ('attachment; filename="a" junk; x="y" more "junk; z" ; w=v', "attachment", {"filename": "a", "x": "y", "w": "v"}),
        ("attachment; filename=\udcc3\udca9", "attachment", {"filename": "é"}),
        ("attachment; filename=\udcff", "attachment", {"filename": "\ufffd"}),
        ('attachment; filename="=?utf-8?q?caf=C3=A9?="', "attachment", {"filename": "café"}),
        ("attachment; filename==?utf-8?q?a_b?=", "attachment", {"filename": "a b"}),
        ('attachment; filename="=?utf-8?q?a=0d=0ab?="', "attachment", {"filename": "a b"}),
        ("attachment; filename*=utf-8'en'%e2%82%ac%20x", "attachment", {"filename": "€ x"}),
        ("attachment; filename*=utf-8''%e2%82%ac; filename=euro", "attachment", {"filename": "€"}),
        ("attachment; filename=euro; filename*=utf-8''%e2%82%ac", "attachment", {"filename": "€"}),
        ("attachment; filename*=%41", "attachment", {"filename": "A"}),
        ("attachment; filename*=x-unknown''%C3%A9", "attachment", {"filename": "é"}),
        ("attachment; filename*=utf-8''%0d%0aX:%20y", "attachment", {"filename": " X: y"}),
        ("attachment; filename*1=b; filename*0=a", "attachment", {"filename": "ab"}),
        ("attachment; filename*0*=utf-8''%C3; filename*1*=%A9; filename*2=.txt", "attachment", {"filename": "é.txt"}),
        ("attachment; filename*0=a; filename*0=b", "attachment", {"filename": "a"}),
        ("attachment; filename*99999=a", "attachment", {"filename*99999": "a"}),
        ("attachment; filename*=utf-8''%", "attachment", {"filename": "%"}),
        ('multipart/mixed; boundary="=?utf-8?q?x?="', "multipart/mixed", {"boundary": "=?utf-8?q?x?="}),
        ("", "", {}),
        (";", "", {}),
        ('"attachment"; x=y', '"attachment"', {"x": "y"}),
    ],
)
def test_parse(raw: str, value: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(raw) == (value, parameters)


@pytest.mark.parametrize("value", ["text", "text/", "/plain", "text/plain/x", "te xt/plain", "*/*;", "a/b\udcff"])
def test_no_type(value: str) -> None:
    assert parse_parameters(value).content_type in ("", "*/*")


def test_not_without_end() -> None:
    assert len(parse_parameters("x" + "".join(f"; p{n}=v" for n in range(1000))).parameters) == MOST_PARAMETERS
    assert parse_parameters("x" + "".join(f"; p*{n}=v" for n in range(1000))).parameters == {"p": "v" * MOST_PARAMETERS}
