"""Ready-made handlers, one a file, each to be used as it is, or copied and changed.

    preforksmtp "preforksmtp.handlers:Maildir('/var/mail/incoming')"

They import the public names of preforksmtp only, as a user's own handler does. What they raise is answered by
the session: Reject as it says, any other exception with 451 and a traceback in the error log.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preforksmtp.handlers.discard import Discard
    from preforksmtp.handlers.forward.relay import Forward
    from preforksmtp.handlers.maildir import Maildir
    from preforksmtp.handlers.mbox import Mbox
    from preforksmtp.handlers.pipe import Pipe
    from preforksmtp.handlers.print import Print
    from preforksmtp.handlers.webhook import Webhook

__all__ = ["Discard", "Forward", "Maildir", "Mbox", "Pipe", "Print", "Webhook"]


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: all of them are 1.5 MB in each worker, and 15 ms of its start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)


def __dir__() -> list[str]:
    return __all__
