"""What is in a message: header fields, character sets, structure, attachments, text (RFC 5322, 2045-2047, 2231).

Knows octets and the standard library, no SMTP. Nothing here raises for what a sender has written, and the cost grows
with the octets read, never faster: a message that was accepted can be read. The email package reads messages by rules
of the same RFCs, but CPython 3.10 to 3.13 raises for some messages, takes time that grows with the square for others,
and memory many times the size; so it is asked for the classes here, and for writing, not for reading.
"""
