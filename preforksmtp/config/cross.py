"""What must hold between the settings of one configuration.

Only values are compared, at every load; what a start would stumble over on this machine is looked at by
server/check.py. Each error is one line that names the setting.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter

from preforksmtp.config.destinations import split_address
from preforksmtp.config.model import Config, ConfigError
from preforksmtp.logs.access import compile_format
from preforksmtp.net.bind import Bind, parse_bind
from preforksmtp.smtp.sasl import MECHANISMS


def cross_check(config: Config) -> list[str]:
    """Errors between settings, for the server as a whole and as each of its binds has them."""
    errors = _check_access_logformat(config) + _check_daemon(config) + _check_reload(config)
    errors += _check_observation(config)
    binds = []
    for text in config.bind:
        try:
            bind = parse_bind(text)
            view = config.for_bind(bind)
        except ValueError as error:
            errors.append(f"{error} ({config.origin('bind')})")
        except ConfigError as error:
            errors += error.errors
        else:
            binds.append(bind)
            found = _check_tls(view) + _check_mechanisms(view)
            # A bind without options has what all have: the line is the same for each, and said once.
            errors += [f"bind {text!r}: {line}" for line in found] if bind.options else found
            errors += _check_bind(bind, view)
    return list(dict.fromkeys(errors)) + _check_twice(config, binds)


def _check_tls(config: Config) -> list[str]:
    """The TLS settings of a listener among themselves."""
    errors = []
    if config.certfile is None:
        for name in ("keyfile", "keyfile_password_file", "ca_certs"):
            if getattr(config, name) is not None:
                errors.append(f"{name}: needs certfile as well ({config.origin(name)})")
        if config.sni:
            errors.append(f"sni: needs certfile as well, for all other names ({config.origin('sni')})")
        if config.require_tls:
            errors.append(
                f"require_tls: needs certfile, or no client can start TLS ({config.origin('require_tls')})"
            )
    if config.cert_reqs != "none" and config.certfile is None:
        errors.append(f"cert_reqs: needs certfile as well ({config.origin('cert_reqs')})")
    elif config.cert_reqs != "none" and config.ca_certs is None:
        errors.append(
            f"cert_reqs: {config.cert_reqs} needs ca_certs to check clients' certificates against "
            f"({config.origin('cert_reqs')})"
        )
    return errors


def _check_mechanisms(config: Config) -> list[str]:
    """A misspelt name would silently offer less."""
    known, errors = list(MECHANISMS), []
    for name in config.auth_mechanisms:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            errors.append(f"auth_mechanisms: {name} is unknown; {hint} ({config.origin('auth_mechanisms')})")
    return errors


def _check_bind(bind: Bind, view: Config) -> list[str]:
    """What the scheme of a bind needs."""
    if view.certfile is not None:
        return []
    if bind.implicit_tls:
        return [f"bind {bind.text!r}: {bind.scheme} is TLS from the first byte: set certfile"]
    if bind.submission and view.require_auth and not view.allow_insecure_auth:
        return [
            f"bind {bind.text!r}: submission takes AUTH over TLS only: set certfile (or allow_insecure_auth)"
        ]
    return []


def _check_twice(config: Config, binds: list[Bind]) -> list[str]:
    # Port 0 is a fresh port each time.
    places = Counter((bind.host, bind.port, bind.path, bind.fd) for bind in binds if bind.port != 0)
    twice = {place for place, count in places.items() if count > 1}
    texts = [bind.text for bind in binds if (bind.host, bind.port, bind.path, bind.fd) in twice]
    return [f"bind: {' and '.join(texts)} are the same address ({config.origin('bind')})"] if texts else []


def _check_daemon(config: Config) -> list[str]:
    if not config.daemon:
        return []
    files = ("transcript",) if config.log_syslog else ("error_logfile", "access_logfile", "transcript")
    on_terminal = [name for name in files if getattr(config, name) == "-"]
    return [f"{name}: must be a file, for a daemon has no terminal ({config.origin('daemon')})" for name in on_terminal]


def _check_reload(config: Config) -> list[str]:
    if config.preload and config.reload:
        where = f"{config.origin('reload')}; preload: {config.origin('preload')}"
        return [f"reload: does not go with preload, which loads the application only once; choose one ({where})"]
    return []


def _check_observation(config: Config) -> list[str]:
    errors = []
    places = []
    for name in ("status_bind", "control_socket"):
        text = getattr(config, name)
        if text is None:
            continue
        try:
            bind = parse_bind(text if name == "status_bind" else f"unix:{text}")
        except ValueError as error:
            errors.append(f"{name}: {str(error).removeprefix('bind ')} ({config.origin(name)})")
            continue
        if bind.fd is not None or bind.text.partition("?")[0].count("://") or set(bind.options) - {"mode"}:
            wanted = "HOST:PORT or unix:/path?mode=660"
            errors.append(f"{name}: must be {wanted}, not {text!r} ({config.origin(name)})")
        places.append(bind.path and os.path.abspath(bind.path))
    if len(places) == 2 and places[0] is not None and places[0] == places[1]:
        errors.append(f"control_socket: is the same file as status_bind ({config.origin('control_socket')})")
    if config.statsd_host is not None:
        try:
            split_address(config.statsd_host)
        except ValueError as error:
            errors.append(f"statsd_host: {error} ({config.origin('statsd_host')})")
    return errors


def _check_access_logformat(config: Config) -> list[str]:
    try:
        compile_format(config.access_logformat)
    except ValueError as error:
        return [f"access_logformat: {error} ({config.origin('access_logformat')})"]
    return []
