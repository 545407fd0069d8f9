"""A Postfix of the tests' own, which relays to the server under test."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Program, wait_until
from tests.program.conftest import Server, need


def run(arguments: list[str], content: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        arguments, input=content, capture_output=True, timeout=30, env=os.environ | env, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
    return done


MASTER_CF = """\
pickup    unix  n  -  n  1  1  pickup
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  1  1  qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
flush     unix  n  -  n  1000?  0  flush
proxymap  unix  -  -  n  -  -  proxymap
tlsmgr    unix  -  -  n  1000?  1  tlsmgr
smtp      unix  -  -  n  -  -  smtp
lmtp      unix  -  -  n  -  -  lmtp
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
scache    unix  -  -  n  -  1  scache
postlog   unix-dgram  n  -  n  -  1  postlogd
"""


class Postfix(Program):
    """A Postfix of its own, apart from the system's: its folders below `folder`, everything goes to the relay host. It
    listens on `port` of 127.0.0.1, if that is not 0."""

    def __init__(self, folder: Path, relay: str, port: int = 0, **settings: str) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.log = folder / "log"
        for name in ("config", "queue", "data"):
            (folder / name).mkdir()
        os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": folder / "queue",
            "data_directory": folder / "data",
            "maillog_file": self.log,
            "maillog_file_prefixes": folder,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "postfix.example.com",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "relayhost": relay,
            "smtp_host_lookup": "native",
            "smtputf8_enable": "yes",
            "mailbox_size_limit": "0",
        } | settings
        (self.config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        smtpd = f"127.0.0.1:{port} inet n - n - - smtpd\nanvil unix - - n - 1 anvil\n" if port else ""
        (self.config / "master.cf").write_text(MASTER_CF + smtpd)
        self._sbin = Path(need("postfix")).parent
        run([str(self._sbin / "postfix"), "-c", str(self.config), "check"])  # it makes the folders of the queue
        asked = run([str(self._sbin / "postconf"), "-c", str(self.config), "-h", "daemon_directory"])
        # Not "postfix start-fg": TERM would end its shell and leave the master.
        super().__init__([f"{asked.stdout.decode().strip()}/master", "-c", str(self.config), "-s"])

    def submit(self, content: bytes, *recipients: str, sender: str, options: tuple[str, ...] = ()) -> None:
        """Through its sendmail, as a local program does."""
        arguments = [str(self._sbin / "sendmail"), "-i", "-f", sender, *options, "--", *recipients]
        run(arguments, content.replace(b"\r\n", b"\n"), MAIL_CONFIG=str(self.config))

    def queued(self) -> list[Path]:
        folders = ("maildrop", "incoming", "active", "deferred")
        return [file for name in folders for file in (self.folder / "queue" / name).rglob("*") if file.is_file()]

    def assert_nothing_left(self) -> None:
        """Its master ends before its children do."""
        wait_until(lambda: not self.group(), "the end of Postfix's processes")
        super().assert_nothing_left()

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def relaying(folder: Path, server: Server, relay: str, port: int = 0, **settings: str) -> Iterator[Postfix]:
    """A Postfix whose queue is empty at the end; what fails within is told with what it and the server say of it."""
    with Postfix(folder, relay, port, **settings) as postfix:
        try:
            wait_until(lambda: "daemon started" in postfix.read_log(), "Postfix starts")
            yield postfix
            wait_until(lambda: not postfix.queued(), "Postfix's queue is empty")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{postfix.output}\n{postfix.read_log()}\n{server.output}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                postfix.stop()


def over_lmtp(server: Server) -> dict[str, str]:
    return {"relayhost": "", "default_transport": f"lmtp:inet:127.0.0.1:{server.port('lmtp')}"}
