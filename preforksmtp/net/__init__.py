"""The network room: bind addresses, listening sockets, TLS contexts and handshakes, PROXY headers and the Wire.

Imports the standard library only, never smtp/ or prefork/. Called by cli.py (open_listeners, server_context)
and service.py (Wire). Mistakes of a user surface as ValueError, ListenError or TLSError with one clear line.
"""
