"""logrotate accepts its file, and the server goes on in a new one without a line lost."""

from __future__ import annotations

import re
import smtplib
from pathlib import Path

from tests.conf.programs import CONF, run
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Server, need

SAMPLE = CONF / "logrotate" / "preforksmtp"


def test_logrotate_accepts_it() -> None:
    output = run(need("logrotate"), "-d", str(SAMPLE))
    assert "error:" not in output
    assert "rotating pattern: /var/log/preforksmtp/*.log " in output


def test_no_line_is_lost_in_a_rotation(tmp_path: Path) -> None:
    """Messages are sent until one is in the new file; each of them has a line in one of the two."""
    logrotate = need("logrotate")
    (tmp_path / "app.py").write_text("def handler(message):\n    return None\n")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o700)
    rotation = tmp_path / "rotation"
    text = SAMPLE.read_text().replace("/var/log/preforksmtp", str(logs))
    rotation.write_text(text.replace("/run/preforksmtp/pid", str(tmp_path / "pid")))
    rotation.chmod(0o644)
    options = ["-b", LOOPBACK, "-p", "pid", "--access-logfile", "logs/access.log", "app:handler"]
    sent = 0

    def send(server: Server) -> None:
        nonlocal sent
        with smtplib.SMTP("127.0.0.1", server.port(), timeout=PATIENCE) as client:
            client.sendmail(f"{sent}@example.com", ["you@example.com"], "Subject: x\n\ny")
        sent += 1

    def new_has_a_line(server: Server) -> bool:
        send(server)
        return (logs / "access.log").exists() and (logs / "access.log").stat().st_size > 0

    with Server(tmp_path, *options) as server:
        server.ready()
        send(server)
        run(logrotate, "-f", "-s", str(tmp_path / "state"), str(rotation))
        wait_until(lambda: new_has_a_line(server), "the server writes to a new file")
        assert server.stop() == 0
    (old,) = logs.glob("access.log-*")
    found = re.findall(r" from=<(\d+)@", old.read_text() + (logs / "access.log").read_text())
    assert found == [str(number) for number in range(sent)]
    assert "from=<0@" in old.read_text()
