"""Limiter and Visit: who is one client, who is exempt, and what each limit says, in several workers at once."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.config.networks import Networks
from preforksmtp.config.settings import SETTINGS
from preforksmtp.connection.limits import Limiter, Visit, client_octets, make_limiter
from preforksmtp.prefork import calls
from preforksmtp.prefork.clients import FAILURES, WINDOW, Clients
from preforksmtp.prefork.poison import REFUSED, Poison
from preforksmtp.prefork.scoreboard import CALL, Scoreboard
from preforksmtp.smtp import reply
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.session import Endpoint, Session
from tests.fakes import make_rules

LOG = logging.getLogger("preforksmtp")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%lo", "fe80::2", True),
        ("0.0.0.0", "::", False),
    ],
)
def test_a_client_is_a_v4_address_or_a_v6_network(one: str, other: str, same: bool) -> None:
    assert (client_octets(one, 32, 64) == client_octets(other, 32, 64)) is same


@pytest.mark.parametrize(
    ("one", "other", "v4", "v6", "same"),
    [
        ("192.0.2.1", "192.0.2.254", 24, 64, True),
        ("192.0.2.1", "192.0.3.1", 24, 64, False),
        ("192.0.2.127", "192.0.2.128", 25, 64, False),
        ("10.0.0.1", "127.0.0.1", 1, 64, True),
        ("2001:db8::1", "2001:db8::2", 32, 128, False),
        ("2001:db8:0:100::", "2001:db8:0:1ff::", 32, 56, True),
        ("2001:db8::", "2001:db8:1::", 32, 48, False),
    ],
)
def test_the_prefixes_are_settings(one: str, other: str, v4: int, v6: int, same: bool) -> None:
    assert (client_octets(one, v4, v6) == client_octets(other, v4, v6)) is same


def test_a_unix_socket_has_no_address() -> None:
    assert client_octets("unix", 32, 64) == b""


class Server:
    """Two workers' limiters over one table; a session lands in the worker that is told."""

    def __init__(self, **settings: Any) -> None:
        self.now = 6000.0
        self.config = SimpleNamespace(
            **{setting.name: setting.parse(None) for setting in SETTINGS if setting.name != "hostname"}
        )
        for name in ("trusted_clients", "xclient"):
            setattr(self.config, name, Networks(settings.pop(name, ())))
        vars(self.config).update(settings)
        self.clients = Clients(2, 4, clock=lambda: self.now)
        self.rules = make_rules(Hooks.of_function(print), max_messages=3)
        self.poison = Poison(lambda: self.now)
        self.row = Scoreboard(1, 1).slots[0].rows[0]
        self.limiters = [Limiter(self.config, self.rules, self.clients, slot, LOG, self.poison) for slot in (0, 1)]
        self._numbers = iter(range(1000))

    def come(self, host: str = "192.0.2.1", worker: int = 0) -> Visit:
        self.session = Session(f"s{next(self._numbers)}", Endpoint(host, 99), lambda: Endpoint("", 0), "", "mx.test")
        return self.limiters[worker].enter(self.session, self.row)

    def die(self) -> None:
        """The worker of this row, in the handler's hook for a body."""
        self.poison.record(self.row[CALL + calls.KEY])


def refusal(visit: Visit, what: str) -> Reply | None:
    try:
        if what == "fail":
            assert visit.attempt()
            visit.decided(right=False)
        else:
            getattr(visit, what)()
    except Reject as refused:
        return refused.reply
    return None


def test_nothing_is_made_where_nothing_is_limited() -> None:
    server = Server()
    assert make_limiter(server.config, server.rules, server.clients, 0, LOG) is None, "nobody can authenticate there"
    for name in ("max_connections", "max_connections_per_ip", "max_message_rate", "busy_reply", "stress_threshold"):
        vars(server.config)[name] = 1
        assert make_limiter(server.config, server.rules, server.clients, 0, LOG) is not None, name
        vars(server.config)[name] = 0
    server.config.trusted_clients = Networks(["192.0.2.1"])
    assert make_limiter(server.config, server.rules, server.clients, 0, LOG) is not None


