"""process/privileges.py: who is found, and that there is no way back. The tests that need root are skipped without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.process.privileges import Identity, PrivilegesError, find
from tests.processes import ROOT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")

# In a process of its own: there is no way back. It prints what /proc/self/status and the kernel say afterwards.
DROP = """
import json, os, sys
from preforksmtp.process import privileges
identity = privileges.Identity(*json.loads(sys.argv[1]))
privileges.drop(identity, no_new_privileges=json.loads(sys.argv[2]))
refused = []
for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: open("/etc/shadow")):
    try:
        call()
    except PermissionError:
        refused.append(True)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "refused": len(refused),
                  "capabilities": int(status["CapEff"], 16), "no_new": int(status["NoNewPrivs"])}))
"""


def drop(identity: list[Any], no_new_privileges: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", DROP, json.dumps(identity), json.dumps(no_new_privileges)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_nothing_asked_nothing_changed() -> None:
    assert find(None, None) is None


@pytest.mark.parametrize(
    ("user", "group", "line"),
    [
        ("no-such-user-here", None, "user: there is no user 'no-such-user-here'"),
        (None, "no-such-group-here", "group: there is no group 'no-such-group-here'"),
    ],
)
def test_unknown_names(user: str | None, group: str | None, line: str) -> None:
    with pytest.raises(PrivilegesError, match=line):
        find(user, group)


@needs_root
def test_names_and_numbers() -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    by_name, by_number = find("nobody", None), find(str(nobody.pw_uid), None)
    assert by_name == by_number
    assert by_name is not None
    assert (by_name.uid, by_name.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert find("54321", None) == Identity(54321, 54321, (54321,))
    assert find("54321", "12345") == Identity(54321, 12345, (12345,))


def test_only_root_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(PrivilegesError, match="user: only root can change it"):
        find("54321", None)


@needs_root
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_dropped_for_good(no_new_privileges: bool) -> None:
    facts = drop([65534, 65534, [65534, 12345]], no_new_privileges)
    assert facts == {
        "uid": [65534] * 3,
        "gid": [65534] * 3,
        "groups": [12345, 65534],  # and none of root's
        "refused": 4,
        "capabilities": 0,
        "no_new": int(no_new_privileges),
    }


def test_may_enter(tmp_path: Path) -> None:
    stranger = Identity(54321, 54321, (54321,))
    assert stranger.may_enter("/usr")
    tmp_path.chmod(0o700)
    assert not stranger.may_enter(str(tmp_path))
    assert Identity(os.getuid(), os.getgid(), ())._may_search(str(tmp_path))
