# Sample config file of preforksmtp: every setting with its default.
# Copy it to ./preforksmtp.conf.py, or name it with -c; uncomment what you change.
#
# It is Python: what computes a value may stand here. Names of your own begin with an underscore.
# Made by: python3 -m preforksmtp.reference conf/preforksmtp.conf.py


# --- Processes

# The application: 'module:attribute', or 'module:factory(...)' with literals as arguments;
# 'module' alone means 'module:handler'. A function called with each message, or a subclass of
# preforksmtp.Handler.
# app = "preforksmtp.handlers:Maildir('Maildir')"

# Address to listen on, [SCHEME://]ADDRESS[?option=value&...]; may be repeated. SCHEME is smtp,
# smtps, submission, submissions or lmtp; ADDRESS is HOST:PORT, [::1]:25, :25, unix:/path or
# fd://3; an option is any setting marked 'per bind'.
# bind = ["127.0.0.1:8025"]

# Worker processes; 'auto' is one for each CPU this process may use, a container's quota (cgroup)
# included.
# workers = 1

# Most sessions at once in each worker, one thread each.
# threads = 100

# Most connections waiting in the kernel to be accepted, for each listener.
# backlog = 2048

# Give each worker a socket and a queue of its own on each TCP listener (SO_REUSEPORT), among
# which the kernel spreads connections by their addresses. Nobody else serves them, then: they
# wait while the worker is full, or was killed and is not yet replaced; and those in the queue may
# be lost where the number of workers shrinks. Without it all workers share one queue, which has
# none of that.
# reuse_port = False

# How workers share processors that are all busy: with 'auto' one that wakes up lets whoever runs
# finish its slice (SCHED_BATCH), and its sessions stay on one processor as long as no other one
# is idle, so there are fewer switches and more messages; 'normal' is as any program. Linux.
# scheduling = "auto"

# Seconds without a heartbeat after which a worker is killed and replaced.
# timeout = 30

# Seconds a new worker may take to load the application and get ready.
# boot_timeout = 60

# Seconds that open transactions may take to finish when a worker is asked to stop; then it is
# killed. In a reload kept connections are served on for two thirds of it.
# graceful_timeout = 30

# Seconds between TERM and the stop in which /readyz answers 503 and everything else goes on: time
# for load balancers to send clients elsewhere. A second TERM ends it.
# drain_delay = 0

# Seconds that one call of the application may take, waiting for the client not counted. Past it
# the error log gets the session, the method and its stack, and the worker is replaced: its other
# sessions finish, the call itself has graceful_timeout left. 0 is off.
# handler_timeout = 0

# Sessions after which a worker is replaced; the replacement serves first, and one worker is
# replaced at a time. 0 is off.
# max_sessions = 0

# Most sessions added to max_sessions, at random for each worker.
# max_sessions_jitter = 0

# Bytes in memory, 512M, from which on a worker is replaced in the same way. 0 is off.
# max_worker_memory = 0

# Seconds after which a worker is replaced in the same way. 0 is off.
# max_worker_age = 0

# Run in the background. The command returns once all workers are ready, or fails with the error.
# error_logfile must be a file then. Not changed by HUP.
# daemon = False

# File for the master's process id, locked as long as it runs. Not changed by HUP. Default: none.
# pid = None

# Name of the processes in ps and top; 15 bytes with the role. Not changed by HUP.
# name = "preforksmtp"

# After USR2: the new program tells the old one to stop once it is ready, or leaves that to you.
# Not changed by HUP.
# upgrade = "auto"

# User that workers run as, a name or a number; the master stays root, to bind low ports and to
# read keys. Its group and supplementary groups go with it. Default: the user who starts it.
# user = None

# Group that workers run as, a name or a number. Default: the user's own.
# group = None

# Permissions that files made by workers do not get, octal.
# umask = "077"

# With user or group: programs that workers start gain no privileges by set-user-ID or set-group-
# ID, and on Linux 6.12 workers signal none but themselves and what they start. Turn it off for an
# application that runs such a program, Postfix' sendmail for one.
# no_new_privileges = True

# Folder to change to before the application is loaded; relative names of files start from it.
# Default: the current folder.
# chdir = None

# Environment variable to set before the application is loaded; may be repeated.
# env = {}

# Folders put in front of Python's import path, separated by commas.
# pythonpath = []

