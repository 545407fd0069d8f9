"""smtp/mail.py: MAIL and RCPT with their arguments, as rows; what handlers are told of them.

The rows are those of address_syntax=strict; what the other one takes besides is in test_lenient.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from preforksmtp import Reject, Reply
from tests.fakes import recording, talk

EHLO = "EHLO c.test"
LONG = "x" * 65

MAIL_ROWS = [
    ("MAIL FROM:<a@b>", "250 2.1.0"),
    ("mail from:<a@b>", "250 2.1.0"),
    ("MAIL From:<a@b>", "250 2.1.0"),
    ("MAIL FROM: <a@b>", "250 2.1.0"),  # forgiven, as everywhere
    ("MAIL FROM:<a@b> ", "250 2.1.0"),
    ("MAIL FROM:<>", "250 2.1.0"),
    ("MAIL FROM:<> SIZE=10 BODY=8BITMIME", "250 2.1.0"),
    ("MAIL FROM:<@relay.test:a@b>", "250 2.1.0"),
    ('MAIL FROM:<"a b"@c>', "250 2.1.0"),
    ("MAIL FROM:<a@[192.0.2.1]>", "250 2.1.0"),
    ("MAIL", "501 5.5.4"),
    ("MAIL ", "501 5.5.4"),
    ("MAIL FROM", "501 5.5.4"),
    ("MAIL FROM:", "501 5.1.7"),
    ("MAIL TO:<a@b>", "501 5.5.4"),
    ("MAIL <a@b>", "501 5.5.4"),
    ("MAIL FROM <a@b>", "501 5.5.4"),
    ("MAIL FROM:a@b", "501 5.1.7"),
    ("MAIL FROM:<a>", "501 5.1.7"),
    ("MAIL FROM:<a@b", "501 5.1.7"),
    ("MAIL FROM:<a@b>>", "501 5.5.4"),
    ("MAIL FROM:<a@b>SIZE=1", "501 5.5.4"),
    ("MAIL FROM:<a b@c>", "501 5.1.7"),
    ("MAIL FROM:<Postmaster>", "501 5.1.7"),
    (f"MAIL FROM:<{LONG}@b>", "501 5.1.7"),
    # parameters: RFC 5321 section 4.1.1.11
    ("MAIL FROM:<a@b> SIZE=1000", "250 2.1.0"),
    ("MAIL FROM:<a@b> SIZE=1001", "552 5.3.4"),
    ("MAIL FROM:<a@b> SIZE=99999999999999999999", "552 5.3.4"),
    ("MAIL FROM:<a@b> SIZE=0", "250 2.1.0"),
    ("MAIL FROM:<a@b> SIZE", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=x", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=-1", "501 5.5.4"),
    ("MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4"),
    ("MAIL FROM:<a@b> BODY=7BIT", "250 2.1.0"),
    ("MAIL FROM:<a@b> body=8bitmime", "250 2.1.0"),
    ("MAIL FROM:<a@b> BODY=9BIT", "501 5.5.4"),
    ("MAIL FROM:<a@b> FOO=BAR", "555 5.5.4"),
    ("MAIL FROM:<a@b> FOO", "555 5.5.4"),
    ("MAIL FROM:<a@b> FOO=BAR=BAZ", "501 5.5.4"),
    ("MAIL FROM:<a@b> NOTIFY=NEVER", "555 5.5.4"),
    ("MAIL FROM:<a@b> REQUIRETLS", "555 5.5.4"),  # not offered in clear
    ("MAIL FROM:<a@b> AUTH=<>", "250 2.1.0"),
    ("MAIL FROM:<a@b> RET=HDRS ENVID=x1", "250 2.1.0"),
    # RFC 6531
    ("MAIL FROM:<ü@b> SMTPUTF8", "250 2.1.0"),
    ("MAIL FROM:<a@ü.example> SMTPUTF8 BODY=8BITMIME", "250 2.1.0"),
    ("MAIL FROM:<a@b> SMTPUTF8", "250 2.1.0"),
    ("MAIL FROM:<ü@b>", "553 5.6.7"),
    ("MAIL FROM:<a@ü.example>", "553 5.6.7"),
    ("MAIL FROM:<ü@b> SMTPUTF8=1", "501 5.5.4"),
    (b"MAIL FROM:<\xfc@b> SMTPUTF8\r\n", "501 5.5.2"),
]

RCPT_ROWS = [
    ("RCPT TO:<a@b>", "250 2.1.5"),
    ("rcpt to:<a@b>", "250 2.1.5"),
    ("RCPT TO: <a@b>", "250 2.1.5"),
    ("RCPT TO:<Postmaster>", "250 2.1.5"),
    ("RCPT TO:<postmaster>", "250 2.1.5"),
    ("RCPT TO:<postmaster> NOTIFY=NEVER", "250 2.1.5"),
    ("RCPT TO:<postmaster>x", "501 5.5.4"),
    ("RCPT TO:<Postmaster@b>", "250 2.1.5"),
    ("RCPT TO:<@one,@two:a@b>", "250 2.1.5"),
    (r'RCPT TO:<"a\"b"@c>', "250 2.1.5"),
    ("RCPT TO:<a@[IPv6:2001:db8::1]>", "250 2.1.5"),
    ("RCPT TO:<${run{x}}@b>", "250 2.1.5"),  # legal atoms; no handler may give them to a shell
    ("RCPT TO:<a%b@c>", "250 2.1.5"),
    ("RCPT", "501 5.5.4"),
    ("RCPT FROM:<a@b>", "501 5.5.4"),
    ("RCPT TO:", "501 5.1.3"),
    ("RCPT TO:<>", "501 5.1.3"),
    ("RCPT TO:a@b", "501 5.1.3"),
    ("RCPT TO:<a>", "501 5.1.3"),
    ("RCPT TO:<a@b@c>", "501 5.1.3"),
    ("RCPT TO:<;id;@b>", "501 5.1.3"),  # CVE-2020-7247
    ("RCPT TO:<a@[1.2.3.400]>", "501 5.1.3"),
    (f"RCPT TO:<{LONG}@b>", "501 5.1.3"),
    ("RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b", "250 2.1.5"),
    ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "501 5.5.4"),
    ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
    ("RCPT TO:<a@b> FOO=BAR", "555 5.5.4"),
    ("RCPT TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
    ("RCPT TO:<ü@b>", "553 5.6.7"),
]


@pytest.mark.parametrize(("command", "answer"), MAIL_ROWS)
def test_mail(command, answer):
    spoken = talk([EHLO, command, "RCPT TO:<x@y>"], max_message_size=1000, address_syntax="strict")
    assert spoken.replies[1].startswith(answer)
    assert spoken.codes[2] == (250 if answer.startswith("250") else 503), "a refused MAIL begins nothing"


@pytest.mark.parametrize(("command", "answer"), RCPT_ROWS)
def test_rcpt(command, answer):
    spoken = talk([EHLO, "MAIL FROM:<a@b>", command, "DATA"], address_syntax="strict")
    assert spoken.replies[2].startswith(answer)
    assert spoken.codes[3] == (354 if answer.startswith("250") else 554), "a refused RCPT adds nothing"


def test_utf8_recipients_where_mail_asked_for_them():
    spoken = talk([EHLO, "MAIL FROM:<a@b> SMTPUTF8", "RCPT TO:<ü@例子.test>"])
    assert spoken.codes == [250, 250, 250]


def test_without_a_limit_any_size_may_be_announced():
    assert talk([EHLO, "MAIL FROM:<a@b> SIZE=99999999999999999999"], max_message_size=0).codes[1] == 250


def test_what_hooks_are_told():
    handler = recording(mail=None, rcpt=None, data=None, message=None)
    talk(
        [
            EHLO,
            "MAIL FROM:<@r:A@b> SIZE=10 body=8bitmime SMTPUTF8 AUTH=x+40y RET=FULL",
            "RCPT TO:<C@d> NOTIFY=DELAY",
            "RCPT TO:<E@f>",
            "DATA",
            b".\r\n",
        ],
        handler,
    )
    params = {"SIZE": 10, "BODY": "8BITMIME", "SMTPUTF8": True, "AUTH": "", "RET": "FULL"}
    assert handler.events[:4] == [
        ("mail", "A@b", params),
        ("rcpt", "C@d", {"NOTIFY": ("DELAY",)}),
        ("rcpt", "E@f", {}),
        ("data",),
    ]
    assert handler.events[1][1].params == {"NOTIFY": ("DELAY",)}
    message = handler.events[4][1]
    assert (message.sender, message.recipients, message.params) == ("A@b", ["C@d", "E@f"], params)


@pytest.mark.parametrize(
    ("hook", "act", "answer"),
    [
        ("mail", None, "250 2.1.0 Sender ok"),
        ("mail", "welcome", "250 2.0.0 welcome"),
        ("mail", Reply(250, "2.1.0 hello"), "250 2.1.0 hello"),
        ("mail", Reply(550, "5.7.1 no"), "550 5.7.1 no"),
        ("mail", Reject(451, "4.7.1 greylisted"), "451 4.7.1 greylisted"),
        ("mail", Reply(354, "x"), "451 4.3.0"),
        ("mail", ValueError("x"), "451 4.3.0"),
        ("mail", True, "451 4.3.0"),
        ("rcpt", None, "250 2.1.5 Recipient ok"),
        ("rcpt", Reply(251, "2.1.5 will forward"), "251 2.1.5 will forward"),
        ("rcpt", Reply(551, "5.1.6 moved"), "551 5.1.6 moved"),
        ("rcpt", Reject(550, "5.1.1 no"), "550 5.1.1 no"),
        ("rcpt", "a\nb", "451 4.3.0"),
        ("rcpt", KeyboardInterrupt(), "451 4.3.0"),
    ],
)
def test_what_hooks_answer(hook, act, answer):
    spoken = talk([EHLO, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"], recording(message=None, **{hook: act}))
    position = 1 if hook == "mail" else 2
    assert spoken.replies[position].startswith(answer)
    positive = answer[0] == "2"
    assert (
        spoken.codes[position + 1 :]
        == {
            ("mail", True): [250, 354],
            ("mail", False): [503, 503],
            ("rcpt", True): [354],
            ("rcpt", False): [554],
        }[hook, positive]
    )


def test_421_of_a_hook_ends_the_session():
    spoken = talk([EHLO, "MAIL FROM:<a@b>", "NOOP"], recording(message=None, mail=Reject(421, "4.3.2 closing")))
    assert spoken.replies[1:] == ["421 4.3.2 closing"]


def test_data_refused_before_the_body():
    spoken = talk(
        [EHLO, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "DATA", "RSET"],
        recording(message=None, data=Reject(550, "5.7.1 no")),
    )
    assert spoken.codes == [250, 250, 250, 550, 550, 250]


def test_one_recipient_of_several():
    def rcpt(handler, recipient, params):
        if recipient.startswith("no"):
            raise Reject(550, "5.1.1 no")

    handler = recording(message=None, rcpt=rcpt)
    spoken = talk(
        [EHLO, "MAIL FROM:<>", *[f"RCPT TO:<{name}@b>" for name in ("a", "no1", "b", "no2")], "DATA", b".\r\n"], handler
    )
    assert spoken.codes == [250, 250, 250, 550, 250, 550, 354, 250]
    assert handler.events[-1][1].recipients == ["a@b", "b@b"]


def test_too_many_recipients():
    """RFC 5321 section 4.5.3.1.10: 452, and those before stay."""
    handler = recording(message=None, rcpt=None)
    recipients = [f"RCPT TO:<r{number}@b>" for number in range(5)]
    spoken = talk(
        [EHLO, "MAIL FROM:<a@b>", *recipients, "DATA", b".\r\n", "MAIL FROM:<a@b>", recipients[0]],
        handler,
        max_recipients=3,
    )
    assert spoken.codes == [250, 250, 250, 250, 250, 452, 452, 354, 250, 250, 250]
    assert spoken.replies[5].startswith("452 4.5.3")
    assert [event[1] for event in handler.events if event[0] == "rcpt"] == ["r0@b", "r1@b", "r2@b", "r0@b"]


def test_too_many_domains_of_recipients():
    """RFC 9422: RCPTDOMAINMAX."""
    recipients = [f"RCPT TO:<{mailbox}>" for mailbox in ("a@one.test", "b@ONE.test", "c@two.test", "d@three.test", "e@two.test")]
    spoken = talk([EHLO, "MAIL FROM:<a@b>", *recipients], max_recipient_domains=2)
    assert spoken.codes[2:] == [250, 250, 250, 452, 250]


def test_a_hundred_recipients_at_least():
    script = [EHLO, "MAIL FROM:<a@b>", *[f"RCPT TO:<r{n}@b>" for n in range(1001)]]
    assert talk(script).codes == [250] * 1002 + [452]
    assert talk(script, max_recipients=0).codes == [250] * 1003, "0 is no limit"


def test_a_drain_refuses_the_next_message_only():
    def drain(handler):
        handler.drain()

    handler = recording(message=None, data=drain)

    def prepare(dialogue):
        handler.drain = lambda self: setattr(dialogue.wire, "draining", True)

    spoken = talk(
        [EHLO, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", b".\r\n", "NOOP", "MAIL FROM:<a@b>", "NOOP"],
        handler,
        before=prepare,
    )
    assert spoken.codes == [250, 250, 250, 354, 250, 250, 421]
    assert spoken.replies[-1].startswith("421 4.3.2")


@pytest.mark.parametrize(("hurried", "codes"), [(True, [250, 421]), (False, [250, 250, 250, 354, 250, 421])])
def test_a_session_that_has_just_begun_may_come_to_its_first_message(hurried, codes):
    def drain(dialogue):
        dialogue.wire.draining, dialogue.wire.hurried = True, hurried

    message = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", b".\r\n"]
    assert talk([EHLO, *message, *message], before=drain).codes == codes


@pytest.mark.parametrize(("client", "told"), [([], ""), (["AUTH PLAIN AGIAcw=="], "x@y")])
def test_auth_of_mail_is_believed_of_authenticated_clients_only(client, told):
    """RFC 4954 section 5."""
    handler = recording(authenticate=True, mail=None)
    talk([EHLO, *client, "MAIL FROM:<a@b> AUTH=x+40y"], handler, allow_insecure_auth=True)
    assert handler.events[-1] == ("mail", "a@b", {"AUTH": told})


@pytest.mark.parametrize(
    ("minimum", "by", "code"),
    [("60", "60;R", 250), ("60", "59;R", 555), ("60", "5;N", 250), (None, "1;R", 250), ("60", "0;R", 501)],
)
def test_what_must_be_delivered_sooner_than_ehlo_promised_is_refused(minimum, by, code):
    """RFC 2852 section 4."""
    handler = type("Timely", (recording(message=None),), {"extensions": {"DELIVERBY": minimum}})
    assert talk([EHLO, f"MAIL FROM:<a@b> BY={by}"], handler).codes[-1] == code


def test_no_message_is_held_longer_than_ehlo_promised():
    """RFC 4865."""
    now = datetime.now(timezone.utc)
    rows = [
        ("HOLDFOR=60", 250),
        ("HOLDFOR=61", 501),
        (f"HOLDUNTIL={now + timedelta(seconds=50):%Y-%m-%dT%H:%M:%SZ}", 250),
        (f"HOLDUNTIL={now + timedelta(seconds=500):%Y-%m-%dT%H:%M:%SZ}", 501),
        ("HOLDUNTIL=9999-12-31T23:59:59Z", 501),
    ]
    handler = type("Holding", (recording(message=None),), {"extensions": {"FUTURERELEASE": 60}})
    for parameter, code in rows:
        assert talk([EHLO, f"MAIL FROM:<a@b> {parameter}"], handler).codes[-1] == code, parameter
