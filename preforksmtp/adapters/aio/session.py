"""Adapter: one session of a handler written for aiosmtpd; our hooks on top, its hooks below.

It knows when envelope and session are new; which hook stands for which is the table in adapters/aio/hooks.py. The Host
(adapters/aio/host.py) calls the hooks; what they raise passes through here to the session, or has become a Reply.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from preforksmtp import Handler, Message, Reject, Reply
from preforksmtp.adapters.aio.hooks import MECHANISMS
from preforksmtp.adapters.aio.host import Host
from preforksmtp.adapters.aio.objects import AioSession, Envelope, ProxyData, Server, login_password
from preforksmtp.adapters.status import NULL_SENDER, is_missing, options, plain, read_status


class Adapter(Handler):
    """One session of the foreign handler. `aio`, `envelope` and `server` are what its hooks are given."""

    host: Host

    @classmethod
    def start(cls, worker: Any) -> None:
        cls.host.start(worker)

    @classmethod
    def stop(cls, worker: Any) -> None:
        cls.host.stop()

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        loop = self.host.loop().loop
        self.server = Server(session, lambda: (self.aio, self.envelope), self.host.handler, loop)
        self.aio = AioSession(session, loop, self.host.greets)
        self.envelope = Envelope()
        self._tls = session.tls
        self._secure = True
        self._open = False  # a transaction, as far as we have heard

    def connect(self) -> None:
        if self.session.proxy is None:
            return
        self.aio.proxy_data = ProxyData(self.session)
        handler = self.host.handler
        if not self.host.call(handler.handle_PROXY, self.server, self.aio, self.envelope, self.aio.proxy_data):
            raise Reject(421, "4.7.0 Connection refused")  # aiosmtpd closes it without a word

    def helo(self, name: str) -> None:
        self._notice_tls()
        before, self.envelope = self.envelope, Envelope()
        answer = self._greet(name)
        if answer is not None and not answer.positive:
            self.envelope = before  # the open transaction goes on
            raise Reject(answer)

    def _greet(self, name: str) -> Reply | None:
        answer = self._ask_greeting(name)
        if answer is None:
            self.aio.host_name = name
        return answer

    def _ask_greeting(self, name: str) -> Reply | None:
        hook = "EHLO" if self.session.esmtp else "HELO"
        if hook not in self.host.hooks:
            return None
        function, facts = getattr(self.host.handler, f"handle_{hook}"), (self.server, self.aio, self.envelope)
        if hook == "HELO" or self.host.old_ehlo:
            return self.host.ask(function, *facts, name)
        keywords = [f"250-{self.session.hostname}", "250-8BITMIME", "250-SMTPUTF8", "250 HELP"]
        return self.host.ask(function, *facts, name, keywords)

    def mail(self, sender: str, params: dict[str, Any]) -> Reply | None:
        self._notice_tls()
        if not self.aio.host_name:  # the hook of HELO or EHLO has not set it: not greeted, as aiosmtpd sees it
            raise Reject(503, "5.5.1 Error: send HELO first")
        if self._open:  # it ended without us: the body was refused
            self.envelope = Envelope()
        answer = None
        if "MAIL" in self.host.hooks:
            self.envelope.smtp_utf8 = "SMTPUTF8" in params
            answer = self._ask("MAIL", sender or NULL_SENDER, options(params))
        if answer is None:
            self._set_sender(sender, params)
        self._open = answer is None or answer.positive
        return answer

    def rcpt(self, recipient: str, params: dict[str, Any]) -> Reply | None:
        if not self.envelope.mail_from:
            raise Reject(503, "5.5.1 Error: need MAIL command")
        answer = self._ask("RCPT", str(recipient), options(params)) if "RCPT" in self.host.hooks else None
        if answer is None:
            self._add_recipients([(recipient, params)])
        return answer

    def data(self) -> None:
        if not self.envelope.rcpt_tos:  # handle_RCPT said yes, but has added none
            raise Reject(503, "5.5.1 Error: need RCPT command")

    def message(self, message: Message) -> Reply | None:
        self._notice_tls()
        envelope, host = self.envelope, self.host
        if not envelope.mail_from:
            self._set_sender(message.sender, message.params)
        if not envelope.rcpt_tos:
            self._add_recipients([(recipient, recipient.params) for recipient in message.recipients])
        envelope.original_content = content = message.content
        envelope.content = content.decode("utf-8", "surrogateescape") if host.decode_data else content
        try:
            if "DATA" in host.hooks:
                return self._ask("DATA")
            if "process_message" in host.hooks:  # the handlers of aiosmtpd before 1.0
                facts = (self.aio.peer, envelope.mail_from, envelope.rcpt_tos, envelope.content)
                return host.ask(host.handler.process_message, *facts, default="250 OK")
            return None
        finally:
            self.envelope, self._open = Envelope(), False

    def verify(self, argument: str) -> Reply | None:
        self._notice_tls()
        return self._ask("VRFY", argument[1:-1] if argument[:1] == "<" and argument[-1:] == ">" else argument)

    def reset(self) -> None:
        self.envelope, self._open = Envelope(), False
        if "RSET" in self.host.hooks:
            answer = self._ask("RSET")
            if answer is not None and not answer.positive:
                raise Reject(answer)

    def authenticate(self, username: str, password: str) -> bool:
        self._notice_tls()
        try:
            return self._attempt(username, password)
        except Reject:
            raise
        except Exception as error:
            if "exception" not in self.host.hooks:
                raise
            answer = self.host.ask(self.host.handler.handle_exception, error)
            if answer is None or answer.positive:  # an exception is never a yes
                return False
            raise Reject(answer) from error

    def close(self) -> None:
        self.host.call(self.host.handler.handle_QUIT, self.server, self.aio, self.envelope)

    # --- what they have in common

    def _ask(self, hook: str, *arguments: Any) -> Reply | None:
        """The hook's answer; None: it has left it to the server."""
        function = getattr(self.host.handler, f"handle_{hook}")
        return self.host.ask(function, self.server, self.aio, self.envelope, *arguments)

    def _notice_tls(self) -> None:
        """After STARTTLS all is new (RFC 3207), and its hook may find the connection not secure enough."""
        if self.session.tls is not self._tls:
            self._tls = self.session.tls
            self.aio = AioSession(self.session, self.server.loop, self.host.greets)
            self.envelope, self._open = Envelope(), False
            if "STARTTLS" in self.host.hooks:
                hook = self.host.handler.handle_STARTTLS
                self._secure = bool(self.host.call(hook, self.server, self.aio, self.envelope))
        if not self._secure:
            raise Reject(554, "5.7.0 Command refused due to lack of security")

    def _set_sender(self, sender: str, params: dict[str, Any]) -> None:
        self.envelope.mail_from = sender or NULL_SENDER
        self.envelope.mail_options.extend(options(params))
        self.envelope.smtp_utf8 = "SMTPUTF8" in params

    def _add_recipients(self, recipients: list[tuple[str, dict[str, Any]]]) -> None:
        self.envelope.rcpt_tos.extend(plain(recipient for recipient, _ in recipients))
        for _, params in recipients:
            self.envelope.rcpt_options.extend(options(params))

    def _attempt(self, username: str, password: str) -> bool:
        """The handler's own way first, as in aiosmtpd: handle_AUTH, auth_PLAIN or auth_LOGIN, authenticator."""
        host, facts = self.host, (self.server, self.aio, self.envelope)
        login = login_password(username, password)
        response = b64encode(b"\0" + login.login + b"\0" + login.password).decode()
        if "AUTH" in host.hooks:
            status = host.call(host.handler.handle_AUTH, *facts, ["PLAIN", response])
            if not is_missing(status):
                return status is not None and self._granted(read_status(status), login)
        own = next((name for name in MECHANISMS if name in host.auth_methods), "")
        if own:
            self.server.responses = [login.password] if own == "LOGIN" else []
            given = response if own == "PLAIN" else b64encode(login.login).decode()
            result = host.call(getattr(host.handler, host.auth_methods[own]), self.server, [own, given])
            if not hasattr(result, "success"):  # the identity, as aiosmtpd before 1.3 had it
                return self._grant(not (result is None or result is False or is_missing(result)), login, result)
        elif host.authenticator is not None:
            result = host.call(host.authenticator, *facts, "PLAIN", login)
        elif host.auth_callback is not None:
            return self._grant(bool(host.call(host.auth_callback, "PLAIN", *login)), login, login.login)
        else:
            return False
        if getattr(result, "success", False) is True:
            data = getattr(result, "auth_data", None)
            return self._grant(True, data, getattr(data, "login", None))
        message = getattr(result, "message", None)
        if message and not getattr(result, "handled", True):
            return self._granted(read_status(message), login)
        return False

    def _granted(self, answer: Reply, login: Any) -> bool:
        """Of a status: 235 alone lets in."""
        if not answer.positive:
            raise Reject(answer)
        return self._grant(answer.code == 235, login, login.login)

    def _grant(self, right: bool, auth_data: Any, login_data: Any) -> bool:
        if right:
            self.aio.authenticated, self.aio.auth_data, self.aio.login_data = True, auth_data, login_data
        return right
