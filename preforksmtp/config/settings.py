"""THE table of settings: one row each, from which everything else about a setting is derived.

From a row come the command line option and its place in --help, the environment variable, the name in the
config file, the option of a bind (scope "session"), --print-config, conf/preforksmtp.conf.py and the table
in README.md. Adding a row is all it takes. There is no logic here; how values are read is values.py, how
they are joined config.py.
"""

from dataclasses import dataclass
from typing import Literal

from preforksmtp.config.destinations import local_syslog, syslog_target
from preforksmtp.config.setting import Setting
from preforksmtp.config.values import (
    MIB,
    addresses,
    boolean,
    choice,
    cidrs,
    hostname,
    integer,
    local_hostname,
    named_certificates,
    octal,
    path,
    patterns,
    seconds,
    share,
    size,
    string,
    variables,
    words,
)
from preforksmtp.logs.syslog import FACILITIES
from preforksmtp.process.machine import usable_cpus

PROCESSES = "Processes"
SMTP = "SMTP"
LIMITS = "Limits"
TLS = "TLS"
LOGS = "Logs"
OBSERVATION = "Observation"
SECTIONS = (PROCESSES, SMTP, LIMITS, TLS, LOGS, OBSERVATION)

# Most sites want the same few facts of a message: when, which session and message, who, from whom to whom,
# how big, what was answered, how long it took and over which TLS.
ACCESS_LOGFORMAT = (
    "%(t)s session=%(i)s message=%(q)s peer=[%(h)s]:%(hp)s helo=%(l)s user=%(u)s from=<%(f)s> to=%(rcpt)s "
    'nrcpt=%(n)s size=%(b)s reply="%(s)s %(e)s %(m)s" time=%(L)s tls=%(tls)s'
)


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
            "Worker processes; 'auto' is one for each CPU this process may use, a container's quota (cgroup) included.",
            environ=("WEB_CONCURRENCY",)),
    Setting("threads", (), integer(1), 100, PROCESSES,
            "Most sessions at once in each worker, one thread each."),
    Setting("backlog", (), integer(1, 65535), 2048, PROCESSES,
            "Most connections waiting in the kernel to be accepted, for each listener."),
    Setting("reuse_port", (), boolean(), False, PROCESSES,
            "Give each worker a socket and a queue of its own on each TCP listener (SO_REUSEPORT), among which the "
            "kernel spreads connections by their addresses. Nobody else serves them, then: they wait while the worker "
            "is full, or was killed and is not yet replaced; and those in the queue may be lost where the number of "
            "workers shrinks. Without it all workers share one queue, which has none of that."),
    Setting("scheduling", (), choice("auto", "normal"), "auto", PROCESSES,
            "How workers share processors that are all busy: with 'auto' one that wakes up lets whoever runs finish "
            "its slice (SCHED_BATCH), and its sessions stay on one processor as long as no other one is idle, so there "
            "are fewer switches and more messages; 'normal' is as any program. Linux."),
    Setting("timeout", (), seconds(), 30, PROCESSES,
            "Seconds without a heartbeat after which a worker is killed and replaced."),
    Setting("boot_timeout", (), seconds(), 60, PROCESSES,
            "Seconds a new worker may take to load the application and get ready."),
    Setting("graceful_timeout", (), seconds(zero=True), 30, PROCESSES,
            "Seconds that open transactions may take to finish when a worker is asked to stop; then it is "
            "killed. In a reload kept connections are served on for two thirds of it."),
    Setting("drain_delay", (), seconds(zero=True), 0, PROCESSES,
            "Seconds between TERM and the stop in which /readyz answers 503 and everything else goes on: time for load "
            "balancers to send clients elsewhere. A second TERM ends it."),
    Setting("handler_timeout", (), seconds(zero=True), 0, PROCESSES,
            "Seconds that one call of the application may take, waiting for the client not counted. Past it the error "
            "log gets the session, the method and its stack, and the worker is replaced: its other sessions finish, "
            "the call itself has graceful_timeout left. 0 is off."),
    Setting("max_sessions", (), integer(), 0, PROCESSES,
            "Sessions after which a worker is replaced; the replacement serves first, and one worker is replaced at a "
            "time. 0 is off."),
    Setting("max_sessions_jitter", (), integer(), 0, PROCESSES,
            "Most sessions added to max_sessions, at random for each worker."),
    Setting("max_worker_memory", (), size(), 0, PROCESSES,
            "Bytes in memory, 512M, from which on a worker is replaced in the same way. 0 is off."),
    Setting("max_worker_age", (), seconds(zero=True), 0, PROCESSES,
            "Seconds after which a worker is replaced in the same way. 0 is off."),
    Setting("daemon", ("-D",), boolean(), False, PROCESSES,
            "Run in the background. The command returns once all workers are ready, or fails with the error. "
            "error_logfile must be a file then.", reloaded=False),
    Setting("pid", ("-p",), path(), None, PROCESSES,
            "File for the master's process id, locked as long as it runs.", shown="none", reloaded=False),
    Setting("name", ("-n",), string("NAME"), "preforksmtp", PROCESSES,
            "Name of the processes in ps and top; 15 bytes with the role.", reloaded=False),
    Setting("upgrade", (), choice("auto", "manual"), "auto", PROCESSES,
            "After USR2: the new program tells the old one to stop once it is ready, or leaves that to you.",
            reloaded=False),
    Setting("user", ("-u",), string("USER"), None, PROCESSES,
            "User that workers run as, a name or a number; the master stays root, to bind low ports and to read keys. "
            "Its group and supplementary groups go with it.", shown="the user who starts it"),
    Setting("group", ("-g",), string("GROUP"), None, PROCESSES,
            "Group that workers run as, a name or a number.", shown="the user's own"),
    Setting("umask", ("-m",), octal(), "077", PROCESSES,
            "Permissions that files made by workers do not get, octal."),
    Setting("no_new_privileges", (), boolean(), True, PROCESSES,
            "With user or group: programs that workers start gain no privileges by set-user-ID or set-group-ID, and on "
            "Linux 6.12 workers signal none but themselves and what they start. Turn it off for an application that "
            "runs such a program, Postfix' sendmail for one."),
    Setting("chdir", (), path("DIR"), None, PROCESSES,
            "Folder to change to before the application is loaded; relative names of files start from it.",
            shown="the current folder"),
    Setting("env", ("-e",), variables(), {}, PROCESSES,
            "Environment variable to set before the application is loaded; may be repeated.",
            secret=lambda value: dict.fromkeys(value, "********")),
    Setting("pythonpath", (), words("DIR,DIR", commas_only=True), (), PROCESSES,
            "Folders put in front of Python's import path, separated by commas."),
    Setting("preload", (), boolean(), False, PROCESSES,
            "Load the application once, in the master and with its privileges (root's, with user), before it forks: "
            "workers share that memory and are ready sooner. HUP is then an upgrade, as USR2 is. start and stop of a "
            "Handler are still called in each worker.", reloaded=False),
    Setting("reload", (), boolean(), False, PROCESSES,
            "For development: do what HUP does whenever a source file of the application, the config file or one of "
            "reload_extra_file changes. A file that does not compile changes nothing.", reloaded=False),
    Setting("reload_extra_file", (), patterns(), (), PROCESSES,
            "Further files for reload to watch, as a pattern (templates/*.txt, data/**); may be repeated."),
    # --- SMTP
    Setting("hostname", (), hostname(), local_hostname, SMTP,
            "The name in the greeting and in Received: a domain or an address literal (RFC 5321 section 4.1.2).",
            "session", shown="this machine's full name"),
    Setting("address_syntax", (), choice("lenient", "strict"), "lenient", SMTP,
            "Addresses, names in EHLO and parameters to take: 'lenient' is what real clients send, as in the README; "
            "'strict' the grammar and the lengths of RFC 5321 section 4.1.2 and 4.5.3.1.", "session"),
    Setting("max_message_size", (), size(), 32 * MIB, SMTP,
            "Largest message in bytes, 32M or 1 GiB (SIZE, RFC 1870); 0 is no limit.", "session"),
    Setting("max_recipients", (), integer(1), 1000, SMTP,
            "Most recipients of one message; RFC 5321 section 4.5.3.1.8 asks for at least 100.", "session"),
    Setting("max_recipient_domains", (), integer(0), 0, SMTP,
            "Most domains among the recipients of one message (RFC 9422); 0 is no limit.", "session"),
    Setting("max_line_length", (), integer(0), 0, SMTP,
            "Longest line of a message in bytes, with its CRLF; RFC 5321 section 4.5.3.1.6 has 1000, but clients send "
            "longer; 0 is no limit.", "session"),
    Setting("command_timeout", (), seconds(), 300, SMTP,
            "Seconds to wait for the next command, all of its line (RFC 5321 section 4.5.3.2.7).", "session"),
    Setting("data_timeout", (), seconds(), 180, SMTP,
            "Seconds to wait for the next block of a message, 1 KiB (RFC 5321 section 4.5.3.2.5).", "session"),
    Setting("handshake_timeout", (), seconds(), 30, SMTP,
            "Seconds a TLS handshake may take; at most 10 of them for its first message, the ClientHello.", "session"),
    Setting("session_timeout", (), seconds(zero=True), 0, SMTP,
            "Most seconds a whole session may take; 0 is no limit.", "session"),
    Setting("max_errors", (), integer(1), 10, SMTP,
            "Bad commands after which a session is ended with 421. Recipients that are refused are none.", "session"),
    Setting("proxy_protocol", (), cidrs(), (), SMTP,
            "Peers that must send a PROXY protocol header, version 1 or 2, as networks; 'unix' for clients of a unix "
            "socket. Others are served as they are.", "session", shown="nobody"),
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
    Setting("channel_binding", (), choice("auto", "always", "never"), "auto", SMTP,
            "When SCRAM is offered with -PLUS, bound to the TLS connection: 'auto' where usual clients can do it (TLS "
            "1.2; 1.3 if this Python has tls-exporter); 'always' also where there is only tls-server-end-point, at "
            "which many give up.", "session"),
    Setting("auth_secret_file", (), path(), None, SMTP,
            "File with a random secret of at least 16 bytes, the same on all hosts that know the same users: of it are "
            "made the SCRAM salts of users who are not there, which must last as others do.",
            shown="the machine's id; where it has none, the private key"),
    Setting("allow_insecure_auth", (), boolean(), False, SMTP,
            "Offer AUTH without TLS, so that passwords may cross the network in clear (RFC 4954 4).",
            "session"),
    Setting("max_auth_failures", (), integer(0), 3, SMTP,
            "Failed AUTH commands after which a session is ended with 421; 0 is no limit.", "session"),
    Setting("auth_failure_delay", (), seconds(zero=True), 1, SMTP,
            "Seconds between the client's last line and the reply to each failed AUTH.", "session"),
    Setting("spool_threshold", (), size(), 1 * MIB, SMTP,
            "Bytes of a message held in memory; a larger one is written to a temporary file.", "session"),
    Setting("spool_dir", (), path("DIR"), None, SMTP,
            "Folder for temporary files of large messages.", "session", shown="$TMPDIR or /tmp"),
    Setting("min_free_space", (), size(), 16 * MIB, LIMITS,
            "Refuse MAIL with 452 while less is free where bodies are spooled (spool_dir), or where the application "
            "stores them as far as it says so. 0 is off."),
    Setting("bare_newlines", (), choice("reject", "accept"), "reject", SMTP,
            "A CR or LF alone in a message: reject it with 550 after the end of data, or keep it as content "
            "(RFC 5321 section 2.3.8).", "session"),
    Setting("pipelined_body", (), choice("reject", "accept"), "reject", SMTP,
            "A message that is sent right behind DATA, without waiting for 354 (RFC 2920 section 3.1): reject it "
            "with 554 and close the connection, or take it.", "session"),
    # --- limits
    Setting("max_connections", (), integer(), 0, LIMITS,
            "Most sessions at once in all workers; one more is told 421 4.3.2. 0 is no limit but threads."),
    Setting("busy_reply", (), boolean(), False, LIMITS,
            "When all threads of all workers are busy, tell new clients 421 4.3.2 instead of letting them wait in the "
            "kernel's queue; it keeps one thread for that."),
    Setting("max_connections_per_ip", (), integer(), 0, LIMITS,
            "Most sessions at once of one client, over all workers: 421 4.7.0. 0 is no limit.", "session"),
    Setting("max_connection_rate", (), integer(), 0, LIMITS,
            "Most connections of one client per minute, over all workers: 421 4.7.0. 0 is no limit.", "session"),
    Setting("max_message_rate", (), integer(), 0, LIMITS,
            "Most messages (MAIL commands) of one client per minute, over all workers: 450 4.7.1. 0 is no limit.",
            "session"),
    Setting("max_recipient_rate", (), integer(), 0, LIMITS,
            "Most recipients (RCPT commands) of one client per minute, over all workers: 450 4.7.1. 0 is no limit.",
            "session"),
    Setting("max_auth_failure_rate", (), integer(), 60, LIMITS,
            "Most failed AUTH commands of one client per minute, over all workers: 454 4.7.0, without asking the "
            "application. Attempts under way count until they succeed, and more than that wait for their turn. 0 is no "
            "limit.", "session"),
    Setting("poison_limit", (), integer(), 0, LIMITS,
            "Refuse a message after so many workers died with one of the same client and envelope in the handler: 451 "
            "4.3.0 before its body, for an hour after the last one, to trusted clients too. 0 is no limit.", "session"),
    Setting("client_prefix_v4", (), integer(1, 32), 32, LIMITS,
            "Bits of an IPv4 address that make one client."),
    Setting("client_prefix_v6", (), integer(1, 128), 64, LIMITS,
            "Bits of an IPv6 address that make one client: a host has a whole /64 to choose from."),
    Setting("trusted_clients", (), cidrs(), (), LIMITS,
            "Clients that no limit of this section applies to, as networks; 'unix' for clients of a unix socket, which "
            "have no limits as addresses in any case.", "session", shown="nobody"),
    Setting("max_messages", (), integer(), 0, LIMITS,
            "Most messages (MAIL commands) of one session: 421 4.7.0; announced as MAILMAX (RFC 9422). 0 is no limit.",
            "session"),
    Setting("max_refused_recipients", (), integer(), 0, LIMITS,
            "Most recipients of one session that are refused for good (5xx to RCPT), as dictionary attacks make them: "
            "421 4.7.0. 0 is no limit.", "session"),
    Setting("max_idle_commands", (), integer(), 1000, LIMITS,
            "Most commands that bring no message nearer, between two messages: all that are refused, recipients and "
            "messages too; NOOP, RSET, VRFY, EXPN, ETRN, HELP, AUTH, XCLIENT, XFORWARD, EHLO again, BDAT 0: 421 "
            "4.7.0. 0 is no limit.", "session"),
    Setting("min_data_rate", (), size(), 0, LIMITS,
            "Fewest bytes per second of a message, on average over all of it: 421 4.4.2. Only waiting for the client "
            "counts. 0 is no limit.", "session"),
    Setting("min_data_rate_grace", (), seconds(), 10, LIMITS,
            "Seconds a message may take before min_data_rate is looked at.", "session"),
    Setting("greeting_delay", (), seconds(zero=True), 0, LIMITS,
            "Seconds to wait before the greeting; a client that speaks first is no mail server: 554 5.5.1. 0 is off.",
            "session"),
    Setting("error_delay", (), seconds(zero=True), 0, LIMITS,
            "Seconds by which each refusal of a command is delayed, from the fourth since the last message. 0 is off.",
            "session"),
    Setting("stress_threshold", (), share(), 0, LIMITS,
            "Share of all threads that are busy, 0.9 or 90%, from which on the stress_ timeouts apply. 0 is off."),
    Setting("stress_command_timeout", (), seconds(), 10, LIMITS,
            "Seconds to wait under stress for the next command, for a PROXY header, a TLS handshake, or until a client "
            "reads what it was sent.", "session"),
    Setting("stress_data_timeout", (), seconds(), 10, LIMITS,
            "Seconds to wait for the next block of a message under stress.", "session"),
    Setting("reverse_dns", (), boolean(), False, LIMITS,
            "Look up the name of each client's address before the greeting, confirmed by the address of that name, "
            "for Received, and session.reverse_dns.", "session"),
    Setting("reverse_dns_timeout", (), seconds(), 1.5, LIMITS,
            "Seconds to wait for that name.", "session"),
    # --- TLS
    Setting("certfile", (), path(), None, TLS,
            "Certificate of the server and its chain, PEM; it turns on STARTTLS (RFC 3207).", "session"),
    Setting("keyfile", (), path(), None, TLS,
            "Private key of the certificate, PEM.", "session", shown="in certfile"),
    Setting("keyfile_password_file", (), path(), None, TLS,
            "File whose first line is the password of the private key.", "session"),
    Setting("sni", (), named_certificates(), {}, TLS,
            "Certificate and key for clients that ask for NAME, mx.example.org or *.example.org; may be repeated. "
            "Other names get certfile.", "session"),
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
    Setting("access_log_sessions", (), boolean(), False, LOGS,
            "Also write a line to the access log when a session ends: its client, how often each command was given and "
            "refused, messages, octets, seconds, and why it ended."),
    Setting("log_refusals", (), boolean(), True, LOGS,
            "Write a line to the error log for each client, sender and recipient that is refused, with the reply: what "
            "fail2ban reads (conf/fail2ban)."),
    Setting("log_format", (), choice("text", "json"), "text", LOGS,
            "Lines of text, or one JSON object a line, for both logs."),
    Setting("log_level", (), choice("debug", "info", "warning", "error", "critical"), "info", LOGS,
            "Least severe messages that reach the error log."),
    Setting("log_config", (), path(), None, LOGS,
            "File of Python's logging.config: JSON for dictConfig if it ends in .json, else for fileConfig. What it "
            "makes of the logger preforksmtp is the error log; error_logfile has stacks of hanging workers only.",
            shown="off"),
    Setting("log_syslog", (), boolean(), False, LOGS,
            "Send the lines of the error log and of the access log to syslog as well."),
    Setting("log_syslog_to", (), syslog_target(), local_syslog, LOGS,
            "Where syslog is: unix:///path, udp://host:port or tcp://host:port.",
            shown="unix:///dev/log; udp://127.0.0.1:514 where there is none"),
    Setting("log_syslog_prefix", (), string(), None, LOGS,
            "The program's name in syslog.", shown="as name"),
    Setting("log_syslog_facility", (), choice(*FACILITIES), "mail", LOGS,
            "Facility in syslog."),
    Setting("transcript", (), path(), None, LOGS,
            "File of the transcript: all that clients and server say, without passwords, tokens and the content of "
            "messages; '-' is standard output.", shown="off"),
    # --- observation
    Setting("status_bind", (), string("ADDRESS"), None, OBSERVATION,
            "Address, HOST:PORT or unix:/path?mode=660, where a process of its own serves HTTP: /metrics (Prometheus), "
            "/livez, /readyz, /stats (JSON), and a status page at /. Anybody who reaches it may read.",
            shown="off", reloaded=False),
    Setting("control_socket", (), path(), None, OBSERVATION,
            "Unix socket for preforksmtpctl; only its owner and root may use it.", shown="off", reloaded=False),
    Setting("statsd_host", (), string("HOST:PORT"), None, OBSERVATION,
            "statsd server, HOST:PORT or unix:/path, which is sent once a second what has changed.", shown="off"),
    Setting("statsd_prefix", (), string(), "preforksmtp", OBSERVATION,
            "What names in statsd begin with, before a dot."),
    Setting("dogstatsd_tags", (), string("KEY:VALUE,..."), None, OBSERVATION,
            "Tags for DogStatsD, on every metric.", shown="none"),
)  # fmt: skip

BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Hook:
    """A function that the config file may define, called by the server: name and arguments are gunicorn's."""

    name: str
    arguments: tuple[str, ...]
    process: Literal["master", "worker"]
    help: str


HOOKS = (
    Hook("on_starting", ("server",), "master", "The master begins; nothing is forked yet. Raising ends the start."),
    Hook("when_ready", ("server",), "master", "All workers of the first generation are ready."),
    Hook("on_reload", ("server",), "master", "A reload has read the new configuration; its first worker is next."),
    Hook("pre_fork", ("server", "worker"), "master", "A worker is about to be forked."),
    Hook("post_fork", ("server", "worker"), "worker", "The worker begins, before the application is loaded. Raising "
         "keeps it from serving."),
    Hook("post_worker_init", ("worker",), "worker", "The application is loaded. Raising keeps the worker from "
         "serving."),
    Hook("worker_int", ("worker",), "worker", "The worker was told to leave at once (QUIT, INT)."),
    Hook("worker_abort", ("worker",), "worker", "The worker gets ABRT, after timeout or at the end of "
         "graceful_timeout; the stacks are in the log already. It cannot run while C code holds the interpreter."),
    Hook("worker_exit", ("server", "worker"), "worker", "The worker leaves; not if it is killed."),
    Hook("child_exit", ("server", "worker"), "master", "A worker is gone, however it ended: worker.status is as from "
         "waitpid."),
    Hook("nworkers_changed", ("server", "new_value", "old_value"), "master", "Another number of workers is wanted; "
         "old_value is None at the start."),
    Hook("pre_exec", ("server",), "master", "An upgrade (USR2): in the new process, just before exec."),
    Hook("on_exit", ("server",), "master", "The last worker is gone; the master leaves."),
    Hook("ssl_context", ("config", "default_ssl_context_factory"), "master", "Returns the TLS context of a bind: that "
         "of default_ssl_context_factory(), changed, or another ssl.SSLContext. Raising ends the start or the reload."),
)  # fmt: skip

HOOKS_BY_NAME = {hook.name: hook for hook in HOOKS}
