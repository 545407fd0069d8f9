"""What must hold between settings, and what --check-config looks at beyond their values.

cross_check() compares values only and runs at every load; check() also opens certificates and looks at
folders, and never binds. warnings() are for what works but is hardly meant. All give lists of lines, one an
error, each naming the setting; ConfigError carries such a list.
"""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforksmtp.config.load import Config
    from preforksmtp.net.bind import Bind


class ConfigError(Exception):
    """The configuration cannot be used; `errors` holds one clear line for each fault."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


def cross_check(config: "Config") -> list[str]:
    """Errors between settings, for the server as a whole and as each of its binds has them."""
    from preforksmtp.net.bind import parse_bind

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


def warnings(config: "Config") -> list[str]:
    """What a user should hear of though the server can run: one line each."""
    from preforksmtp.server import premises

    lines = []
    lines += _warn_of_identity(config)
    lines += premises.warn(config)
    lines += _warn_of_reuse_port(config)
    for bind in config.binds():
        view = config.for_bind(bind)
        if view.require_auth and not view.certfile and not view.allow_insecure_auth:
            lines.append(
                f"bind {bind.text!r}: require_auth without TLS: passwords are not taken in clear, so "
                "clients that send them can deliver nothing; set certfile (or allow_insecure_auth)"
            )
        if view.allow_insecure_auth and bind.host not in (None, "localhost", "127.0.0.1", "::1"):
            lines.append(f"bind {bind.text!r}: allow_insecure_auth lets passwords cross the network in clear")
    return lines


def check(config: "Config", former: "Config | None" = None) -> list[str]:
    """What a start would stumble over, application and binding aside: certificates, files, folders.

    Call it after config.apply(), for relative names start from `chdir`. `former`: the configuration in force, of a
    reload: what is in use already is no reason to fail, whatever has become of its name.
    """
    from preforksmtp.server import premises

    errors = _check_certificates(config) + _check_identity(config) + _check_auth_secret(config)
    errors += premises.check(config, former)
    errors += _check_syslog(config) + _check_log_config(config, reload=former is not None)
    errors += [
        f"pythonpath: {folder} is no folder" for folder in config.pythonpath if not os.path.isdir(folder)
    ]
    return errors


def _check_tls(config: "Config") -> list[str]:
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


def _check_mechanisms(config: "Config") -> list[str]:
    """A misspelt name would silently offer less."""
    from preforksmtp.smtp.sasl import MECHANISMS

    known, errors = list(MECHANISMS), []
    for name in config.auth_mechanisms:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            errors.append(f"auth_mechanisms: {name} is unknown; {hint} ({config.origin('auth_mechanisms')})")
    return errors


def _check_bind(bind: "Bind", view: "Config") -> list[str]:
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


def _check_twice(config: "Config", binds: "list[Bind]") -> list[str]:
    # Port 0 is a fresh port each time.
    places = Counter((bind.host, bind.port, bind.path, bind.fd) for bind in binds if bind.port != 0)
    twice = {place for place, count in places.items() if count > 1}
    texts = [bind.text for bind in binds if (bind.host, bind.port, bind.path, bind.fd) in twice]
    return [f"bind: {' and '.join(texts)} are the same address ({config.origin('bind')})"] if texts else []


def _check_daemon(config: "Config") -> list[str]:
    if not config.daemon:
        return []
    files = ("transcript",) if config.log_syslog else ("error_logfile", "access_logfile", "transcript")
    on_terminal = [name for name in files if getattr(config, name) == "-"]
    return [f"{name}: must be a file, for a daemon has no terminal ({config.origin('daemon')})" for name in on_terminal]


def _check_reload(config: "Config") -> list[str]:
    if config.preload and config.reload:
        where = f"{config.origin('reload')}; preload: {config.origin('preload')}"
        return [f"reload: does not go with preload, which loads the application only once; choose one ({where})"]
    return []


def _check_observation(config: "Config") -> list[str]:
    from preforksmtp.net.bind import parse_bind
    from preforksmtp.observe.statsd import split_address

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


def _check_access_logformat(config: "Config") -> list[str]:
    from preforksmtp.logs.access import compile_format

    try:
        compile_format(config.access_logformat)
    except ValueError as error:
        return [f"access_logformat: {error} ({config.origin('access_logformat')})"]
    return []


def _warn_of_identity(config: "Config") -> list[str]:
    from preforksmtp.process import privileges

    if config.user is None and os.geteuid() == 0:
        return ["user: not set, so workers run as root; name an unprivileged user (or root, to mean it)"]
    try:
        identity = privileges.find(config.user, config.group)
    except privileges.PrivilegesError:
        return []  # an error, not a warning
    if identity is None:
        return []
    folders = {"Python's own modules": os.path.dirname(os.__file__), "the current folder": os.getcwd()}
    return [
        f"user: uid {identity.uid} cannot enter {folder}, {what}: what a worker imports from there is not found"
        for what, folder in folders.items()
        if not identity.may_enter(folder)
    ]


def _warn_of_reuse_port(config: "Config") -> list[str]:
    from preforksmtp.net.lanes import queues_migrate

    if not config.reuse_port:
        return []
    line = "reuse_port: a connection waits for one worker, however idle the others are"
    if not queues_migrate():
        line += (
            "; connections queued may be lost where the number of workers shrinks, unless net.ipv4.tcp_migrate_req is 1"
        )
    return [line]


def _check_identity(config: "Config") -> list[str]:
    from preforksmtp.process import privileges

    try:
        privileges.find(config.user, config.group)
    except privileges.PrivilegesError as error:
        return [str(error)]
    return []


def _check_certificates(config: "Config") -> list[str]:
    """Load what each listener would, each set of files once."""
    from preforksmtp.net.tls import TLSError, server_context

    errors: list[str] = []
    for view in map(config.for_bind, config.binds()):
        if view.certfile is None:
            continue
        try:
            server_context(view)
        except TLSError as error:
            errors.append(str(error))
    return list(dict.fromkeys(errors))


def _check_auth_secret(config: "Config") -> list[str]:
    from preforksmtp.server.salts import read_secret

    if config.auth_secret_file is not None:
        try:
            read_secret(config.auth_secret_file)
        except ValueError as error:
            return [str(error)]
    return []


def _check_syslog(config: "Config") -> list[str]:
    from preforksmtp.logs.error import LogError
    from preforksmtp.logs.syslog import open_syslog
    from preforksmtp.server.premises import workers_user

    try:
        syslog = open_syslog(config, workers_user(config))
    except LogError as error:
        return [str(error)]
    if syslog is not None:
        syslog.close()
    return []


def _check_log_config(config: "Config", *, reload: bool) -> list[str]:
    """Applied to the logging of this process, for nothing less shows whether it can be. A file that cannot be opened is
    no reason to refuse a reload: the error log takes its place."""
    from preforksmtp.logs.error import LogError
    from preforksmtp.logs.userconfig import apply_guarded, explain, read_log_config
    from preforksmtp.server.premises import workers_user

    if config.log_config is None:
        return []
    owner = workers_user(config)
    try:
        apply_guarded(read_log_config(config.log_config, owner), owner)
    except LogError as error:
        return [str(error)]
    except Exception as error:  # it runs classes of the user's choice
        if reload and (isinstance(error, OSError) or isinstance(error.__cause__, OSError)):
            return []
        return [explain(config.log_config, error)]
    return []
