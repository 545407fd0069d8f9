"""Forward: one handler that passes each transaction on to the next hop."""

from preforksmtp.handlers.forward.relay import Forward

__all__ = ["Forward"]
