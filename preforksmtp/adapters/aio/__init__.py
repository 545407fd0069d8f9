"""Handlers of aiosmtpd: what they are given, when their hooks are called, and the event loop these run in.
Imports the public names of preforksmtp only, and of the adapters their words.
Called by the adapters' `aiosmtpd`, which a user names in APP."""
