"""Observation: what goes on in the server, for people and for programs, and the orders of an operator.

The status process (metrics, health, status page, statsd) reads the scoreboard and nothing else; the control socket is
the master's, and preforksmtpctl speaks to it. Imports prefork/ and the standard library; composed by the root.
"""
