"""net/listener.py: real sockets on 127.0.0.1, ::1 and in temporary folders."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preforksmtp.net import listener
from preforksmtp.net.listener import Listener, ListenError, open_listeners, parse_bind

Open = Callable[..., list[Listener]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """open_listeners() on texts; everything is closed at the end of the test."""
    listeners: list[Listener] = []

    def open_texts(*texts: str, backlog: int = 16, **options: float | bool) -> list[Listener]:
        new = open_listeners([parse_bind(text) for text in texts], backlog=backlog, environ={}, **options)  # type: ignore[arg-type]
        listeners.extend(new)
        return new

    yield open_texts
    for each in listeners:
        each.close()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which then take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(listener, "sleep", pauses.append)
    return pauses


def timeout(sock: socket.socket, option: int) -> float:
    seconds, micro = struct.unpack("ll", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("ll")))
    return float(seconds + micro / 1e6)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


# --- TCP


def test_tcp_listener_is_ready_to_be_shared(opened: Open) -> None:
    [one] = opened("127.0.0.1:0", send_timeout=7.5)
    sock = one.socket
    assert one.address == f"127.0.0.1:{sock.getsockname()[1]}"
    assert sock.getblocking() and sock.gettimeout() is None
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert timeout(sock, socket.SO_RCVTIMEO) == pytest.approx(0.5, abs=0.02)
    assert timeout(sock, socket.SO_SNDTIMEO) == pytest.approx(7.5, abs=0.02)


def test_accept_returns_without_a_client(opened: Open) -> None:
    [one] = opened("127.0.0.1:0")
    with pytest.raises(BlockingIOError):
        one.socket.accept()


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="inheritance by accept() is Linux's")
def test_accepted_sockets_inherit(opened: Open) -> None:
    [one] = opened("127.0.0.1:0", send_timeout=3)
    with socket.create_connection(one.socket.getsockname()):
        accepted, _ = one.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert timeout(accepted, socket.SO_SNDTIMEO) == pytest.approx(3, abs=0.02)


@needs_ipv6
def test_ipv6_address(opened: Open) -> None:
    [one] = opened("[::1]:0")
    assert one.address == f"[::1]:{one.socket.getsockname()[1]}"
    assert one.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@needs_ipv6
def test_all_addresses_are_one_socket_each_for_v4_and_v6(opened: Open) -> None:
    v4, v6 = opened(":0")
    assert (v4.socket.family, v6.socket.family) == (socket.AF_INET, socket.AF_INET6)
    assert v4.socket.getsockname()[1] == v6.socket.getsockname()[1]
    assert v4.bind is v6.bind


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str]) -> None:
    found = [(family, socket.SOCK_STREAM, 6, "", (host, 0)) for family, host in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_a_name_is_bound_on_all_its_addresses(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")]
    resolve_to(monkeypatch, *two, *two)
    assert [each.socket.getsockname()[0] for each in opened("localhost:0")] == ["127.0.0.1", "127.0.0.2"]


def test_a_missing_ipv6_is_passed_over_for_a_name(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "127.0.0.1"))
    [one] = opened("localhost:0")
    assert one.socket.family == socket.AF_INET


def test_an_address_of_another_machine(opened: Open) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on 192\.0\.2\.1:2525: no network interface"):
        opened("192.0.2.1:2525")


def test_a_name_that_does_not_resolve(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ListenError) as caught:
        opened("nowhere.invalid:25")
    assert str(caught.value) == (
        "cannot listen on nowhere.invalid:25: cannot resolve 'nowhere.invalid': Name or service not known"
    )


def test_address_in_use_is_tried_five_times(opened: Open, no_waiting: list[float]) -> None:
    [holder] = opened("127.0.0.1:0")
    with pytest.raises(ListenError) as caught:
        opened(holder.address)
    assert no_waiting == [1.0] * 4
    assert str(caught.value) == (
        f"cannot listen on {holder.address}: another program uses it (tried 5 times); "
        "stop that or choose another port"
    )


def test_address_that_becomes_free_is_taken(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    [holder] = opened("127.0.0.1:0")
    address = holder.address
    monkeypatch.setattr(listener, "sleep", lambda _: holder.close())
    [one] = opened(address)
    assert one.address == address


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (
            25,
            "port 25 needs a privilege: start as root with --user, "
            "grant CAP_NET_BIND_SERVICE, or let systemd pass the socket",
        ),
        (2525, "permission denied by a policy of this machine (SELinux, AppArmor, firewall?)"),
    ],
)
def test_permission_denied(opened: Open, monkeypatch: pytest.MonkeyPatch, port: int, reason: str) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listener, "_listen_retrying", refuse)
    with pytest.raises(ListenError) as caught:
        opened(f":{port}")
    assert str(caught.value) == f"cannot listen on 0.0.0.0:{port}: {reason} (bind :{port})"


def test_a_failure_closes_what_was_opened(opened: Open, tmp_path: Path, no_waiting: list[float]) -> None:
    [holder] = opened("127.0.0.1:0")
    with pytest.raises(ListenError):
        opened(f"unix:{tmp_path}/x", holder.address)
    assert not os.path.exists(tmp_path / "x")


def test_backlog_above_the_kernels_limit_is_noted(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    opened("127.0.0.1:0", backlog=2**31 - 1)
    assert "raise net.core.somaxconn" in caplog.text
    caplog.clear()
    opened("127.0.0.1:0", backlog=1)
    assert not caplog.records


# --- unix


def test_unix_socket_lives_as_long_as_its_listener(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    [one] = opened(f"lmtp://unix:{path}")
    assert one.address == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        one.socket.accept()[0].close()
    one.close()
    assert not path.exists()
    one.close()  # harmless


def test_relative_path_survives_chdir(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [one] = opened("unix:x.sock")
    monkeypatch.chdir("/")
    one.close()
    assert not (tmp_path / "x.sock").exists()


def test_unix_socket_mode(opened: Open, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        opened(f"unix:{tmp_path}/umask", f"unix:{tmp_path}/mode?mode=666")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "umask").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "mode").stat().st_mode) == 0o666


def test_a_stale_socket_is_replaced(opened: Open, tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    [one] = opened(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert one.address == f"unix:{path}"


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_live_socket_is_respected(opened: Open, tmp_path: Path, kind: socket.SocketKind) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, kind) as alive:
        alive.bind(path)
        if kind == socket.SOCK_STREAM:
            alive.listen()
        with pytest.raises(ListenError) as caught:
            opened(f"unix:{path}")
        assert str(caught.value) == (
            f"cannot listen on unix:{path}: another program listens there (tried 5 times); "
            "stop it or choose another path"
        )
        assert os.path.exists(path)


@pytest.mark.usefixtures("no_waiting")
def test_a_live_socket_with_a_full_queue_is_respected(opened: Open, tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as first:
        alive.bind(path)
        alive.listen(0)
        first.connect(path)
        with pytest.raises(ListenError, match="another program listens there"):
            opened(f"unix:{path}")


@pytest.mark.parametrize("name", ["x.sock", f"@preforksmtp-test-free-{os.getpid()}"], ids=["path", "abstract"])
def test_a_unix_socket_that_becomes_free_is_taken(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The workers of a killed master let go of it when they have drained."""
    monkeypatch.chdir(tmp_path)
    holder = socket.socket(socket.AF_UNIX)
    holder.bind(name.replace("@", "\0"))
    holder.listen()
    monkeypatch.setattr(listener, "sleep", lambda _: holder.close())
    [one] = opened(f"unix:{name}")
    assert one.address.endswith(name)


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
def test_what_is_no_socket_is_never_removed(opened: Open, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError) as caught:
        opened(f"unix:{path}")
    assert str(caught.value) == f"cannot listen on unix:{path}: the file is not a socket; choose another path"
    assert os.path.lexists(path)


