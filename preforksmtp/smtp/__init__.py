"""The protocol room: bytes and RFCs. Commands, replies, addresses, bodies, the dialogue of one session.

Imports only itself and the standard library without `socket`, `ssl` and `os.fork`.
Called by `preforksmtp.connection.service`, which hands a session its wire and its handler.
"""
