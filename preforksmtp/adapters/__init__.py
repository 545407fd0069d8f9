"""Adapters: handlers that were written for another server run here unchanged, one kind a file.

    preforksmtp "preforksmtp.adapters:aiosmtpd('myapp:MyHandler')"      a handler of aiosmtpd
    from preforksmtp.adapters import smtpd                              instead of `import smtpd`

They import the public names of preforksmtp only. What an adapter cannot do it says at the start, in one line
(ValueError, which becomes AppError); what a foreign handler raises later is answered as its file says.
"""

from preforksmtp.adapters import smtpd
from preforksmtp.adapters.aio.factory import aiosmtpd

__all__ = ["aiosmtpd", "smtpd"]