def test_close_leaves_the_socket_of_a_successor(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    [old] = opened(f"unix:{path}")
    path.unlink()
    [new] = opened(f"unix:{path}")
    old.close()
    assert path.exists()
    new.close()
    assert not path.exists()


def test_close_in_a_forked_worker_leaves_the_file(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    [one] = opened(f"unix:{path}")
    pid = os.fork()
    if pid == 0:
        one.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.exists()


def test_missing_folder(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "no" / "x"
    with pytest.raises(ListenError) as caught:
        opened(f"unix:{path}")
    assert str(caught.value) == f"cannot listen on unix:{path}: the folder {path.parent} does not exist"


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="abstract sockets are Linux's")
def test_abstract_socket(opened: Open) -> None:
    name = f"preforksmtp-test-{os.getpid()}"
    [one] = opened(f"unix:@{name}")
    assert one.address == f"unix:@{name}"
    with pytest.raises(ListenError, match="another program listens there"):
        opened(f"unix:@{name}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")


# --- fd://


def test_fd_is_taken_as_it_is(opened: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        server.set_inheritable(True)
        fd = os.dup(server.fileno())
        [one] = opened(f"smtps://fd://{fd}")
        assert one.bind.implicit_tls
        assert one.address == f"127.0.0.1:{server.getsockname()[1]}"
        assert one.socket.fileno() == fd
        assert os.get_blocking(fd) and not os.get_inheritable(fd)
        assert timeout(one.socket, socket.SO_RCVTIMEO) == pytest.approx(0.5, abs=0.02)


def test_the_file_of_an_inherited_unix_socket_stays(opened: Open, tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        [one] = opened(f"fd://{os.dup(server.fileno())}")
        one.close()
        assert os.path.exists(path)


def test_fd_that_cannot_be_served(opened: Open) -> None:
    read, write = os.pipe()
    with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for fd, reason in (
            (read, "it is not a socket"),
            (idle.fileno(), "the socket does not listen (systemd: use Accept=no)"),
            (datagram.fileno(), "it is not a stream socket (systemd: use ListenStream=)"),
        ):
            with pytest.raises(ListenError) as caught:
                opened(f"fd://{fd}")
            assert str(caught.value) == f"cannot listen on file descriptor {fd}: {reason}"
            os.fstat(fd)  # still open: not ours to close
    os.close(read)
    os.close(write)
    with pytest.raises(ListenError, match="it is not open"):
        opened(f"fd://{read}")


def test_fd_given_twice(opened: Open) -> None:
    with pytest.raises(ListenError, match="file descriptor 99 is given twice"):
        opened("fd://99", "smtps://fd://99")
