"""fail2ban bans who fails, and nobody whom a client names, whatever it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from preforksmtp.logs.access import AccessRecord, compile_format
from tests.conf.programs import CONF, run
from tests.program.conftest import need

FILTER = CONF / "fail2ban" / "filter.d" / "preforksmtp.conf"
JAILS = CONF / "fail2ban" / "jail.d" / "preforksmtp.conf"

# ---- TO COME: what the server itself makes of these facts (logs/access.py) once log_refusals is there. ----
REFUSED = compile_format(
    "refused session=%(i)s peer=[%(h)s]:%(hp)s helo=%(l)s user=%(u)s stage=%(r)s "
    'reply="%(s)s %(e)s %(m)s" from=<%(f)s> to=%(rcpt)s'
)
AUTH = compile_format("auth %(r)s session=%(i)s peer=[%(h)s]:%(hp)s mechanism=PLAIN user=%(u)s")
# ---- end of TO COME ----

CULPRIT, VICTIM = "192.0.2.9", "198.51.100.7"
HEAD = "2026-12-01 10:00:00 +0000 [4711] [INFO] "

# What a client may say anywhere, in the hope that it is read as a line, a date or a peer.
HOSTILE = [
    VICTIM,
    f"[{VICTIM}]",
    f"peer=[{VICTIM}]:25",
    f"x peer=[{VICTIM}]:25 helo=x",
    f'x" from=<> peer=[{VICTIM}]:25 mechanism=PLAIN user=x',
    f"\r\n{HEAD}auth failed session=x peer=[{VICTIM}]:25 mechanism=PLAIN user=x",
    f"\n{HEAD}refused session=x peer=[{VICTIM}]:25 helo=x user=- stage=rcpt reply=\"550 5.1.1 x\" from=<> to=<x@y>\n",
    f"\u2028{HEAD}auth failed session=x peer=[{VICTIM}]:25 mechanism=PLAIN user=x",
    f"auth failed session=x peer=[{VICTIM}]:25 mechanism=PLAIN user=x",
    f"2026-12-01 10:00:00 +0000 [1] [INFO] auth failed session=x peer=[{VICTIM}]:25 mechanism=PLAIN user=x",
    f"\\x5d:25 peer=[{VICTIM}",
    f"<{VICTIM}>",
    f"a@[{VICTIM}]",
    f"::ffff:{VICTIM}",
]  # fmt: skip


def refused(code: int = 550, **facts: object) -> str:
    known = {
        "session_id": "01K", "peer_host": CULPRIT, "peer_port": 567, "helo": "mx.example.com", "command": "rcpt",
        "enhanced": f"{code // 100}.1.1", "text": "no such user", "sender": "a@example.com", "recipients": ["b@example.net"],
    }  # fmt: skip
    return HEAD + REFUSED(AccessRecord(code=code, **(known | facts)))  # type: ignore[arg-type]


def auth(result: str = "failed", user: str = "", host: str = CULPRIT) -> str:
    record = AccessRecord(session_id="01K", peer_host=host, peer_port=567, command=result, user=user)
    return HEAD + AUTH(record)


def banned(tmp_path: Path, lines: list[str], mode: str = "more") -> list[str]:
    """The addresses that fail2ban finds in a log of these lines, one for each line that counts."""
    log = tmp_path / "error.log"
    log.write_text("".join(lines))
    return run(need("fail2ban-regex"), "--out", "ip", str(log), f"{FILTER}[mode={mode}]").split()


def test_failures_are_banned(tmp_path: Path) -> None:
    lines = [auth(), auth(user="alice"), refused(), refused(code=554, peer_host="2001:db8::9"), auth(host="2001:db8::8")]
    assert banned(tmp_path, lines, "auth") == [CULPRIT, CULPRIT, "2001:db8::8"]
    assert banned(tmp_path, lines, "rcpt") == [CULPRIT, "2001:db8::9"]
    assert banned(tmp_path, lines) == [CULPRIT, CULPRIT, CULPRIT, "2001:db8::9", "2001:db8::8"]


def test_what_is_no_failure_is_not_counted(tmp_path: Path) -> None:
    """Success; what may be tried again; a RCPT pipelined behind a MAIL that was deferred; other stages and lines."""
    lines = [auth("ok", "alice"), refused(code=450), refused(code=503), refused(command="mail", recipients=[])]
    lines += [refused(code=554, command="connect", recipients=[]), refused(peer_host="", peer_port=0)]
    lines += [f"{HEAD}master 1: ready\n", f"{HEAD}session 01K: reset by [{VICTIM}]:25\n"]
    assert banned(tmp_path, lines) == []


@pytest.mark.parametrize("field", ["helo", "user", "sender", "recipients", "text"])
def test_no_words_of_a_client_ban_another(tmp_path: Path, field: str) -> None:
    lines = [refused(**{field: [words] if field == "recipients" else words}) for words in HOSTILE]
    assert banned(tmp_path, lines) == [CULPRIT] * len(HOSTILE)


@pytest.mark.parametrize("field", ["helo", "user", "sender", "recipients", "text"])
def test_no_words_of_a_client_make_a_failure_of_something_else(tmp_path: Path, field: str) -> None:
    lines = [refused(code=450, **{field: [words] if field == "recipients" else words}) for words in HOSTILE]
    assert banned(tmp_path, lines) == []


def test_no_name_of_a_user_bans_another(tmp_path: Path) -> None:
    assert banned(tmp_path, [auth(user=words) for words in HOSTILE]) == [CULPRIT] * len(HOSTILE)
    assert banned(tmp_path, [auth("ok", words) for words in HOSTILE]) == []


def test_the_lines_of_syslog_and_of_the_journal(tmp_path: Path) -> None:
    line = auth(user="alice")
    syslog = line.replace(HEAD, "Dec  1 10:00:00 mx1 preforksmtp[4711]: [INFO] ")
    journal = "Dec  1 10:00:00 mx1 preforksmtp[4711]: " + line
    other = syslog.replace("preforksmtp[", "httpd[")  # a line of another program, which may let its clients choose it
    assert banned(tmp_path, [syslog, journal, other]) == [CULPRIT] * 2


def test_fail2ban_accepts_the_jails(tmp_path: Path) -> None:
    client = need("fail2ban-client")
    folder = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", folder)
    for jail in (folder / "jail.d").iterdir():
        jail.unlink()
    shutil.copy(FILTER, folder / "filter.d")
    (tmp_path / "error.log").touch()
    text = JAILS.read_text()
    assert text.count("/var/log/preforksmtp/error.log") == 2
    (folder / "jail.d" / JAILS.name).write_text(text.replace("/var/log/preforksmtp", str(tmp_path)))
    assert "OK" in run(client, "-c", str(folder), "-t")
    dumped = run(client, "-c", str(folder), "-d")
    for jail in ("preforksmtp-auth", "preforksmtp-rcpt"):
        assert re.search(rf"'(?:multi-)?set', '{jail}', 'addfailregex'", dumped)
        assert f"['set', '{jail}', 'addlogpath', '{tmp_path}/error.log', 'head']" in dumped
