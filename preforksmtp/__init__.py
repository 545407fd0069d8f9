"""preforksmtp: a pre-fork SMTP server. What an application imports."""

from .smtp.handler import Handler
from .smtp.reply import Reject, Reply
from .smtp.session import Session
from .smtp.transaction import Message

__version__ = "0.1.0"

__all__ = ["Handler", "Message", "Reject", "Reply", "Session", "__version__"]
