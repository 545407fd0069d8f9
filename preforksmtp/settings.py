"""THE table of settings: one row each, from which everything else about a setting is derived.

From a row come the command line option and its place in --help, the environment variable, the name in the
config file, the option of a bind (scope "session"), --print-config, conf/preforksmtp.conf.py and the table
in README.md. Adding a row is all it takes. There is no logic here; how values are read is values.py, how
they are joined config.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from preforksmtp.values import (
    MIB,
    ValueType,
    addresses,
    boolean,
    choice,
    cidrs,
    hostname,
    integer,
    local_hostname,
    path,
    seconds,
    size,
    string,
    usable_cpus,
    variables,
    words,
)

PREFIX = "PREFORKSMTP_"

PROCESSES = "Processes"
SMTP = "SMTP"
TLS = "TLS"
LOGS = "Logs"
SECTIONS = (PROCESSES, SMTP, TLS, LOGS)

# Most sites want the same few facts of a message: when, which session and message, who, from whom to whom,
# how big, what was answered, how long it took and over which TLS.
ACCESS_LOGFORMAT = (
    "%(t)s session=%(i)s message=%(q)s peer=[%(h)s]:%(hp)s helo=%(l)s user=%(u)s from=<%(f)s> to=%(rcpt)s "
    'nrcpt=%(n)s size=%(b)s reply="%(s)s %(e)s %(m)s" time=%(L)s tls=%(tls)s'
)


@dataclass(frozen=True)
class Setting:
    """One row. `default` may be a function, called only when no value is given; `shown` then describes it."""

    name: str
    flags: tuple[str, ...]
    type: ValueType
    default: Any
    section: str
    help: str
    scope: Literal["process", "session"] = "process"  # "session": may be set for one bind
    environ: tuple[str, ...] = ()  # further variables, asked after the setting's own
    shown: str = ""
    secret: Callable[[Any], Any] | None = None  # hides what --print-config must not show
    positional: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the first found wins."""
        return (PREFIX + self.name.upper(), *self.environ)

    @property
    def options(self) -> tuple[str, ...]:
        """Its options on the command line: short, long, aliases."""
        if self.positional:
            return ()
        short = tuple(flag for flag in self.flags if not flag.startswith("--"))
        aliases = tuple(flag for flag in self.flags if flag.startswith("--"))
        return (*short, "--" + self.name.replace("_", "-"), *aliases)

    def parse(self, raw: object) -> Any:
        """The value of what was given; None and empty text mean the default. Raises ValueError."""
        value = None if raw is None else self.type.parse(raw)
        if value is not None:
            return value
        default = self.default() if callable(self.default) else self.default
        return default if default is None else self.type.parse(default)


