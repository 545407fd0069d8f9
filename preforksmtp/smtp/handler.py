"""The Handler base class: the contract that users subclass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from preforksmtp.smtp.scram import ITERATIONS, SALT_OCTETS

if TYPE_CHECKING:
    from preforksmtp.smtp.message import Message
    from preforksmtp.smtp.reply import Reply
    from preforksmtp.smtp.scram import ScramSecret
    from preforksmtp.smtp.session import Session
    from preforksmtp.smtp.transaction import Recipient


class Handler:
    """Subclass it and override what you need. One instance serves one session, so its attributes need no lock.

    Every method may block. Any may raise Reject(code, text) to refuse; any other exception is answered
    `451 4.3.0`, logged with its traceback, and the session goes on. Methods that answer a command may return
    None (the standard reply), a str (the text of the standard reply) or a Reply.
    """

    session: Session
    # Extensions of the mail's envelope that this handler honours, beyond those every handler has: some of
    # MT-PRIORITY, DELIVERBY, FUTURERELEASE, RRVS and PRDR; as a mapping {"FUTURERELEASE": 86400} with their values.
    extensions: Iterable[str] | Mapping[str, int | None] = ()
    # Folders in which messages are stored: MAIL is refused while less than min_free_space is free there.
    folders: Iterable[str] = ()
    # Of the ScramSecrets that `password` returns. Users who are not there get as many, to look like those who are.
    scram_iterations: int = ITERATIONS
    # And of their salts, for the same reason.
    scram_salt_octets: int = SALT_OCTETS

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    def start(cls, worker: Any) -> None:
        """Once in each worker process, after the fork and before the first session: open pools here."""

    @classmethod
    def stop(cls, worker: Any) -> None:
        """Once in each worker process, after its last session."""

    @classmethod
    def healthy(cls, worker: Any) -> bool:
        """Whether the application can work: asked every five seconds in each worker, in a thread of its own.

        False, an exception, or no answer within ten seconds make /readyz say 503 and new sessions hear 421 (RFC 5321
        section 3.8), until it is True again: say so where a database without which no message can be accepted is gone.
        """
        return True

    def connect(self) -> Reply | str | None:
        """A client has connected; called before the greeting. Reject with 554 or 421 (RFC 5321 section 3.1)."""

    def helo(self, name: str) -> None:
        """HELO, EHLO or LHLO gave `name` (RFC 5321 section 4.1.1.1). `session.esmtp` says whether it was HELO."""

    def authenticate(self, username: str, password: str) -> bool:
        """Whether the password is right. Overriding it offers AUTH PLAIN and LOGIN (RFC 4954)."""
        return False

    def password(self, username: str) -> str | ScramSecret | None:
        """The password of a user, or what is stored of it (ScramSecret); None for a user who is not there.

        Overriding it offers PLAIN, LOGIN, CRAM-MD5 and SCRAM-SHA-1 and -256, over TLS 1.2 also their -PLUS. CRAM-MD5
        needs the password itself; a ScramSecret does for the SCRAM of its hash, PLAIN and LOGIN, if `authenticate` is
        not overridden as well.
        """

    def token(self, username: str, token: str) -> bool | str:
        """Whether a bearer token is right. Overriding it offers XOAUTH2 and OAUTHBEARER (RFC 7628).

        Nothing but True or an identity lets in. `username` may be "" with OAUTHBEARER: return the identity that the
        token proves then.
        """
        return False

    def certificate(self, certificate: dict[str, Any]) -> str | None:
        """The identity of a client by its verified TLS certificate, as getpeercert() gives it; None for nobody.

        Overriding it offers AUTH EXTERNAL (RFC 4422) to clients that have shown a certificate.
        """

    def mail(self, sender: str, params: dict[str, Any]) -> Reply | str | None:
        """MAIL FROM: `sender` is the reverse-path, "" for null (RFC 5321 section 4.1.1.2)."""

    def rcpt(self, recipient: Recipient, params: dict[str, Any]) -> Reply | str | None:
        """RCPT TO: `recipient` is a forward-path; Reject refuses this one only (RFC 5321 section 4.1.1.3)."""

    def data(self) -> None:
        """DATA, before the 354: the last moment to refuse without receiving the body."""

    def stream(self, message: Message, body: BinaryIO) -> Reply | str | None:
        """The body as it arrives: read `body` or iterate over its blocks; a slow reader slows the client.

        A fault (too large, bare newline, timeout, disconnect) is raised inside the loop over `body`: commit after it.
        """

    def message(self, message: Message) -> Reply | str | None:
        """The message is complete. Return once it is stored: the client then has our promise (RFC 5321 section 6.1)."""

    def verify(self, argument: str) -> Reply | str | None:
        """VRFY (RFC 5321 section 3.5). The standard reply is 252: cannot verify, will try. A str is a 250 with it."""

    def expand(self, argument: str) -> Reply | str | None:
        """EXPN: the members of a mailing list (RFC 5321 section 3.5). A str is the text of a 250, None is 502."""

    def etrn(self, argument: str) -> Reply | str | None:
        """ETRN: start delivering the mail queued for `argument` (RFC 1985). Overriding it offers ETRN."""

    def help(self, argument: str) -> Reply | str | None:
        """HELP. The standard reply lists the commands (RFC 5321 section 4.1.1.8)."""

    def reset(self) -> None:
        """An open transaction was abandoned: RSET, or EHLO, HELO and STARTTLS, which equal it."""

    def close(self) -> None:
        """The session has ended, however it ended."""
