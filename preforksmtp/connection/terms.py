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
from preforksmtp.smtp.handler import Hooks
from preforksmtp.smtp.rules import Rules
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
) -> Terms:
    """The terms of one listener. `config` is the settings as the bind has them, `address` its getsockname(), `folder`
    what relative paths begin from. `salt_key`: see salts.py; None: one for the time being."""
    rules = Rules(
        hooks=hooks,
        hostname=config.hostname,
        lmtp=bind.lmtp,
        address_syntax=config.address_syntax,
        max_message_size=config.max_message_size,
        max_recipients=config.max_recipients,
        max_recipient_domains=config.max_recipient_domains,
        max_errors=config.max_errors,
        max_refused_recipients=config.max_refused_recipients,
        max_messages=config.max_messages,
        max_idle_commands=config.max_idle_commands,
        error_delay=config.error_delay,
        greeting_delay=config.greeting_delay,
        min_data_rate=config.min_data_rate,
        min_data_rate_grace=config.min_data_rate_grace,
        stress_command_timeout=config.stress_command_timeout,
        stress_data_timeout=config.stress_data_timeout,
        command_timeout=config.command_timeout,
        data_timeout=config.data_timeout,
        handshake_timeout=config.handshake_timeout,
        require_tls=config.require_tls,
        require_auth=config.require_auth,
        offer_tls=context is not None and not bind.implicit_tls,
        allow_insecure_auth=config.allow_insecure_auth,
        max_auth_failures=config.max_auth_failures,
        auth_failure_delay=config.auth_failure_delay,
        auth_mechanisms=config.auth_mechanisms,
        channel_binding=config.channel_binding,
        salt_key=salt_key or os.urandom(32),
        max_line_length=config.max_line_length,
        accept_bare_newlines=config.bare_newlines == "accept",
        accept_pipelined_body=config.pipelined_body == "accept",
        spool_threshold=config.spool_threshold,
        spool_dir=None if config.spool_dir is None else os.path.join(folder, config.spool_dir),
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
