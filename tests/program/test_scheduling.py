"""--scheduling: the policy of every thread of a worker, and that nobody else's is changed."""

from __future__ import annotations

import os
import sys

import pytest

from tests.program.conftest import LOOPBACK, Serve, Talk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is Linux'")


@pytest.mark.parametrize(("arguments", "policy"), [((), "SCHED_BATCH"), (("--scheduling", "normal"), "SCHED_OTHER")])
def test_the_policy_of_workers(serve: Serve, arguments: tuple[str, ...], policy: str) -> None:
    server = serve("-b", LOOPBACK, *arguments).ready()
    worker = server.worker()
    with Talk(server.port()) as talk:
        assert talk.ask("NOOP").startswith("250")
        threads = [int(name) for name in os.listdir(f"/proc/{worker}/task")]
        found = [os.sched_getscheduler(thread) for thread in threads]
        assert found.count(getattr(os, policy)) >= 3  # the main thread and its session threads
    assert os.sched_getscheduler(worker) == getattr(os, policy)
    assert os.sched_getaffinity(worker) == os.sched_getaffinity(0)
    assert os.sched_getscheduler(server.pid) == os.SCHED_OTHER


def test_another_policy_is_left_alone(serve: Serve) -> None:
    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    server = serve("-b", LOOPBACK, preexec_fn=idle).ready()
    assert os.sched_getscheduler(server.worker()) == os.SCHED_IDLE