# Load the application once, in the master and with its privileges (root's, with user), before it
# forks: workers share that memory and are ready sooner. HUP is then an upgrade, as USR2 is. start
# and stop of a Handler are still called in each worker. Not changed by HUP.
# preload = False

# For development: do what HUP does whenever a source file of the application, the config file or
# one of reload_extra_file changes. A file that does not compile changes nothing. Not changed by
# HUP.
# reload = False

# Further files for reload to watch, as a pattern (templates/*.txt, data/**); may be repeated.
# reload_extra_file = []


# --- SMTP

# The name in the greeting and in Received: a domain or an address literal (RFC 5321 section
# 4.1.2). Per bind. Default: this machine's full name.
# hostname = None

# Addresses, names in EHLO and parameters to take: 'lenient' is what real clients send, as in the
# README; 'strict' the grammar and the lengths of RFC 5321 section 4.1.2 and 4.5.3.1. Per bind.
# address_syntax = "lenient"

# Largest message in bytes, 32M or 1 GiB (SIZE, RFC 1870); 0 is no limit. Per bind.
# max_message_size = 33554432

# Most recipients of one message; RFC 5321 section 4.5.3.1.8 asks for at least 100. Per bind.
# max_recipients = 1000

# Most domains among the recipients of one message (RFC 9422); 0 is no limit. Per bind.
# max_recipient_domains = 0

# Longest line of a message in bytes, with its CRLF; RFC 5321 section 4.5.3.1.6 has 1000, but
# clients send longer; 0 is no limit. Per bind.
# max_line_length = 0

# Seconds to wait for the next command, all of its line (RFC 5321 section 4.5.3.2.7). Per bind.
# command_timeout = 300

# Seconds to wait for the next block of a message, 1 KiB (RFC 5321 section 4.5.3.2.5). Per bind.
# data_timeout = 180

# Seconds a TLS handshake may take; at most 10 of them for its first message, the ClientHello. Per
# bind.
# handshake_timeout = 30

# Most seconds a whole session may take; 0 is no limit. Per bind.
# session_timeout = 0

# Bad commands after which a session is ended with 421. Recipients that are refused are none. Per
# bind.
# max_errors = 10

# Peers that must send a PROXY protocol header, version 1 or 2, as networks; 'unix' for clients of
# a unix socket. Others are served as they are. Per bind. Default: nobody.
# proxy_protocol = []

# Peers trusted to say whom they speak for with XCLIENT, as networks; 'unix' for clients of a unix
# socket. Per bind. Default: nobody.
# xclient = []

# Peers trusted to name a message's client with XFORWARD, as networks; 'unix' for clients of a
# unix socket. Per bind. Default: nobody.
# xforward = []

# Accept mail over TLS only: 530 until STARTTLS (RFC 3207 4). Per bind.
# require_tls = False

# Accept mail from authenticated clients only: 530 until AUTH (RFC 4954 6). Per bind.
# require_auth = False

# SASL mechanisms to offer of those the application's methods allow (RFC 4954). Per bind. Default:
# all of them.
# auth_mechanisms = []

# When SCRAM is offered with -PLUS, bound to the TLS connection: 'auto' where usual clients can do
# it (TLS 1.2; 1.3 if this Python has tls-exporter); 'always' also where there is only tls-server-
# end-point, at which many give up. Per bind.
# channel_binding = "auto"

# File with a random secret of at least 16 bytes, the same on all hosts that know the same users:
# of it are made the SCRAM salts of users who are not there, which must last as others do.
# Default: the machine's id; where it has none, the private key.
# auth_secret_file = None

# Offer AUTH without TLS, so that passwords may cross the network in clear (RFC 4954 4). Per bind.
# allow_insecure_auth = False

# Failed AUTH commands after which a session is ended with 421; 0 is no limit. Per bind.
# max_auth_failures = 3

# Seconds between the client's last line and the reply to each failed AUTH. Per bind.
# auth_failure_delay = 1

# Bytes of a message held in memory; a larger one is written to a temporary file. Per bind.
# spool_threshold = 1048576

# Folder for temporary files of large messages. Per bind. Default: $TMPDIR or /tmp.
# spool_dir = None

# A CR or LF alone in a message: reject it with 550 after the end of data, or keep it as content
# (RFC 5321 section 2.3.8). Per bind.
# bare_newlines = "reject"

# A message that is sent right behind DATA, without waiting for 354 (RFC 2920 section 3.1): reject
# it with 554 and close the connection, or take it. Per bind.
# pipelined_body = "reject"


