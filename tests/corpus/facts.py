"""What a handler reads of each message in this folder. Where nothing is said: the text is "Text.", there is no HTML, no
attachment and no defect, and the whole is text/plain.

headers, lengths  values by name, or how long they are; the first of each name
addresses         (display name, address) by name of the field, as parse() gives them; address_count for To
text, text_length, html, files (name, type, content in latin-1), file_count
types, part_count  of the parts, as parse().walk() gives them
defects           of the message
"""

from __future__ import annotations

from typing import Any

FACTS: dict[str, dict[str, Any]] = {
    "bare-newlines-cr": {"headers": {"Subject": "CR only", "X": "1"}, "text": "Line one\nline two\n"},
    "bare-newlines-lf": {"headers": {"Subject": "LF only", "X": "1"}, "text": "Line one\nline two\n"},
    "bare-newlines-mixed": {"headers": {"Subject": "mixed", "X": "1", "Y": "2", "Z": "3"}, "text": "One\ntwo\nthree\n"},
    "base64-broken": {
        "text": "",
        "files": [("x.bin", "application/octet-stream", "Hello world")],
        "types": ["application/octet-stream"],
    },
    "base64-letter-too-many": {"text": "Hello!"},
    "base64-with-footer": {"text": "Hello, list\n"},
    "body-of-8-bits-without-mime": {"headers": {"Subject": "latin-1 without MIME"}, "text": "Gr��e\n"},
    "body-of-one-long-line": {"headers": {"Subject": "one line"}, "text_length": 5001},
    "body-of-utf-8-without-mime": {"headers": {"Subject": "utf-8 without MIME"}, "text": "Grüße\n"},
    "body-with-mailbox-lines": {
        "headers": {"Subject": "lines that begin with From"},
        "text": "From here on\n>From there\n",
    },
    "body-with-nul": {"headers": {"Subject": "NUL in the body"}, "text": "a\x00b\n"},
    "charset-big5": {"headers": {"Subject": "big5"}, "text": "你好\n"},
    "charset-gb18030": {"headers": {"Subject": "gb18030"}, "text": "你好\n"},
    "charset-idna": {"text": "xn--mnchen-3ya\n"},
    "charset-in-rfc-2231": {"text": "Grüße\n"},
    "charset-iso-2022-jp": {"headers": {"Subject": "iso-2022-jp"}, "text": "テスト\n"},
    "charset-koi8-r": {"headers": {"Subject": "koi8-r"}, "text": "Привет\n"},
    "charset-of-windows": {"text": "“quoted” € 5\n"},
    "charset-unknown": {"text": "qaplá\n"},
    "charset-utf-16": {"headers": {"Subject": "utf-16"}, "text": "Grüße ☃\n"},
    "charset-utf-7": {"headers": {"Subject": "utf-7"}, "text": "Grüße ☃\n"},
    "charset-utf-8-but-latin-1": {"text": "Gr��e\n"},
    "charset-with-nul": {},
    "charset-wrong-label": {"text": "Grüße\n"},
    "date-junk": {"headers": {"Date": "yesterday, around noon"}},
    "date-of-overflow": {
        "headers": {"Date": "Mon, 99 Foo 999999999999 99:99:99 +9999", "Resent-Date": "Thu, 01 Jan 1970 00:00:00 -0000"}
    },
    "empty": {"text": ""},
    "encoding-junk": {"text": "Grüße\n"},
    "encoding-on-multipart": {"text": "plain inside", "types": ["multipart/mixed", "text/plain"]},
    "encoding-quoted": {"text": "decoded\n"},
    "first-line-is-a-continuation": {"headers": {"Subject": "first line continues nothing"}},
    "flowed": {"text": "This line flows \non here.\n Stuffed.\n"},
    "from-local-only": {
        "headers": {"From": "root", "To": "MAILER-DAEMON (Mail System)", "Subject": "no domains"},
        "addresses": {"From": [("", "root")], "To": [("", "MAILER-DAEMON")]},
    },
    "header-folded-oddly": {
        "headers": {"Subject": "begins on the second line\tand goes on   behind a line of blanks", "X-Next": "here"}
    },
    "header-lines-longer-than-998": {"lengths": {"Subject": 10, "References": 1899}, "text_length": 2501},
    "header-name-in-utf-8": {
        "text": "Sübject: x\nSubject: not reached\n\nText.\n",
        "defects": ["MissingHeaderBodySeparatorDefect"],
    },
    "header-named-proto": {"headers": {"__proto__": "x", "constructor": "y", "Subject": "names of other languages"}},
    "header-of-3000-octets": {"lengths": {"Subject": 3000}},
    "header-with-blank-before-colon": {"headers": {"Subject": "blank before the colon", "From": "ann@example.com"}},
    "header-with-nul": {
        "headers": {"Subject": "a b"},
        "text": "X-\x00: c\n\nText.\n",
        "defects": ["MissingHeaderBodySeparatorDefect"],
    },
    "header-without-colon": {
        "headers": {
            "From": "Ann <ann@example.com>",
            "To": "bob@example.org",
            "Subject": "a line without colon follows",
        },
        "text": "This is no field\nX-After: lost\n\nText.\n",
        "defects": ["MissingHeaderBodySeparatorDefect"],
    },
    "header-without-final-newline": {"headers": {"Subject": "cut off"}, "text": ""},
    "header-without-name": {"headers": {"Subject": "a field without name"}},
    "header-without-value": {"headers": {"Subject": "", "X-Empty": ""}},
    "headers-1200": {
        "headers": {"Subject": "first of many", "X-998": "998", "X-999": None},
        "defects": ["TooLargeDefect"],
    },
    "headers-twice": {
        "headers": {"Subject": "one", "From": "a@example.com", "To": "c@example.com", "Content-Type": "text/plain"},
        "text": "<p>plain</p>\n",
    },
    "html-broken": {
        "text": "one two\n",
        "html": "<p>one <b>two <!-- never closed > <p>three\n",
        "types": ["text/html"],
    },
    "html-meta-charset": {
        "text": "café\n",
        "html": '<html><head><meta charset="iso-8859-1"></head><body>café</body></html>\n',
        "types": ["text/html"],
    },
    "html-only": {
        "headers": {"Subject": "HTML"},
        "text": "Hello & welcome\nLine\ntwo €\n",
        "html": "<html><head><title>T</title><style>p{color:red}</style></head><body><p>Hello&nbsp;&amp; "
        "<b>welcome</b></p><script>alert(1)</script><p>Line<br>two &#8364;</p></body></html>\n",
        "types": ["text/html"],
    },
    "mailbox-from-line-quoted": {"headers": {"Subject": "behind a quoted From line"}},
    "mailbox-from-line": {
        "headers": {"From": "Ann <ann@example.com>", "To": "bob@example.org", "Subject": "after a From line"}
    },
    "message-1200-levels": {"text": "", "file_count": 1, "part_count": 51},
    "message-id-brackets": {
        "headers": {"Message-ID": "<[..]@[..]>", "In-Reply-To": "<>", "References": "><", "Subject": "odd ids"}
    },
    "message-in-base64": {
        "text": "",
        "files": [("m.eml", "message/rfc822", "Subject: inner\r\n\r\ninner text\r\n")],
        "types": ["message/rfc822", "text/plain"],
    },
    "message-in-message": {
        "text": "forwarded:",
        "files": [
            (
                "orig.eml",
                "message/rfc822",
                "Subject: inner\r\n"
                "Content-Type: multipart/mixed; boundary=i\r\n"
                "\r\n"
                "--i\r\n"
                "\r\n"
                "inner text\r\n"
                "--i\r\n"
                "Content-Disposition: attachment; filename=secret.txt\r\n"
                "\r\n"
                "not listed\r\n"
                "--i--",
            )
        ],
        "types": ["multipart/mixed", "text/plain", "message/rfc822", "multipart/mixed", "text/plain", "text/plain"],
    },
    "mime-version-junk": {"headers": {"MIME-Version": "(produced by) 1.0.7 beta", "Content-Type": "text/plain"}},
    "mime-version-missing": {
        "headers": {"Subject": "no MIME-Version", "Content-Type": "text/html; charset=utf-8"},
        "text": "Grüße\n",
        "html": "<p>Grüße</p>\n",
        "types": ["text/html"],
    },
    "multipart-1200-levels": {
        "text": "",
        "file_count": 1,
        "part_count": 51,
        "defects": ["CloseBoundaryNotFoundDefect"],
    },
    "multipart-1200-parts": {
        "text": "",
        "file_count": 1000,
        "part_count": 1001,
        "defects": ["CloseBoundaryNotFoundDefect"],
    },
    "multipart-boundary-empty": {"text": "--\n\ntext\n----\n", "defects": ["NoBoundaryInMultipartDefect"]},
    "multipart-boundary-in-rfc-2231": {"text": "text", "types": ["multipart/mixed", "text/plain"]},
    "multipart-boundary-missing": {
        "headers": {"Subject": "no boundary"},
        "text": "--b\n\ntext\n--b--\n",
        "defects": ["NoBoundaryInMultipartDefect"],
    },
    "multipart-boundary-never-ends": {
        "text": "first",
        "files": [("a.bin", "application/octet-stream", "second")],
        "types": ["multipart/mixed", "text/plain", "application/octet-stream"],
        "defects": ["CloseBoundaryNotFoundDefect"],
    },
    "multipart-boundary-of-inner-is-outer": {"text": "text", "types": ["multipart/mixed", "text/plain", "text/plain"]},
    "multipart-boundary-other": {"text": "--c\n\ntext\n--c--\n", "defects": ["StartBoundaryNotFoundDefect"]},
    "multipart-boundary-prefix": {
        "text": "inner",
        "files": [("attachment-1.gif", "image/gif", "GIF")],
        "types": ["multipart/mixed", "multipart/alternative", "text/plain", "image/gif"],
    },
    "multipart-boundary-with-blanks": {"text": "text", "types": ["multipart/mixed", "text/plain"]},
    "multipart-calendar": {
        "text": "You are invited",
        "files": [("attachment-1.ics", "text/calendar", "BEGIN:VCALENDAR\r\nEND:VCALENDAR")],
        "types": ["multipart/alternative", "text/plain", "text/calendar"],
    },
    "multipart-digest": {
        "text": "",
        "files": [
            ("attachment-1.eml", "message/rfc822", "Subject: first\r\n\r\none"),
            ("attachment-2.eml", "message/rfc822", "Subject: second\r\n\r\ntwo"),
        ],
        "types": ["multipart/digest", "message/rfc822", "text/plain", "message/rfc822", "text/plain"],
    },
    "multipart-empty-parts": {"text": "", "types": ["multipart/mixed", "text/plain", "text/plain"]},
    "multipart-headers-without-body": {"text": "text", "types": ["multipart/mixed", "text/plain", "text/plain"]},
    "multipart-list-footer": {
        "text": "The message\n",
        "html": "<p>The message</p>",
        "types": ["multipart/mixed", "text/html", "text/plain"],
    },
    "multipart-normal": {
        "text": "plain text\n",
        "html": "<p>html text</p>\n",
        "files": [("report.pdf", "application/pdf", "%PDF-1.4 content")],
        "types": ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"],
    },
    "multipart-outer-ends-inner": {
        "text": "text",
        "files": [("p.png", "image/png", "PNG")],
        "types": ["multipart/mixed", "multipart/mixed", "text/plain", "image/png"],
    },
    "multipart-plain-is-blank": {
        "text": "only here\n",
        "html": "<p>only here</p>",
        "types": ["multipart/alternative", "text/plain", "text/html"],
    },
    "multipart-related": {
        "text": "see\n",
        "html": '<p>see <img src="cid:pic@x"></p>',
        "files": [("attachment-1.png", "image/png", "\x89PNG")],
        "types": ["multipart/related", "text/html", "image/png"],
    },
    "multipart-report": {
        "text": "Your message could not be delivered.",
        "files": [
            (
                "attachment-1.txt",
                "message/delivery-status",
                "Reporting-MTA: dns; mx.example.com\r\n"
                "\r\n"
                "Final-Recipient: rfc822; bob@example.org\r\n"
                "Action: failed\r\n"
                "Status: 5.1.1",
            ),
            ("attachment-2.eml", "message/rfc822", "Subject: original\r\n\r\noriginal text"),
        ],
        "types": [
            "multipart/report",
            "text/plain",
            "message/delivery-status",
            "text/plain",
            "text/plain",
            "message/rfc822",
            "text/plain",
        ],
    },
    "multipart-signed": {
        "text": "signed text",
        "files": [("signature.asc", "application/pgp-signature", "-----BEGIN PGP SIGNATURE-----")],
        "types": ["multipart/signed", "text/plain", "application/pgp-signature"],
    },
    "multipart-without-parts": {
        "text": "preamble\n--b--\nonly an epilogue\n",
        "defects": ["StartBoundaryNotFoundDefect"],
    },
    "names-encoded-words": {
        "text": "",
        "files": [
            ("café.pdf", "application/octet-stream", "data"),
            ("übung.txt", "application/octet-stream", "data"),
            ("über.png", "image/png", "data"),
        ],
        "types": ["multipart/mixed", "application/octet-stream", "application/octet-stream", "image/png"],
    },
    "names-invisible": {
        "text": "",
        "files": [
            ("invoicefdp.exe", "application/octet-stream", "data"),
            ("ab.txt", "application/octet-stream", "data"),
        ],
        "types": ["multipart/mixed", "application/octet-stream", "application/octet-stream"],
    },
    "names-of-devices": {
        "text": "",
        "files": [
            ("_CON", "application/octet-stream", "data"),
            ("_nul.txt", "application/octet-stream", "data"),
            ("_com1.log", "application/octet-stream", "data"),
            ("_LPT9", "application/octet-stream", "data"),
            ("console.txt", "application/octet-stream", "data"),
            ("_aux .h", "application/octet-stream", "data"),
        ],
        "types": [
            "multipart/mixed",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
        ],
    },
    "names-raw-utf-8": {
        "text": "",
        "files": [("größe.txt", "application/octet-stream", "data")],
        "types": ["multipart/mixed", "application/octet-stream"],
    },
    "names-rfc-2231-pieces": {
        "text": "",
        "files": [("a bé.txt", "application/octet-stream", "data"), ("中文.doc", "application/octet-stream", "data")],
        "types": ["multipart/mixed", "application/octet-stream", "application/octet-stream"],
    },
    "names-that-lead-elsewhere": {
        "text": "",
        "files": [
            ("passwd", "application/octet-stream", "data"),
            ("shadow", "application/octet-stream", "data"),
            ("cmd.exe", "application/octet-stream", "data"),
            ("attachment-4.bin", "application/octet-stream", "data"),
            ("bashrc", "application/octet-stream", "data"),
            ("b.txt", "application/octet-stream", "data"),
            ("_-rf", "application/octet-stream", "data"),
            ("_~root", "application/octet-stream", "data"),
            ("file.txt", "application/octet-stream", "data"),
            ("x y .txt", "application/octet-stream", "data"),
        ],
        "part_count": 11,
    },
    "names-tnef": {
        "text": "See attachment",
        "files": [("winmail.dat", "application/ms-tnef", "xÂ\x9f")],
        "types": ["multipart/mixed", "text/plain", "application/ms-tnef"],
    },
    "names-too-long": {
        "text": "",
        "files": [
            (
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.pdf",
                "application/octet-stream",
                "data",
            ),
            (
                "ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé.gz",
                "application/octet-stream",
                "data",
            ),
        ],
        "types": ["multipart/mixed", "application/octet-stream", "application/octet-stream"],
    },
    "names-twice": {
        "text": "",
        "files": [
            ("a.txt", "application/octet-stream", "data"),
            ("A-2.TXT", "application/octet-stream", "data"),
            ("a-3.txt", "application/octet-stream", "data"),
            ("a-2-2.txt", "application/octet-stream", "data"),
            ("b", "application/octet-stream", "data"),
            ("b-2", "application/octet-stream", "data"),
            ("attachment-7.bin", "application/octet-stream", "data"),
            ("attachment-8.jpg", "image/jpeg", "data"),
        ],
        "types": [
            "multipart/mixed",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "application/octet-stream",
            "image/jpeg",
        ],
    },
    "names-with-blanks-unquoted": {
        "text": "",
        "files": [("my file (1).pdf", "application/octet-stream", "data")],
        "types": ["multipart/mixed", "application/octet-stream"],
    },
    "no-body-but-an-empty-line": {
        "headers": {"From": "Ann <ann@example.com>", "To": "bob@example.org", "Subject": "no body"},
        "text": "",
    },
    "no-body": {
        "headers": {"From": "Ann <ann@example.com>", "To": "bob@example.org", "Subject": "no body"},
        "text": "",
    },
    "no-header-and-no-empty-line": {
        "text": "Just a line of text\nand another one.\n",
        "defects": ["MissingHeaderBodySeparatorDefect"],
    },
    "no-header": {"text": "No header, only a body.\n"},
    "only-an-empty-line": {"text": ""},
    "quoted-printable-broken": {"text": "Grüße =ZZ = soft end"},
    "subject-raw-iso-2022-jp": {"headers": {"Subject": "$B%F%9%H (B"}},
    "subject-raw-latin-1": {"headers": {"Subject": "Gr��e", "X-Other": "caf�"}},
    "subject-raw-utf-8": {
        "headers": {"Subject": "Grüße aus Köln ☃", "From": "Ann <ann@example.com>", "To": "bob@example.org"}
    },
    "to-1000-addresses": {"lengths": {"To": 38778, "Subject": 4}, "address_count": 1000},
    "to-comment-and-colon": {
        "headers": {
            "To": "(c):",
            "From": "a@[",
            "Sender": "@",
            "Reply-To": "<<a@b>>",
            "Cc": '"unfinished <a@b>',
            "Subject": "no addresses",
        },
        "addresses": {"To": [], "From": [], "Sender": [], "Reply-To": [], "Cc": []},
    },
    "to-groups": {
        "headers": {
            "To": "Friends: Ann <ann@example.com>, bob@example.org;, undisclosed-recipients:;, c@example.org",
            "Subject": "groups",
        },
        "addresses": {"To": [("Ann", "ann@example.com"), ("", "bob@example.org"), ("", "c@example.org")]},
    },
    "to-obsolete-route": {
        "headers": {
            "To": "<@relay.example,@other.example:bob@example.org>",
            "From": "ann . bee @ example . com (Ann (Bee))",
        },
        "addresses": {"To": [("", "bob@example.org")], "From": [("", "ann.bee@example.com")]},
    },
    "to-parentheses": {"lengths": {"To": 3000, "Subject": 11}, "addresses": {"To": []}},
    "to-semicolons": {
        "headers": {"To": "ann@example.com; bob@example.org", "Subject": "semicolons"},
        "addresses": {"To": [("", "ann@example.com"), ("", "bob@example.org")]},
    },
    "type-empty-parameters": {
        "headers": {"Content-Type": 'text/plain;;;; ; charset = "utf-8" ; ;x'},
        "text": "Grüße\n",
    },
    "type-missing-semicolon": {
        "headers": {"Content-Type": "text/html charset=utf-8"},
        "text": "bold\n",
        "html": "<b>bold</b>\n",
        "types": ["text/html"],
    },
    "type-name-star": {"headers": {"Content-Type": "text/plain; name*"}},
    "type-quote-without-end": {"headers": {"Content-Type": 'text/plain; charset="utf-8'}},
    "type-unknown": {
        "headers": {"Content-Type": "x-foo/x-bar; name=data.bin", "Content-Transfer-Encoding": "base64"},
        "text": "",
        "files": [("data.bin", "x-foo/x-bar", "\x00\x01\x02")],
        "types": ["x-foo/x-bar"],
    },
    "type-without-slash": {"headers": {"Content-Type": "text"}},
    "uuencode-in-text": {
        "headers": {"Subject": "uuencode in the text"},
        "text": "See below.\n\nbegin 644 cat.txt\n#0V%T\n`\nend\n",
    },
    "uuencode": {
        "text": "",
        "files": [("cat.txt", "application/octet-stream", "Cat")],
        "types": ["application/octet-stream"],
    },
    "words-2000": {"lengths": {"Subject": 2000}},
    "words-in-pieces-of-a-letter": {"headers": {"Subject": "😀 grin"}},
    "words-in-quotes": {
        "headers": {"From": '"Jörg" <joerg@example.com>'},
        "addresses": {"From": [("Jörg", "joerg@example.com")]},
    },
    "words-of-broken-base64": {"headers": {"Subject": "Grüß and  end"}},
    "words-of-gb2312": {"headers": {"Subject": "中文測試"}},
    "words-of-unknown-charset": {"headers": {"Subject": "café �xn--uryyb"}},
    "words-that-forge-an-address": {
        "headers": {
            "From": '"boss@bank.example," <ann@example.com>',
            "To": '"\\"" <bob@example.org>, "Q\\"u" <c@example.org>',
        },
        "addresses": {
            "From": [("boss@bank.example,", "ann@example.com")],
            "To": [('"', "bob@example.org"), ('Q"u', "c@example.org")],
        },
    },
    "words-with-blanks": {"headers": {"Subject": "two words here and été"}},
    "words-with-newlines": {
        "headers": {
            "Subject": "a bcc: evil@example.com",
            "X-Other": "X-Evil: yes body",
            "To": '"x bcc: e@example.com" <bob@example.org>',
        },
        "addresses": {"To": [("x bcc: e@example.com", "bob@example.org")]},
    },
    "words-without-end": {"headers": {"Subject": "=?utf-8?q?never ends"}},
}
