"""Processes and signals: the master, its workers and their session threads, the scoreboard they share.
Imports the standard library only; knows nothing of SMTP or TLS.
Called by cli.py, which hands it bound sockets and a callable that boots the app in each worker."""
