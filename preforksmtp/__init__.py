"""preforksmtp: a pre-fork SMTP server. What an application imports."""

from .mime.attachment import Attachment
from .smtp.address import quote_address
from .smtp.handler import Handler
from .smtp.message import Message
from .smtp.reply import Reject, Reply
from .smtp.scram import ScramSecret
from .smtp.session import Session

__version__ = "0.1.0"

__all__ = [
    "Attachment", "Handler", "Message", "Reject", "Reply", "ScramSecret", "Session", "__version__", "quote_address",
]  # fmt: skip
