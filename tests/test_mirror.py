"""tests/ mirrors the package: `a/b.py` has `tests/a/test_b.py`. Where it has not, the table says where its tests are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "preforksmtp"

# Modules without a file of their name, and where they are tested: through who uses them, or on a running program. A
# module that gets a file of its own must leave the table.
ELSEWHERE: dict[str, str] = {
    "__main__": "program/test_start.py",
    "adapters/aio/factory": "adapters/test_against_aiosmtpd.py",
    "adapters/aio/hooks": "adapters/test_against_aiosmtpd.py",
    "adapters/aio/objects": "adapters/test_against_aiosmtpd.py",
    "cli": "program/test_start.py",
    "config/arguments": "config/test_load.py",
    "config/configfile": "config/test_load.py",
    "config/cross": "config/test_load.py",
    "config/destinations": "observe/test_statsd.py",
    "config/model": "config/test_load.py",
    "config/setting": "config/test_settings.py",
    "config/values": "config/test_settings.py",
    "connection/journal": "connection/test_service.py",
    "control/client": "program/test_control.py",
    "control/orders": "program/test_control.py",
    "control/tables": "program/test_control.py",
    "ctl": "program/test_control.py",
    "handlers/forward/encoding": "handlers/forward/test_relay.py",
    "handlers/forward/nexthop": "handlers/forward/test_relay.py",
    "logs/opened": "program/test_logs.py",
    "logs/transcript": "connection/test_transcribed.py",
    "mime/content": "mime/test_entity.py",
    "mime/folding": "mime/test_section.py",
    "mime/source": "mime/test_entity.py",
    "net/accept_queue": "program/test_observation.py",
    "net/client_hello": "net/test_handshake.py",
    "net/closing": "net/test_wire.py",
    "net/drain": "net/test_wire_leaving.py",
    "net/handover": "net/test_lanes.py",
    "net/pace": "net/test_proxy.py",
    "net/rebind": "net/test_lanes.py",
    "net/stream": "net/test_wire.py",
    "net/unixsocket": "net/test_listener.py",
    "observe/history": "observe/test_page.py",
    "observe/html": "observe/test_page.py",
    "observe/plot": "observe/test_page.py",
    "observe/process": "program/test_observation.py",
    "observe/style": "observe/test_page.py",
    "prefork/calls": "prefork/test_scoreboard.py",
    "prefork/hooks": "program/test_hooks.py",
    "prefork/leaving": "program/test_forked.py",
    "prefork/master/audit": "program/test_hostile.py",
    "prefork/master/leavers": "program/test_leavers.py",
    "prefork/master/workforce": "prefork/master/test_master.py",
    "prefork/pages": "prefork/master/test_query.py",
    "prefork/questions": "prefork/master/test_query.py",
    "prefork/reasons": "prefork/master/test_recycling.py",
    "prefork/worker/answer": "prefork/master/test_query.py",
    "prefork/worker/contract": "prefork/master/test_master.py",
    "prefork/worker/lifetime": "prefork/master/test_recycling.py",
    "prefork/worker/post": "prefork/worker/test_pool.py",
    "prefork/worker/scheduling": "program/test_scheduling.py",
    "prefork/worker/worker": "prefork/master/test_master.py",
    "process/daemon": "program/test_daemon.py",
    "process/title": "program/test_start.py",
    "pytest_plugin": "test_testing.py",
    "reference": "test_generated.py",
    "scram": "program/test_auth.py",
    "server/audition": "program/test_reload.py",
    "server/composition": "program/test_reload.py",
    "server/observation": "program/test_observation.py",
    "server/preload": "program/test_preload.py",
    "server/provisions": "program/test_provisions.py",
    "server/reconfigure": "program/test_reload.py",
    "server/run": "program/test_start.py",
    "smtp/journal": "fakes.py",  # a Protocol, as is the next but one
    "smtp/syntax": "smtp/test_lenient.py",
    "smtp/wire": "fakes.py",
}


def modules() -> list[str]:
    files = (file.relative_to(PACKAGE).with_suffix("") for file in PACKAGE.rglob("*.py") if file.stem != "__init__")
    return sorted(map(str, files))


def own_file(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}.py"


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_tests(module: str) -> None:
    if own_file(module).exists():
        assert module not in ELSEWHERE, "it has a file of its own: take it out of the table"
    else:
        assert (ROOT / "tests" / ELSEWHERE[module]).exists()


def test_the_table_names_modules_that_are_there() -> None:
    assert set(ELSEWHERE) <= set(modules())
