"""Ready-made handlers, one a file, each small enough to copy and change.

    preforksmtp "preforksmtp.handlers:Maildir('/var/mail/incoming')"

They import the public names of preforksmtp only, as a user's own handler does. What they raise is answered by
the session: Reject as it says, any other exception with 451 and a traceback in the error log.
"""

from preforksmtp.handlers.discard import Discard
from preforksmtp.handlers.maildir import Maildir
from preforksmtp.handlers.print import Print

__all__ = ["Discard", "Maildir", "Print"]