# --- Limits

# Refuse MAIL with 452 while less is free where bodies are spooled (spool_dir), or where the
# application stores them as far as it says so. 0 is off.
# min_free_space = 16777216

# Most sessions at once in all workers; one more is told 421 4.3.2. 0 is no limit but threads.
# max_connections = 0

# When all threads of all workers are busy, tell new clients 421 4.3.2 instead of letting them
# wait in the kernel's queue; it keeps one thread for that.
# busy_reply = False

# Most sessions at once of one client, over all workers: 421 4.7.0. 0 is no limit. Per bind.
# max_connections_per_ip = 0

# Most connections of one client per minute, over all workers: 421 4.7.0. 0 is no limit. Per bind.
# max_connection_rate = 0

# Most messages (MAIL commands) of one client per minute, over all workers: 450 4.7.1. 0 is no
# limit. Per bind.
# max_message_rate = 0

# Most recipients (RCPT commands) of one client per minute, over all workers: 450 4.7.1. 0 is no
# limit. Per bind.
# max_recipient_rate = 0

# Most failed AUTH commands of one client per minute, over all workers: 454 4.7.0, without asking
# the application. Attempts under way count until they succeed, and more than that wait for their
# turn. 0 is no limit. Per bind.
# max_auth_failure_rate = 60

# Refuse a message after so many workers died with one of the same client and envelope in the
# handler: 451 4.3.0 before its body, for an hour after the last one, to trusted clients too. 0 is
# no limit. Per bind.
# poison_limit = 0

# Bits of an IPv4 address that make one client.
# client_prefix_v4 = 32

# Bits of an IPv6 address that make one client: a host has a whole /64 to choose from.
# client_prefix_v6 = 64

# Clients that no limit of this section applies to, as networks; 'unix' for clients of a unix
# socket, which have no limits as addresses in any case. Per bind. Default: nobody.
# trusted_clients = []

# Most messages (MAIL commands) of one session: 421 4.7.0; announced as MAILMAX (RFC 9422). 0 is
# no limit. Per bind.
# max_messages = 0

# Most recipients of one session that are refused for good (5xx to RCPT), as dictionary attacks
# make them: 421 4.7.0. 0 is no limit. Per bind.
# max_refused_recipients = 0

# Most commands that bring no message nearer, between two messages: all that are refused,
# recipients and messages too; NOOP, RSET, VRFY, EXPN, ETRN, HELP, AUTH, XCLIENT, XFORWARD, EHLO
# again, BDAT 0: 421 4.7.0. 0 is no limit. Per bind.
# max_idle_commands = 1000

# Fewest bytes per second of a message, on average over all of it: 421 4.4.2. Only waiting for the
# client counts. 0 is no limit. Per bind.
# min_data_rate = 0

# Seconds a message may take before min_data_rate is looked at. Per bind.
# min_data_rate_grace = 10

# Seconds to wait before the greeting; a client that speaks first is no mail server: 554 5.5.1. 0
# is off. Per bind.
# greeting_delay = 0

# Seconds by which each refusal of a command is delayed, from the fourth since the last message. 0
# is off. Per bind.
# error_delay = 0

# Share of all threads that are busy, 0.9 or 90%, from which on the stress_ timeouts apply. 0 is
# off.
# stress_threshold = 0

# Seconds to wait under stress for the next command, for a PROXY header, a TLS handshake, or until
# a client reads what it was sent. Per bind.
# stress_command_timeout = 10

# Seconds to wait for the next block of a message under stress. Per bind.
# stress_data_timeout = 10

# Look up the name of each client's address before the greeting, confirmed by the address of that
# name, for Received, and session.reverse_dns. Per bind.
# reverse_dns = False

# Seconds to wait for that name. Per bind.
# reverse_dns_timeout = 1.5


# --- TLS

# Certificate of the server and its chain, PEM; it turns on STARTTLS (RFC 3207). Per bind.
# certfile = None

# Private key of the certificate, PEM. Per bind. Default: in certfile.
# keyfile = None

# File whose first line is the password of the private key. Per bind.
# keyfile_password_file = None

# Certificate and key for clients that ask for NAME, mx.example.org or *.example.org; may be
# repeated. Other names get certfile. Per bind.
# sni = {}

# Certificates of the authorities, PEM, that clients' certificates are checked against. Per bind.
# ca_certs = None

