"""What --check-config looks at beyond the values of the settings, and what the server warns of when it starts.

check() opens certificates and looks at folders, files and users, and never binds; warnings() are for what works but is
hardly meant. Both give lists of lines, each naming its setting.
"""

from __future__ import annotations

import os

from preforksmtp.config.model import Config
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.syslog import open_syslog
from preforksmtp.logs.userconfig import apply_guarded, explain, read_log_config
from preforksmtp.net.lanes import queues_migrate
from preforksmtp.net.tls import TLSError, server_context
from preforksmtp.process import privileges
from preforksmtp.server import premises
from preforksmtp.server.premises import workers_user
from preforksmtp.server.salts import read_secret


def warnings(config: Config) -> list[str]:
    """What a user should hear of though the server can run: one line each."""
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


def check(config: Config, former: Config | None = None) -> list[str]:
    """What a start would stumble over, application and binding aside: certificates, files, folders.

    Call it after config.apply(), for relative names start from `chdir`. `former`: the configuration in force, of a
    reload: what is in use already is no reason to fail, whatever has become of its name.
    """
    errors = _check_certificates(config) + _check_identity(config) + _check_auth_secret(config)
    errors += premises.check(config, former)
    errors += _check_syslog(config) + _check_log_config(config, reload=former is not None)
    errors += [
        f"pythonpath: {folder} is no folder" for folder in config.pythonpath if not os.path.isdir(folder)
    ]
    return errors


def _warn_of_identity(config: Config) -> list[str]:
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


def _warn_of_reuse_port(config: Config) -> list[str]:
    if not config.reuse_port:
        return []
    line = "reuse_port: a connection waits for one worker, however idle the others are"
    if not queues_migrate():
        line += (
            "; connections queued may be lost where the number of workers shrinks, unless net.ipv4.tcp_migrate_req is 1"
        )
    return [line]


def _check_identity(config: Config) -> list[str]:
    try:
        privileges.find(config.user, config.group)
    except privileges.PrivilegesError as error:
        return [str(error)]
    return []


def _check_certificates(config: Config) -> list[str]:
    """Load what each listener would, each set of files once."""
    errors: list[str] = []
    for view in map(config.for_bind, config.binds()):
        if view.certfile is None:
            continue
        try:
            server_context(view)
        except TLSError as error:
            errors.append(str(error))
    return list(dict.fromkeys(errors))


def _check_auth_secret(config: Config) -> list[str]:
    if config.auth_secret_file is not None:
        try:
            read_secret(config.auth_secret_file)
        except ValueError as error:
            return [str(error)]
    return []


def _check_syslog(config: Config) -> list[str]:
    try:
        syslog = open_syslog(config, workers_user(config))
    except LogError as error:
        return [str(error)]
    if syslog is not None:
        syslog.close()
    return []


def _check_log_config(config: Config, *, reload: bool) -> list[str]:
    """Applied to the logging of this process, for nothing less shows whether it can be. A file that cannot be opened is
    no reason to refuse a reload: the error log takes its place."""
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
