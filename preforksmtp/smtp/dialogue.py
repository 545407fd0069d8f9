"""The dialogue of one session: read a command, look it up in VERBS, answer it.

Faults of the connection end it (see smtp/wire.py). What is known of the client, and what commands do with it, is
smtp/conversation.py.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from preforksmtp.smtp import command, reply
from preforksmtp.smtp.conversation import Conversation, missing
from preforksmtp.smtp.pace import Overdue
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.session import Ended
from preforksmtp.smtp.verbs import VERBS

_LINE_OCTETS = command.AUTH_LINE_OCTETS  # the longest of any verb; each has its own limit


class Dialogue(Conversation):
    """One session from greeting to goodbye. `run` returns when it is over; the caller closes the connection."""

    __slots__ = ()

    def run(self) -> None:
        """Serve the session to its end. Raises EOFError or OSError where the connection failed."""
        try:
            self._converse()
            if self.limits is not None:
                self.limits.leave()  # before the client reads that it is over: it may come back at once
            self.wire.flush()  # before the handler's close, which may take its time
        finally:
            if self.hooks.close and self.handler is not None:
                self._close()

    def _converse(self) -> None:
        """From the greeting to the last reply, which is written but not yet sent."""
        try:
            if self.rules.greeting_delay:
                self._listen()
            self._greet()
            self._serve()
        except InterruptedError:
            self.journal.told()
            self.quit = self.wire.take_line().strip().upper() == b"QUIT"
            self.wire.write((reply.CLOSING if self.quit else reply.SHUTTING_DOWN).wire)
        except Overdue as slow:
            self.journal.timed_out(self.session, slow.limit)
            self.wire.write(slow.reply.wire)
        except TimeoutError as late:
            expired = self.wire.expired
            self.journal.timed_out(self.session, "session_timeout" if expired else str(late))
            self.wire.write((reply.SESSION_TIMED_OUT if expired else reply.TIMED_OUT).wire)
        except Ended:
            pass

    def _listen(self) -> None:
        """Wait before the greeting: a client that does not is no mail server (RFC 5321 section 3.1)."""
        if self.wire.wait(self.rules.greeting_delay):
            if self.wire.draining:
                raise InterruptedError
            self.wire.read_block(1024)  # raises EOFError where it has only left
            self.journal.ended(self.session, "spoke before the greeting (greeting_delay)")
            self.end(reply.EARLY_TALKER)
        if self.wire.expired:
            raise TimeoutError

    def _greet(self) -> None:
        greeting = self._welcome()
        if greeting.code == 421:
            self.end(greeting)
        if self.refused:
            self.journal.refused(self.session, "CONNECT", greeting)
        self.wire.write(greeting.wire)

    def _serve(self) -> None:
        """Command by command, until Ended or a fault of the connection is raised."""
        wire, needed = self.wire, self._needs
        read_line, write, decode = wire.read_line, wire.write, self.rules.syntax.decode
        find = self.journal.commands(VERBS).get
        needs = 0  # of what is no command at all: those of the one before, it matters little (max_errors)
        name = argument = ""
        while True:
            try:
                line = read_line(_LINE_OCTETS, self.transaction is None)
                if line is None:
                    raise Reject(reply.LINE_TOO_LONG)
                text = decode(line)
                name, _, argument = text.partition(" ")
                verb = find(name) or find(command.verb(name))
                if verb is None or self.refused or len(line) > verb.octets:
                    verb = self._exceptional(command.verb(name), line, text)
                needs = verb.needs & needed
                if needs:
                    missing(self, needs, argument)
                answer = verb.run(self, argument)
            except Reject as refusal:
                answer = refusal.reply
            if answer is not None:
                if answer.code >= 400:
                    self.answer(answer, needs, name, argument)
                else:
                    write(answer.wire)

    def execute(self, name: str, argument: str, line: bytes, allowed: Container[str]) -> None:
        """Run one command that read_command returned, if it is `allowed`."""
        needs = 0
        try:
            verb = VERBS.get(name)
            if verb is None or len(line) > verb.octets:
                verb = self._exceptional(name, line, self.rules.syntax.decode(line))
            if name not in allowed:
                raise Reject(reply.CHUNKS_OPEN)
            needs = verb.needs & self._needs
            missing(self, needs, argument)
            answer = verb.run(self, argument)
        except Reject as refusal:
            answer = refusal.reply
        if answer is not None:
            self.answer(answer, needs, name, argument)

    def _exceptional(self, name: str, line: bytes, text: str) -> Any:
        """What to do with a command that is unknown, too long, or comes after the session was refused."""
        verb = VERBS.get(name)
        if verb is None:
            if command.CROSS_PROTOCOL.match(text):
                self.journal.ended(self.session, "speaks another protocol than SMTP")
                self.end(reply.CROSS_PROTOCOL)
            raise Reject(reply.UNRECOGNIZED)
        if len(line) > verb.octets:
            raise Reject(reply.LINE_TOO_LONG)
        if name != "QUIT":
            raise Reject(reply.REFUSED_SESSION)
        return verb