SETTINGS = (
    # --- processes
    Setting("app", (), string("APP"), "preforksmtp.handlers:Maildir('Maildir')", PROCESSES,
            "The application: 'module:attribute', or 'module:factory(...)' with literals as arguments; "
            "'module' alone means 'module:handler'. A function called with each message, or a subclass of "
            "preforksmtp.Handler.",
            positional=True),
    Setting("bind", ("-b",), addresses(), ("127.0.0.1:8025",), PROCESSES,
            "Address to listen on, [SCHEME://]ADDRESS[?option=value&...]; may be repeated. SCHEME is smtp, "
            "smtps, submission, submissions or lmtp; ADDRESS is HOST:PORT, [::1]:25, :25, unix:/path or "
            "fd://3; an option is any setting marked 'per bind'."),
    Setting("workers", ("-w",), integer(1, words={"auto": usable_cpus}), 1, PROCESSES,
            "Worker processes; 'auto' is one for each CPU this process may use.",
            environ=("WEB_CONCURRENCY",)),
    Setting("threads", (), integer(1), 100, PROCESSES,
            "Most sessions at once in each worker, one thread each."),
    Setting("backlog", (), integer(1, 65535), 2048, PROCESSES,
            "Most connections waiting in the kernel to be accepted, for each listener."),
    Setting("timeout", (), seconds(), 30, PROCESSES,
            "Seconds without a heartbeat after which a worker is killed and replaced."),
    Setting("boot_timeout", (), seconds(), 60, PROCESSES,
            "Seconds a new worker may take to load the application and get ready."),
    Setting("graceful_timeout", (), seconds(zero=True), 30, PROCESSES,
            "Seconds that open transactions may take to finish when a worker is asked to stop; then it is "
            "killed."),
    Setting("chdir", (), path("DIR"), None, PROCESSES,
            "Folder to change to before the application is loaded; relative names of files start from it.",
            shown="the current folder"),
    Setting("env", ("-e",), variables(), {}, PROCESSES,
            "Environment variable to set before the application is loaded; may be repeated.",
            secret=lambda value: dict.fromkeys(value, "********")),
    Setting("pythonpath", (), words("DIR,DIR", commas_only=True), (), PROCESSES,
            "Folders put in front of Python's import path, separated by commas."),
    # --- SMTP
    Setting("hostname", (), hostname(), local_hostname, SMTP,
            "The name in the greeting and in Received: a domain or an address literal (RFC 5321 4.1.2).",
            "session", shown="this machine's full name"),
    Setting("max_message_size", (), size(), 32 * MIB, SMTP,
            "Largest message in bytes, 32M or 1 GiB (SIZE, RFC 1870); 0 is no limit.", "session"),
    Setting("max_recipients", (), integer(1), 1000, SMTP,
            "Most recipients of one message; RFC 5321 4.5.3.1.8 asks for at least 100.", "session"),
    Setting("max_line_length", (), integer(0), 0, SMTP,
            "Longest line of a message in bytes, with its CRLF; RFC 5321 4.5.3.1.6 has 1000, but clients send longer; "
            "0 is no limit.", "session"),
    Setting("command_timeout", (), seconds(), 300, SMTP,
            "Seconds to wait for the next command (RFC 5321 4.5.3.2.7).", "session"),
    Setting("data_timeout", (), seconds(), 180, SMTP,
            "Seconds to wait for the next block of a message (RFC 5321 4.5.3.2.5).", "session"),
    Setting("session_timeout", (), seconds(zero=True), 0, SMTP,
            "Most seconds a whole session may take; 0 is no limit.", "session"),
    Setting("max_errors", (), integer(1), 10, SMTP,
            "Bad commands after which a session is ended with 421.", "session"),
    Setting("xclient", (), cidrs(), (), SMTP,
            "Peers trusted to say whom they speak for with XCLIENT, as networks; 'unix' for clients of a unix socket.",
            "session", shown="nobody"),
    Setting("xforward", (), cidrs(), (), SMTP,
            "Peers trusted to name a message's client with XFORWARD, as networks; 'unix' for clients of a unix "
            "socket.", "session", shown="nobody"),
    Setting("require_tls", (), boolean(), False, SMTP,
            "Accept mail over TLS only: 530 until STARTTLS (RFC 3207 4).", "session"),
    Setting("require_auth", (), boolean(), False, SMTP,
            "Accept mail from authenticated clients only: 530 until AUTH (RFC 4954 6).", "session"),
    Setting("auth_mechanisms", (), words("NAME,NAME", upper=True), (), SMTP,
            "SASL mechanisms to offer of those the application's methods allow (RFC 4954).", "session",
            shown="all of them"),
    Setting("allow_insecure_auth", (), boolean(), False, SMTP,
            "Offer AUTH without TLS, so that passwords may cross the network in clear (RFC 4954 4).",
            "session"),
    Setting("spool_threshold", (), size(), 1 * MIB, SMTP,
            "Bytes of a message held in memory; a larger one is written to a temporary file.", "session"),
    Setting("spool_dir", (), path("DIR"), None, SMTP,
            "Folder for temporary files of large messages.", "session", shown="$TMPDIR or /tmp"),
    Setting("bare_newlines", (), choice("reject", "accept"), "reject", SMTP,
            "A CR or LF alone in a message: reject it with 550 after the end of data, or keep it as content "
            "(RFC 5321 2.3.8).", "session"),
    # --- TLS
    Setting("certfile", (), path(), None, TLS,
            "Certificate of the server and its chain, PEM; it turns on STARTTLS (RFC 3207).", "session"),
    Setting("keyfile", (), path(), None, TLS,
            "Private key of the certificate, PEM.", "session", shown="in certfile"),
    Setting("keyfile_password_file", (), path(), None, TLS,
            "File whose first line is the password of the private key.", "session"),
    Setting("ca_certs", (), path(), None, TLS,
            "Certificates of the authorities, PEM, that clients' certificates are checked against.",
            "session"),
    Setting("cert_reqs", (), choice("none", "optional", "required"), "none", TLS,
            "Whether a client is asked for a certificate.", "session"),
    Setting("ciphers", (), string(), None, TLS,
            "Ciphers for TLS 1.2, in OpenSSL's notation.", "session", shown="Python's own choice"),
    Setting("tls_min_version", (), choice("1.2", "1.3"), "1.2", TLS,
            "Oldest version of TLS to accept (RFC 8996).", "session"),
    # --- logs
    Setting("error_logfile", ("--log-file",), path(), "-", LOGS,
            "File of the error log; '-' is standard error."),
    Setting("access_logfile", (), path(), None, LOGS,
            "File of the access log, one line for each message; '-' is standard output.", shown="off"),
    Setting("access_logformat", (), string("FORMAT"), ACCESS_LOGFORMAT, LOGS,
            "Format of the access log; its atoms are listed at the end of --help."),
    Setting("log_format", (), choice("text", "json"), "text", LOGS,
            "Lines of text, or one JSON object a line, for both logs."),
    Setting("log_level", (), choice("debug", "info", "warning", "error", "critical"), "info", LOGS,
            "Least severe messages that reach the error log."),
)  # fmt: skip

BY_NAME = {setting.name: setting for setting in SETTINGS}
