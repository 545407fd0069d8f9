"""The files in conf/ are what the programs they are for accept, and fit the server's own settings."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from preforksmtp.config import arguments
from preforksmtp.config.settings import SETTINGS
from preforksmtp.net.bind import SCHEMES, parse_bind
from tests.conf.programs import CONF, run
from tests.program.conftest import need

GRACEFUL_TIMEOUT = next(setting.default for setting in SETTINGS if setting.name == "graceful_timeout")
BOOT_TIMEOUT = next(setting.default for setting in SETTINGS if setting.name == "boot_timeout")


def values(file: str) -> dict[str, str]:
    """Of a systemd unit; a name given twice has its last value."""
    text = (CONF / file).read_text().replace("\\\n", " ")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = need("systemd-analyze")
    units = [tmp_path / file.name for file in sorted((CONF / "systemd").iterdir())]
    for unit in units:
        text = (CONF / "systemd" / unit.name).read_text()
        # It looks whether the program is there, and here it is installed elsewhere, if at all.
        unit.write_text(re.sub(r"^ExecStart=\S+/preforksmtp ", f"ExecStart={sys.executable} ", text, flags=re.MULTILINE))
    faults = run(analyze, "verify", "--man=no", *map(str, units)).splitlines()
    assert [line for line in faults if "preforksmtp" in line] == []  # it also looks at units of the system


def test_the_service_leaves_the_server_its_time() -> None:
    service = values("systemd/preforksmtp.service")
    assert int(service["TimeoutStopSec"]) > GRACEFUL_TIMEOUT + 10
    assert int(service["TimeoutStartSec"]) > BOOT_TIMEOUT
    assert int(service["WatchdogSec"]) > BOOT_TIMEOUT  # a hook in the master may take as long
    assert (service["KillMode"], service["NotifyAccess"]) == ("mixed", "main")
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_service_starts_with_the_socket_of_the_socket_unit() -> None:
    socket = values("systemd/preforksmtp.socket")
    command = shlex.split(values("systemd/preforksmtp.service")["ExecStart"])
    arguments.parse(command[1:])
    bind = parse_bind(command[command.index("-b") + 1])
    assert socket["FileDescriptorName"] == bind.scheme
    assert int(socket["ListenStream"]) == bind.port
    assert bind.scheme in SCHEMES


def test_haproxy_accepts_its_configuration() -> None:
    output = run(need("haproxy"), "-c", "-f", str(CONF / "haproxy.cfg"))
    assert "WARNING" not in output and "ALERT" not in output, output


def test_every_server_of_haproxy_is_one_that_expects_the_header() -> None:
    text = (CONF / "haproxy.cfg").read_text()
    assert "default-server send-proxy-v2 check check-send-proxy " in text
    (command,) = re.findall(r"^# +preforksmtp (.*) \.\.\.$", text, re.MULTILINE)
    options = arguments.parse(shlex.split(command))
    assert options
    expecting = {f"{bind.host}:{bind.port}" for bind in map(parse_bind, re.findall(r"-b '([^']+)'", command))}
    assert set(re.findall(r"^ +server \w+ (\S+)$", text, re.MULTILINE)) == expecting


def test_postfix_accepts_its_lines(tmp_path: Path) -> None:
    postconf, postmap = need("postconf"), need("postmap")
    for name in ("main.cf", "transport"):
        shutil.copy(CONF / "postfix" / name, tmp_path)
    services = ("smtp unix - - n - - smtp", "lmtp unix - - n - - lmtp")
    (tmp_path / "master.cf").write_text("".join(f"{line}\n" for line in services))
    assert "warning" not in run(postconf, "-c", str(tmp_path), "-n")
    table = f"texthash:{tmp_path}/transport"
    assert run(postconf, "-c", str(tmp_path), "-xh", "transport_maps").strip() == table
    commands = re.findall(r"^# +preforksmtp (.*)$", (CONF / "postfix" / "main.cf").read_text(), re.MULTILINE)
    (command,) = commands
    arguments.parse(shlex.split(command))
    smtp, lmtp = map(parse_bind, re.findall(r"-b '([^']+)'", command))
    query = (postmap, "-c", str(tmp_path), "-q")
    assert run(*query, "example.com", table).strip() == f"smtp:[{smtp.host}]:{smtp.port}"
    assert run(*query, "lists.example.com", table).strip() == f"lmtp:inet:{lmtp.host}:{lmtp.port}"
    assert lmtp.lmtp and not smtp.lmtp


def test_kubernetes() -> None:
    """Simple facts of the text: nothing here reads YAML."""
    text = (CONF / "kubernetes.yaml").read_text()
    assert re.findall(r"^kind: (\w+)$", text, re.MULTILINE) == ["Deployment", "Service", "NetworkPolicy"]
    assert "\t" not in text
    (found,) = re.findall(r"^ +args: \[([^]]*)\]$", text, re.MULTILINE)
    command = [argument.strip().strip('"') for argument in found.split(",")]
    arguments.parse(command)
    status = parse_bind(command[command.index("--status-bind") + 1]).port
    assert f"{{name: status, containerPort: {status}}}" in text
    assert re.findall(r"httpGet: \{path: (\S+), port: status\}", text) == ["/readyz", "/livez"]
    port = parse_bind(command[command.index("-b") + 1]).port
    assert f"{{name: smtp, containerPort: {port}}}" in text
    assert "targetPort: smtp}" in text
    policy = text.partition("kind: NetworkPolicy")[2]
    anybody, _, prometheus = policy.partition("    - from:\n")
    assert re.findall(r"\{port: (\w+), protocol: TCP\}", anybody) == ["smtp"]
    assert re.findall(r"\{port: (\w+), protocol: TCP\}", prometheus) == ["status"]
    assert "podSelector:\n    matchLabels: {app: preforksmtp}\n" in policy
    (pause,) = re.findall(r'command: \[sleep, "(\d+)"\]', text)
    (grace,) = re.findall(r"^ +terminationGracePeriodSeconds: (\d+)$", text, re.MULTILINE)
    drain = int(command[command.index("--graceful-timeout") + 1])
    assert int(grace) >= int(pause) + drain + 10


SAMPLES = sorted(file for file in CONF.rglob("*") if file.is_file())


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: str(file.relative_to(CONF)))
def test_it_opens_with_what_it_is_for_and_how_to_try_it(file: Path) -> None:
    """In a comment; JSON has none, so there it is a description."""
    head = "".join(file.read_text().splitlines(keepends=True)[:12])
    assert head.startswith("{" if file.suffix == ".json" else "# ")
    if file.name != "preforksmtp.conf.py" and file.parent.name != "postfix":
        assert re.search(r"\b[Tt]ry it( in a checkout)?( with)?: ?", head)


def test_the_table_of_the_readme_has_every_sample() -> None:
    table = (CONF.parent / "README.md").read_text().partition("| in `conf/` | is for |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w.-]+/?)`", re.sub(r"\(`[^)]*\)", "", table)))
    there = {f"{path.name}/" if path.is_dir() else path.name for path in CONF.iterdir()}
    assert named == there - {"preforksmtp.conf.py"}  # the paragraph before has that one
