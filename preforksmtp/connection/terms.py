"""Terms: what one listener's sessions are served under, made once in each worker from the settings of its bind."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preforksmtp.config.networks import Networks
from preforksmtp.connection.limits import Limiter
from preforksmtp.net.bind import Bind
from preforksmtp.net.listener import ACCEPT_TIMEOUT
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.rules import Room, Rules
from preforksmtp.smtp.session import Endpoint


@dataclass(frozen=True)
class Terms:
    """What one listener's sessions are served under."""

    bind: str
    rules: Rules
    context: ssl.SSLContext | None
    implicit_tls: bool
    session_timeout: float
    proxies: Networks  # must send a PROXY header
    xclient: Networks
    xforward: Networks
    local: Endpoint | None  # of the listener, where it is one address
    reverse_dns_timeout: float  # 0: no look-up
    limiter: Limiter | None
    inherited: float  # SO_RCVTIMEO of a connection just accepted; 0: none


def make_terms(
    config: Any,
    bind: Bind,
    address: Any,
    context: ssl.SSLContext | None,
    hooks: Hooks,
    limiter: Callable[[Any, Rules], Limiter | None] | None = None,
    salt_key: bytes | None = None,
    folder: str = "",
    room: Room | None = None,
) -> Terms:
    """The terms of one listener. `config` is the settings as the bind has them, `address` its getsockname(), `folder`
    what relative paths begin from. `salt_key`: see salts.py; None: one for the time being. `room`: who watches the free
    space, if somebody does."""
    rules = Rules.of(
        config,
        hooks=hooks,
        lmtp=bind.lmtp,
        offer_tls=context is not None and not bind.implicit_tls,
        accept_bare_newlines=config.bare_newlines == "accept",
        accept_pipelined_body=config.pipelined_body == "accept",
        salt_key=salt_key or os.urandom(32),
        spool_dir=None if config.spool_dir is None else os.path.join(folder, config.spool_dir),
        room=room or Room(),
        stressed=None,
    )
    local = endpoint(address)
    return Terms(
        bind=bind.text,
        rules=rules,
        context=context,
        implicit_tls=bind.implicit_tls,
        session_timeout=config.session_timeout,
        proxies=config.proxy_protocol,
        xclient=config.xclient,
        xforward=config.xforward,
        local=None if local.host in ("0.0.0.0", "::") else local,
        reverse_dns_timeout=config.reverse_dns_timeout if config.reverse_dns else 0.0,
        limiter=limiter(config, rules) if limiter is not None else None,
        # Linux hands it down to TCP connections, and to no other ones.
        inherited=ACCEPT_TIMEOUT if sys.platform == "linux" and isinstance(address, tuple) else 0.0,
    )


def endpoint(address: Any) -> Endpoint:
    """Of what the socket module calls an address. An IPv4 client of an IPv6 socket is an IPv4 client."""
    if not isinstance(address, tuple):
        return Endpoint("unix", 0)
    host: str = address[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Endpoint(host, address[1])
