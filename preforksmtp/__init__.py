"""preforksmtp: a pre-fork SMTP server. What an application imports."""

from preforksmtp.mime.attachment import Attachment
from preforksmtp.smtp.address import quote_address
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.message import Message
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.scram import ScramSecret
from preforksmtp.smtp.session import Session

__version__ = "0.1.0"

__all__ = [
    "Attachment", "Handler", "Message", "Reject", "Reply", "ScramSecret", "Session", "__version__", "quote_address",
]  # fmt: skip
