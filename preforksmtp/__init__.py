"""preforksmtp: a pre-fork SMTP server. What an application imports."""

from .smtp.address import quote_address
from .smtp.handler import Handler
from .smtp.reply import Reject, Reply
from .smtp.scram import ScramSecret
from .smtp.session import Session
from .smtp.transaction import Message

__version__ = "0.1.0"

__all__ = ["Handler", "Message", "Reject", "Reply", "ScramSecret", "Session", "__version__", "quote_address"]