def test_sessions_of_one_client_over_both_workers(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(max_connections_per_ip=2)
    first, second = server.come(worker=0), server.come(worker=1)
    assert first.refusal is second.refusal is None
    with caplog.at_level(logging.INFO):
        for worker in (0, 1):
            assert server.come(worker=worker).refusal == reply.TOO_MANY_SESSIONS
    assert [record.message for record in caplog.records] == [
        f"session s{n}: 192.0.2.1:99: max_connections_per_ip (2) reached" for n in (2, 3)
    ]
    assert server.come("192.0.2.2").refusal is None
    second.leave()
    second.leave()
    assert server.come(worker=0).refusal is None
    assert server.come(worker=1).refusal == reply.TOO_MANY_SESSIONS


def test_all_sessions_together() -> None:
    server = Server(max_connections=2)
    first = server.come("192.0.2.1", 0)
    server.come("192.0.2.2", 1)
    assert server.come("192.0.2.3", 0).refusal == reply.TOO_BUSY
    first.leave()
    assert server.come("192.0.2.3", 1).refusal is None


def test_busy_reply_keeps_the_last_thread_of_all() -> None:
    server = Server(busy_reply=True, threads=2)
    assert [server.come(f"192.0.2.{n}", n % 2).refusal for n in range(3)] == [None] * 3
    assert server.come("192.0.2.9", 1).refusal == reply.TOO_BUSY
    alone = Server(busy_reply=True, threads=1)
    alone.clients.tables[1].open(0)
    assert alone.come().refusal is None, "one thread in all: it serves"


def test_connections_per_minute_and_what_was_refused_does_not_count() -> None:
    server = Server(max_connection_rate=3)
    for _ in range(3):
        visit = server.come()
        assert visit.refusal is None
        visit.leave()
    assert {server.come(worker=1).refusal for _ in range(10)} == {reply.TOO_MANY_CONNECTIONS}
    server.now += 60 + 40  # two thirds of the minute are gone: one of three is left, and two may come
    assert [server.come(worker=1).refusal for _ in range(3)] == [None, None, reply.TOO_MANY_CONNECTIONS]


@pytest.mark.parametrize(
    ("setting", "what", "answer"),
    [
        ("max_message_rate", "message", reply.MESSAGE_RATE),
        ("max_recipient_rate", "recipient", reply.RECIPIENT_RATE),
        ("max_auth_failure_rate", "fail", reply.AUTH_FAILURE_RATE),
    ],
)
def test_rates_over_both_workers(setting: str, what: str, answer: Reply, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(**{setting: 4})
    one, two, other = server.come(worker=0), server.come(worker=1), server.come("192.0.2.2", 1)
    assert [refusal(visit, what) for visit in (one, two, one, two)] == [None] * 4
    with caplog.at_level(logging.INFO):
        assert [refusal(one, what), refusal(two, what), refusal(one, what)] == [answer] * 3
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [f"{setting} (4) reached"] * 2
    assert refusal(other, what) is None
    server.now += 120
    assert refusal(one, what) is None


class Login(Handler):
    def authenticate(self, username: str, password: str) -> bool:
        return False


def test_failed_auth_is_limited_by_default_and_costs_nobody_else_anything() -> None:
    server = Server()
    rules = make_rules(Hooks.of_class(Login))
    limiter = make_limiter(server.config, rules, server.clients, 0, LOG)
    assert limiter is not None
    session = Session("s", Endpoint("192.0.2.1", 99), lambda: Endpoint("", 0), "", "mx.test")
    visit = limiter.enter(session)
    assert server.clients.total() == 0, "a client that does not try is not counted"
    assert [refusal(visit, "fail") for _ in range(61)] == [None] * 60 + [reply.AUTH_FAILURE_RATE]
    assert refusal(visit, "look") == reply.AUTH_FAILURE_RATE
    session.peer = Endpoint("192.0.2.2", 99)
    visit.moved()
    assert refusal(visit, "look") is None, "XCLIENT: another client"
    visit.leave()
    assert server.clients.total() == 0
    server.config.max_auth_failure_rate = 0
    assert make_limiter(server.config, rules, server.clients, 0, LOG) is None


def test_authentication_that_succeeds_does_not_count() -> None:
    server = Server(max_auth_failure_rate=2)
    visit = server.come()
    for _ in range(10):
        assert visit.attempt()
        visit.decided(right=True)
        visit.decided(right=True)
    assert [refusal(visit, "fail") for _ in range(3)] == [None, None, reply.AUTH_FAILURE_RATE]
    assert server.clients.rate(visit._key, FAILURES) == 2


def test_attempts_count_before_they_are_tried_and_wait_for_those_under_way() -> None:
    """So parallel ones cannot overtake the count, and many who know their password need not fear it."""
    server = Server(max_auth_failure_rate=3)
    visits = [server.come(worker=number % 2) for number in range(6)]
    assert [visit.attempt() for visit in visits] == [True] * 3 + [False] * 3, "not refused: these may all be right"
    assert refusal(visits[4], "look") is None
    visits[0].decided(right=True)
    assert [visit.attempt() for visit in visits[3:]] == [True, False, False]
    for visit in visits[1:4]:
        visit.decided(right=False)
    assert [refusal(visit, "attempt") for visit in visits[4:]] == [reply.AUTH_FAILURE_RATE] * 2
    assert server.clients.rate(visits[0]._key, FAILURES) == 3, "no more than three were tried and failed"


def test_who_leaves_in_the_middle_has_failed() -> None:
    server = Server(max_auth_failure_rate=1)
    one, two = server.come(), server.come(worker=1)
    assert one.attempt() and not two.attempt()
    one.leave()
    assert refusal(two, "attempt") == reply.AUTH_FAILURE_RATE


def test_who_has_an_account_gets_no_guess_more_for_it() -> None:
    """A success that takes a minute takes back what it has counted, and nothing of the next minute."""
    server = Server(max_auth_failure_rate=20)
    honest = [server.come() for _ in range(10)]
    assert all(visit.attempt() for visit in honest)
    server.now += 60
    guessing = server.come(worker=1)
    for _ in range(5):
        assert refusal(guessing, "fail") is None
    for visit in honest:
        visit.decided(right=True)
    assert server.clients.rate(guessing._key, FAILURES) == 5


def test_the_exempt_are_counted_and_not_limited() -> None:
    server = Server(
        trusted_clients=["198.51.100.0/24", "unix"], max_connections_per_ip=1, max_connections=2, max_message_rate=1
    )
    trusted = [server.come("198.51.100.7", n % 2) for n in range(5)]
    assert {visit.refusal for visit in [*trusted, server.come("unix")]} == {None}
    assert {refusal(trusted[0], "message") for _ in range(5)} == {None}
    trusted[0].decided(right=True)
    assert server.limiters[0].rules(server.session).max_messages == 0
    assert server.clients.total() == 6
    assert server.come("192.0.2.1").refusal == reply.TOO_BUSY


def test_clients_of_a_unix_socket_are_no_client() -> None:
    server = Server(max_connections_per_ip=1, max_connections=3)
    assert [server.come("unix").refusal for _ in range(4)] == [None, None, None, reply.TOO_BUSY]


def test_a_proxy_is_exempt_and_its_clients_are_not() -> None:
    server = Server(xclient=["198.51.100.7"], trusted_clients=["198.51.100.0/24"], max_connections_per_ip=1)
    visits = [server.come("198.51.100.7") for _ in range(3)]
    assert {visit.refusal for visit in visits} == {None}
    assert server.limiters[0].rules(server.session).max_messages == 3
    for visit, host, answer in zip(
        visits, ("192.0.2.1", "192.0.2.1", "192.0.2.2"), (None, reply.TOO_MANY_SESSIONS, None), strict=True
    ):
        visit._session.peer = Endpoint(host, 1)
        assert refusal(visit, "moved") == answer
    for visit in visits:
        visit.leave()
    assert server.clients.total() == 0


def test_stress_is_of_all_threads() -> None:
    server = Server(stress_threshold=0.75, threads=4)
    visits = [server.come(f"192.0.2.{n}", n % 2) for n in range(5)]
    stressed = server.limiters[0].rules(server.session).stressed
    assert stressed is not None
    assert not stressed()
    visits.append(server.come("192.0.2.6", 0))
    assert stressed()
    visits.pop().leave()
    assert not stressed()
    unlimited = Server(max_connections=1)
    unlimited.come()
    assert unlimited.limiters[0].rules(unlimited.session).stressed is None, "nobody looks"
    trusting = Server(stress_threshold=0.75, trusted_clients=["192.0.2.1"])
    trusting.come("192.0.2.1")
    assert trusting.limiters[0].rules(trusting.session).stressed is None


def test_who_finds_no_room_in_the_table_is_let_in_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(max_connections_per_ip=1, max_message_rate=1)
    table = server.clients.tables[0]
    key = server.limiters[0].key("192.0.2.1")
    for n in range(1, WINDOW + 1):
        table.enter((key & table._mask) + n * (table._mask + 1))
    visits = [server.come() for _ in range(3)]
    assert {visit.refusal for visit in visits} == {None}
    assert {refusal(visits[0], "message") for _ in range(3)} == {None}
    assert [record.message for record in caplog.records] == [
        "the table of clients is full: some are not limited (said once)"
    ]
    for visit in visits:
        visit.leave()
    assert server.clients.total() == WINDOW


# --- poison


def body(visit: Visit, sender: str = "a@x.test", *recipients: str) -> Reply | None:
    try:
        visit.body(sender, recipients or ["b@x.test", "c@x.test"])
    except Reject as refused:
        return refused.reply
    return None


def test_a_message_that_killed_workers_is_refused_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(poison_limit=2)
    for _ in range(2):
        assert body(server.come()) is None
        server.die()
    with caplog.at_level(logging.INFO):
        assert body(server.come(worker=1)) == reply.POISON
    assert [record.message for record in caplog.records] == ["session s2: 192.0.2.1:99: poison_limit (2) reached"]
    assert body(server.come(), "a@x.test", "c@x.test", "b@x.test") == reply.POISON, "in whatever order"
    assert body(server.come(), "a@x.test", "b@x.test") is None
    assert body(server.come(), "") is None
    assert body(server.come("192.0.2.2")) is None
    server.now += REFUSED
    assert body(server.come()) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "unix", "fe80::1%lo"])
def test_trusted_clients_and_those_without_an_address_are_refused_poison_too(host: str) -> None:
    server = Server(poison_limit=1, trusted_clients=["192.0.2.1"])
    assert body(server.come(host)) is None
    server.die()
    assert body(server.come(host)) == reply.POISON


def test_the_key_does_not_outlive_its_session() -> None:
    server = Server(poison_limit=1)
    visit = server.come()
    body(visit)
    assert server.row[CALL + calls.KEY]
    visit.leave()
    assert not server.row[CALL + calls.KEY]
    off = Server(max_message_rate=1)
    visit = off.come()
    assert body(visit) is None
    assert not off.row[CALL + calls.KEY]
