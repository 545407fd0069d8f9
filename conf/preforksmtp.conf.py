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

# Worker processes; 'auto' is one for each CPU this process may use.
# workers = 1

# Most sessions at once in each worker, one thread each.
# threads = 100

# Most connections waiting in the kernel to be accepted, for each listener.
# backlog = 2048

# Seconds without a heartbeat after which a worker is killed and replaced.
# timeout = 30

# Seconds a new worker may take to load the application and get ready.
# boot_timeout = 60

# Seconds that open transactions may take to finish when a worker is asked to stop; then it is
# killed.
# graceful_timeout = 30

# Folder to change to before the application is loaded; relative names of files start from it.
# Default: the current folder.
# chdir = None

# Environment variable to set before the application is loaded; may be repeated.
# env = {}

# Folders put in front of Python's import path, separated by commas.
# pythonpath = []


# --- SMTP

# The name in the greeting and in Received: a domain or an address literal (RFC 5321 4.1.2). Per
# bind. Default: this machine's full name.
# hostname = None

# Largest message in bytes, 32M or 1 GiB (SIZE, RFC 1870); 0 is no limit. Per bind.
# max_message_size = 33554432

# Most recipients of one message; RFC 5321 4.5.3.1.8 asks for at least 100. Per bind.
# max_recipients = 1000

# Longest line of a message in bytes, with its CRLF; RFC 5321 4.5.3.1.6 has 1000, but clients send
# longer; 0 is no limit. Per bind.
# max_line_length = 0

# Seconds to wait for the next command (RFC 5321 4.5.3.2.7). Per bind.
# command_timeout = 300

# Seconds to wait for the next block of a message (RFC 5321 4.5.3.2.5). Per bind.
# data_timeout = 180

# Most seconds a whole session may take; 0 is no limit. Per bind.
# session_timeout = 0

# Bad commands after which a session is ended with 421. Per bind.
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

# Offer AUTH without TLS, so that passwords may cross the network in clear (RFC 4954 4). Per bind.
# allow_insecure_auth = False

# Bytes of a message held in memory; a larger one is written to a temporary file. Per bind.
# spool_threshold = 1048576

# Folder for temporary files of large messages. Per bind. Default: $TMPDIR or /tmp.
# spool_dir = None

# A CR or LF alone in a message: reject it with 550 after the end of data, or keep it as content
# (RFC 5321 2.3.8). Per bind.
# bare_newlines = "reject"


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

# Lines of text, or one JSON object a line, for both logs.
# log_format = "text"

# Least severe messages that reach the error log.
# log_level = "info"
