"""nginx accepts its files, and mail passes through it to the real server, which sees the client."""

from __future__ import annotations

import json
import os
import re
import smtplib
from pathlib import Path

import pytest

from preforksmtp.config import arguments
from tests.certificates import Certificate, make_certificate
from tests.conf.programs import CONF, LOCAL, free_ports, run
from tests.processes import PATIENCE, Program
from tests.program.conftest import Server, need

FOLDER = CONF / "nginx"
MODULES = [Path("/usr/lib/nginx/modules") / f"ngx_{name}_module.so" for name in ("mail", "stream")]
APP = """
import json
from preforksmtp import Handler

class Facts(Handler):
    def message(self, message):
        session = message.session
        return "facts " + json.dumps({"peer": session.peer.host, "helo": session.helo, "port": session.peer.port})
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Nginx:
    """nginx' own configuration around the samples; their ports, addresses and certificate are the test's."""

    def __init__(self, folder: Path, certificate: Certificate, server: int = 2525) -> None:
        self.program = need("nginx")
        if not all(module.exists() for module in MODULES):
            need("nginx' modules mail and stream")
        self.folder = folder
        self.mail, self.stream, self.submissions, auth = free_ports(4)
        changes = {
            r"/etc/ssl/private/mx.example.com.pem;\n *ssl_certificate_key.*": f"{certificate.certfile};\n"
            f"    ssl_certificate_key {certificate.keyfile};",
            r"127\.0\.0\.1:9026": f"{LOCAL}:{auth}", r"192\.0\.2\.1[12]:2525": f"127.0.0.1:{server}",
            r"Auth-Port   2525": f"Auth-Port {server}", r"listen 465": f"listen {LOCAL}:{self.submissions}",
        }  # fmt: skip
        for name, port in (("mail", self.mail), ("stream", self.stream), ("mail-auth", 0)):
            text = (FOLDER / f"{name}.conf").read_text()
            for old, new in {**changes, r"listen 25;": f"listen {LOCAL}:{port};"}.items():
                text = re.sub(old, new, text)
            (folder / f"{name}.conf").write_text(text)
        self.config = folder / "nginx.conf"
        loaded = "".join(f"load_module {module};\n" for module in MODULES)
        paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = " user root;" if os.geteuid() == 0 else ""
        self.config.write_text(
            f"{loaded}pid {folder}/pid; error_log stderr info; daemon off; worker_processes 1;{user}\nevents {{}}\n"
            f"include {folder}/mail.conf;\ninclude {folder}/stream.conf;\n"
            f"http {{ access_log off; {paths}\ninclude {folder}/mail-auth.conf; }}\n"
        )
        self.command = [self.program, "-e", "stderr", "-p", str(folder), "-c", str(self.config)]


def test_nginx_accepts_the_files(tmp_path: Path, certificate: Certificate) -> None:
    output = run(*Nginx(tmp_path, certificate).command, "-t")
    assert "[warn]" not in output, output


@pytest.mark.parametrize("way", ["mail", "stream"])
def test_mail_passes_and_the_server_sees_the_client(tmp_path: Path, certificate: Certificate, way: str) -> None:
    need("nginx")
    (tmp_path / "app.py").write_text(APP)
    trust = "xclient" if way == "mail" else "proxy_protocol"
    with Server(tmp_path, "-b", f"127.0.0.1:0?{trust}=127.0.0.1", "app:Facts") as server:
        server.ready()
        nginx = Nginx(tmp_path, certificate, server.port())
        with Program(nginx.command) as running:
            running.wait_for("start worker process ")
            client = smtplib.SMTP(LOCAL, getattr(nginx, way), timeout=PATIENCE, source_address=("127.0.0.2", 0))
            with client:
                client.ehlo("client.example.org")
                assert client.has_extn("size")
                assert client.mail("a@example.com", ["SIZE=100"])[0] == 250
                assert client.rcpt("b@example.com")[0] == 250
                code, reply = client.data("Subject: x\n\ny")
            assert code == 250
            facts = json.loads(reply.decode().partition("facts ")[2])
            assert (facts["peer"], facts["helo"]) == ("127.0.0.2", "client.example.org")
            running.stop()
        assert server.stop() == 0


def test_nobody_logs_in_by_the_sample(tmp_path: Path, certificate: Certificate) -> None:
    """Though "smtp_auth plain" is turned on without more."""
    nginx = Nginx(tmp_path, certificate)
    config = tmp_path / "mail.conf"
    config.write_text(config.read_text().replace("smtp_auth none;", "smtp_auth plain;").replace("starttls on", "starttls off"))
    with Program(nginx.command) as running:
        running.wait_for("start worker process ")
        with smtplib.SMTP(LOCAL, nginx.mail, timeout=PATIENCE) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "secret")
        running.stop()


@pytest.mark.parametrize("file", ["mail.conf", "stream.conf"])
def test_the_servers_of_the_comments_are_understood(file: str) -> None:
    (command,) = re.findall(r"^# +preforksmtp (.*) \.\.\.$", (FOLDER / file).read_text(), re.MULTILINE)
    assert arguments.parse(re.sub("'", "", command).split())