# Whether a client is asked for a certificate. Per bind.
# cert_reqs = "none"

# Ciphers for TLS 1.2, in OpenSSL's notation. Per bind. Default: Python's own choice.
# ciphers = None

# Oldest version of TLS to accept (RFC 8996). Per bind.
# tls_min_version = "1.2"


# --- Logs

# File of the error log; '-' is standard error.
# error_logfile = "-"

# File of the access log, one line for each message; '-' is standard output. Default: off.
# access_logfile = None

# Format of the access log; its atoms are listed at the end of --help.
# access_logformat = (
#     '%(t)s session=%(i)s message=%(q)s peer=[%(h)s]:%(hp)s helo=%(l)s user=%(u)s from=<%(f)s> '
#     'to=%(rcpt)s nrcpt=%(n)s size=%(b)s reply="%(s)s %(e)s %(m)s" time=%(L)s tls=%(tls)s'
# )

# Also write a line to the access log when a session ends: its client, how often each command was
# given and refused, messages, octets, seconds, and why it ended.
# access_log_sessions = False

# Write a line to the error log for each client, sender and recipient that is refused, with the
# reply: what fail2ban reads (conf/fail2ban).
# log_refusals = True

# Lines of text, or one JSON object a line, for both logs.
# log_format = "text"

# Least severe messages that reach the error log.
# log_level = "info"

# File of Python's logging.config: JSON for dictConfig if it ends in .json, else for fileConfig.
# What it makes of the logger preforksmtp is the error log; error_logfile has stacks of hanging
# workers only. Default: off.
# log_config = None

# Send the lines of the error log and of the access log to syslog as well.
# log_syslog = False

# Where syslog is: unix:///path, udp://host:port or tcp://host:port. Default: unix:///dev/log;
# udp://127.0.0.1:514 where there is none.
# log_syslog_to = None

# The program's name in syslog. Default: as name.
# log_syslog_prefix = None

# Facility in syslog.
# log_syslog_facility = "mail"

# File of the transcript: all that clients and server say, without passwords, tokens and the
# content of messages; '-' is standard output. Default: off.
# transcript = None


# --- Observation

# Address, HOST:PORT or unix:/path?mode=660, where a process of its own serves HTTP: /metrics
# (Prometheus), /livez, /readyz, /stats (JSON), and a status page at /. Anybody who reaches it may
# read. Not changed by HUP. Default: off.
# status_bind = None

# Unix socket for preforksmtpctl; only its owner and root may use it. Not changed by HUP. Default:
# off.
# control_socket = None

# statsd server, HOST:PORT or unix:/path, which is sent once a second what has changed. Default:
# off.
# statsd_host = None

# What names in statsd begin with, before a dot.
# statsd_prefix = "preforksmtp"

# Tags for DogStatsD, on every metric. Default: none.
# dogstatsd_tags = None


# --- Hooks: functions that the server calls; see README.md

# The master begins; nothing is forked yet. Raising ends the start.
# def on_starting(server):
#     ...

# All workers of the first generation are ready.
# def when_ready(server):
#     ...

# A reload has read the new configuration; its first worker is next.
# def on_reload(server):
#     ...

# A worker is about to be forked.
# def pre_fork(server, worker):
#     ...

# The worker begins, before the application is loaded. Raising keeps it from serving.
# def post_fork(server, worker):
#     ...

# The application is loaded. Raising keeps the worker from serving.
# def post_worker_init(worker):
#     ...

# The worker was told to leave at once (QUIT, INT).
# def worker_int(worker):
#     ...

# The worker gets ABRT, after timeout or at the end of graceful_timeout; the stacks are in the log
# already. It cannot run while C code holds the interpreter.
# def worker_abort(worker):
#     ...

# The worker leaves; not if it is killed.
# def worker_exit(server, worker):
#     ...

# A worker is gone, however it ended: worker.status is as from waitpid.
# def child_exit(server, worker):
#     ...

# Another number of workers is wanted; old_value is None at the start.
# def nworkers_changed(server, new_value, old_value):
#     ...

# An upgrade (USR2): in the new process, just before exec.
# def pre_exec(server):
#     ...

# The last worker is gone; the master leaves.
# def on_exit(server):
#     ...

# Returns the TLS context of a bind: that of default_ssl_context_factory(), changed, or another
# ssl.SSLContext. Raising ends the start or the reload.
# def ssl_context(config, default_ssl_context_factory):
#     ...
