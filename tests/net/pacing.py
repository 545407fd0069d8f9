"""A pace for wires under test: everything may take so long."""

from __future__ import annotations

from preforksmtp.smtp.pace import Allowance, Pace


def within(seconds: float) -> Pace:
    pace = Pace(seconds, seconds, seconds, 0.0, 0.0, None)
    pace.header = pace.hello = pace.replies = Allowance(seconds, 0.0, "", None)
    return pace
