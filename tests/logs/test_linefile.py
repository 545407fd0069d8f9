"""Lines that cannot be written: none is lost silently, and none spoils the next one."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from preforksmtp.logs import linefile
from preforksmtp.logs.linefile import EVERY, RESERVE, LogFile

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture
def file(tmp_path):
    file = LogFile("access_logfile", str(tmp_path / "access.log"))
    yield file
    file.close()


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(linefile.time, "monotonic", lambda: clock.now)
    return clock


def lose(file, times=1):
    for _ in range(times):
        with pytest.raises(OSError):
            file.write("x\n")


@FULL
def test_a_full_disk_is_told_of_once_a_minute(clock, caplog):
    file = LogFile("access_logfile", "/dev/full")
    counted = []
    file.on_loss = lambda: counted.append(1)
    lose(file, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "access_logfile: cannot be written: No space left on device; lines lost: 1"
    ]
    clock.now += EVERY
    lose(file)
    assert caplog.records[-1].getMessage().endswith("lines lost: 6")
    assert len(counted) == 6
    file.close()


def test_the_loss_is_summed_up_when_it_is_over(file, monkeypatch, caplog, tmp_path):
    def fail(fd, octets):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(linefile.os, "write", fail)
        lose(file, 3)
    file.write("good\n")
    file.write("better\n")
    assert caplog.records[-1].getMessage() == (
        "access_logfile: 3 lines were lost while it could not be written; it can be again"
    )
    assert len(caplog.records) == 2
    assert (tmp_path / "access.log").read_text() == "good\nbetter\n"


def test_a_torn_line_does_not_spoil_the_next(file, monkeypatch, tmp_path):
    write = os.write
    with monkeypatch.context() as short:
        short.setattr(linefile.os, "write", lambda fd, octets: write(fd, octets[:4]))
        with pytest.raises(OSError, match="in part"):
            file.write("half a line\n")
    file.write("good\n")
    assert (tmp_path / "access.log").read_text() == "half\ngood\n"


@pytest.mark.parametrize("free, written", [(RESERVE, False), (RESERVE + 4096, True)])
def test_the_last_of_a_disk_is_left_alone(file, monkeypatch, tmp_path, free, written):
    disk = SimpleNamespace(f_bavail=free, f_bfree=free, f_frsize=1, f_blocks=100)
    monkeypatch.setattr(linefile.os, "fstatvfs", lambda fd: disk)
    if written:
        file.write("line\n")
    else:
        lose(file)
    assert (tmp_path / "access.log").read_text() == ("line\n" if written else "")


def test_the_disk_is_looked_at_now_and_then(file, monkeypatch):
    looks = []
    disk = SimpleNamespace(f_bavail=1 << 30, f_bfree=1 << 30, f_frsize=1, f_blocks=9)
    monkeypatch.setattr(linefile.os, "fstatvfs", lambda fd: looks.append(fd) or disk)
    for _ in range(100):
        file.write("x" * 99 + "\n")
    assert len(looks) == 1
    for _ in range(3000):
        file.write("x" * 99 + "\n")
    assert len(looks) == 2
