"""smtp/session.py: the facts of a client."""

from __future__ import annotations

import pytest

from preforksmtp.smtp.session import NOTHING, Endpoint, Session


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("192.0.2.1", 25), "192.0.2.1:25"),
        (Endpoint("2001:db8::1", 25), "[2001:db8::1]:25"),
        (Endpoint("unix", 0), "unix"),
        (Endpoint("2001:db8::1", 0), "2001:db8::1"),
    ],
)
def test_endpoint(endpoint, text):
    assert str(endpoint) == text


def test_facts_at_the_start():
    asked = []

    def local():
        asked.append(1)
        return Endpoint("192.0.2.2", 25)

    session = Session("s1", Endpoint("192.0.2.1", 4000), local, "smtp://:25", "mx.test")
    assert (session.helo, session.esmtp, session.tls, session.user, session.reverse_dns) == ("", False, None, None, "")
    assert (session.proxy, session.lmtp, session.xforward) == (None, False, NOTHING)
    assert not asked, "getsockname() only where somebody asks"
    assert session.local == Endpoint("192.0.2.2", 25)
    session.move(Endpoint("198.51.100.1", 26))
    assert session.local == Endpoint("198.51.100.1", 26)


def test_state_is_the_handlers_own():
    one, two = (Session("s", Endpoint("", 0), lambda: Endpoint("", 0), "", "") for _ in range(2))
    one.state.seen = 1
    assert one.state.seen == 1
    assert not hasattr(two.state, "seen")
    with pytest.raises(AttributeError):
        one.sene = 1  # a misspelt attribute is an error
