"""The applications of the dialogues. What they get is printed as one line, for the dialogues' M: lines."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

from preforksmtp import Handler, Message, Reject, Reply

got: list[str] = []


def show(octets: bytes) -> str:
    return octets.decode("latin-1").encode("unicode_escape").decode("ascii")


def note(message: Message, content: bytes) -> None:
    line = f"{message.sender} -> {','.join(message.recipients)}: {show(content)}"
    got.append(line)
    sys.stdout.write(f"GOT {line}\n")
    sys.stdout.flush()


def collect(message: Message) -> None:
    note(message, message.content)


class Policy(Handler):
    """Refuses by name; answers with what the name says."""

    extensions = {"DELIVERBY": 60, "MT-PRIORITY": None, "RRVS": None, "PRDR": None, "FUTURERELEASE": 3600}

    def helo(self, name: str) -> None:
        if name == "liar.example":
            raise Reject(550, "5.7.1 You are not liar.example")

    def mail(self, sender: str, params: dict[str, Any]) -> None:
        if sender.startswith("spam"):
            raise Reject(550, "5.7.1 No thanks")

    def rcpt(self, recipient: str, params: dict[str, Any]) -> Reply | str | None:
        if recipient.startswith("nobody"):
            raise Reject(550, "5.1.1 No such user")
        if recipient.startswith("crash"):
            raise RuntimeError("on purpose")
        if recipient.startswith("moved"):
            return Reply(251, "2.1.5 Will forward")
        return None

    def message(self, message: Message) -> Reply | str | None:
        if b"virus" in message.content:
            raise Reject(554, "5.7.1 Infected")
        if b"crash" in message.content:
            raise RuntimeError("on purpose")
        if b"forge" in message.content:
            return "ok\r\n250 forged"
        for recipient in message.recipients:
            if recipient.startswith("full"):
                message.reject(recipient, Reply(452, "4.2.2 Mailbox full"))
        note(message, message.content)
        return "Thank you" if b"thank" in message.content else None

    def verify(self, argument: str) -> Reply | str | None:
        return Reply(250, "2.1.5 <alice@example.com>") if argument == "alice" else None

    def expand(self, argument: str) -> Reply | str | None:
        return Reply(250, ["2.1.5 <a@example.com>", "<b@example.com>"])

    def etrn(self, argument: str) -> str | None:
        return "Queuing for " + argument


class Streaming(Handler):
    def stream(self, message: Message, body: BinaryIO) -> str:
        content = b""
        for block in body:
            content += block
            if b"refuse" in content:
                raise Reject(550, "5.7.1 Refused while it came")
        note(message, content)
        return "streamed"


class Login(Handler):
    def authenticate(self, username: str, password: str) -> bool:
        return (username, password) == ("bob", "secret")

    def message(self, message: Message) -> None:
        note(message, f"{message.session.user}".encode())


class Closed(Handler):
    def connect(self) -> None:
        raise Reject(554, "5.7.1 Not today")

    def message(self, message: Message) -> None:
        note(message, b"")


class Busy(Handler):
    def connect(self) -> None:
        raise Reject(421, "4.3.2 Come back later")

    def message(self, message: Message) -> None:
        note(message, b"")
