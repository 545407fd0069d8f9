"""The Dockerfile: no root, no shell between, and what it runs is what the server understands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from preforksmtp.config import arguments
from preforksmtp.net.bind import parse_bind
from tests.conf.programs import CONF, LOCAL, free_ports
from tests.processes import wait_until
from tests.program.conftest import LOOPBACK, Server

TEXT = (CONF / "Dockerfile").read_text()
KNOWN = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip
DISCARD = "def handler(message):\n    return None\n"


def instructions() -> list[tuple[str, str]]:
    """(name, the rest), lines that are continued joined."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def only(name: str) -> str:
    (found,) = [rest for instruction, rest in instructions() if instruction == name]
    return found


def words(text: str) -> list[str]:
    """The exec form."""
    found: list[str] = json.loads(text)
    return found


def test_the_instructions_are_known_and_add_nothing_from_elsewhere() -> None:
    names = [name for name, _ in instructions()]
    assert set(names) <= KNOWN
    assert names[0] == "FROM"
    assert re.fullmatch(r"debian:[a-z]+-slim", only("FROM"))  # a release, and no "latest"
    assert "ADD" not in names
    assert "://" not in "".join(rest for _, rest in instructions())


def test_it_is_not_root() -> None:
    """What runs as root comes before; nothing comes after that would give it back."""
    uid, gid = map(int, only("USER").split(":"))
    assert uid >= 1000 and gid >= 1000
    assert f"--uid {uid} " in TEXT
    names = [name for name, _ in instructions()]
    assert not {"RUN", "COPY", "ENV"} & set(names[names.index("USER") :])
    kubernetes = (CONF / "kubernetes.yaml").read_text()
    assert f"runAsUser: {uid}" in kubernetes
    assert f"runAsGroup: {gid}" in kubernetes


def test_what_it_copies_is_there() -> None:
    for name, rest in instructions():
        if name == "COPY":
            assert (CONF.parent / rest.split()[0]).exists()


def test_the_command_is_understood() -> None:
    assert words(only("ENTRYPOINT")) == ["python3", "-m", "preforksmtp"]
    command = words(only("CMD"))
    arguments.parse(command)
    assert str(parse_bind(command[command.index("-b") + 1]).port) == only("EXPOSE")
    assert only("VOLUME") in command[-1]


def test_the_health_check(tmp_path: Path) -> None:
    """The very command, for the port of a real server: 0 as long as that lives."""
    options, _, check = only("HEALTHCHECK").partition(" CMD ")
    assert "--start-period=" in options
    program = words(check)
    assert program[:3] == ["python3", "-I", "-c"]
    bind = parse_bind(words(only("CMD"))[words(only("CMD")).index("--status-bind") + 1])
    assert f"'{bind.host}', {bind.port}," in program[3]
    (tmp_path / "app.py").write_text(DISCARD)

    def healthy(port: int) -> bool:
        code = program[3].replace(f"'{bind.host}', {bind.port},", f"'{LOCAL}', {port},")
        return subprocess.run([sys.executable, "-I", "-c", code], stderr=subprocess.DEVNULL, timeout=60).returncode == 0

    (port,) = free_ports(1)
    with Server(tmp_path, "-b", LOOPBACK, "--status-bind", f"{LOCAL}:{port}", "app:handler") as server:
        server.ready()
        wait_until(lambda: healthy(port), "it answers")
        assert server.stop() == 0
    assert not healthy(port)
