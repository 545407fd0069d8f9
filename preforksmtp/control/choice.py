"""What of an answer is to be seen, and in which order: options of `show sessions`, `show clients`, `show config`."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass
from typing import Any

# What sessions may be sorted by: the key in the answer, and whether the most comes first.
SORTS = {
    "age": ("seconds", True),
    "idle": ("idle_seconds", True),
    "bytes": ("received", True),
    "messages": ("messages", True),
    "peer": ("peer", False),
}


class Wrong(Exception):
    """One line: what is wrong with an option."""


@dataclass(frozen=True)
class Choice:
    """None and "" choose everything."""

    sort: str = ""
    peer: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    login: str = ""
    worker: str = ""
    stage: str = ""
    limit: int = 0
    changed: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Choice:
        """Raises Wrong."""
        peer = None
        if arguments.peer:
            try:
                peer = ipaddress.ip_network(arguments.peer, strict=False)
            except ValueError:
                raise Wrong(f"--peer: {arguments.peer!r} is no address or network, such as 192.0.2.0/24") from None
        if arguments.limit < 0:
            raise Wrong("--limit: write a number of lines")
        return cls(
            arguments.sort or "", peer, arguments.login or "", arguments.worker or "", arguments.stage or "",
            arguments.limit, arguments.changed,
        )  # fmt: skip

    def apply(self, order: str, result: Any) -> Any:
        """What is left of an answer."""
        if order == "show config" and self.changed:
            return [row for row in result if row["origin"] != "default"]
        if order == "show sessions":
            return {**result, "sessions": self.sessions(result["sessions"])}
        if order == "show clients" and self.limit:
            return result[: self.limit]
        return result

    def sessions(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Lines that are no session (faults, what was left out) stay."""
        chosen = [line for line in lines if "session" in line and self._wants(line)]
        if self.sort:
            key, most_first = SORTS[self.sort]
            chosen.sort(key=lambda line: line.get(key) or ("" if key == "peer" else 0), reverse=most_first)
        return chosen[: self.limit or None] + [line for line in lines if "session" not in line]

    def _wants(self, line: dict[str, Any]) -> bool:
        return (
            (not self.login or line.get("user") == self.login)
            and (not self.worker or str(line.get("worker")) == self.worker)
            and (not self.stage or line.get("stage") == self.stage)
            and (self.peer is None or self._is_peer(str(line.get("peer", ""))))
        )

    def _is_peer(self, text: str) -> bool:
        host = text.rpartition(":")[0].strip("[]") or text
        try:
            return self.peer is not None and ipaddress.ip_address(host.partition("%")[0]) in self.peer
        except ValueError:  # a unix socket
            return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sort", choices=SORTS, help="show sessions: what comes first")
    parser.add_argument("--peer", metavar="NETWORK", help="show sessions: of these clients only")
    parser.add_argument("--login", metavar="USER", help="show sessions: of this authenticated user only")
    parser.add_argument("--worker", metavar="PID", help="show sessions: of this worker only")
    parser.add_argument("--stage", metavar="STAGE", help="show sessions: helo, command, mail, rcpt, or a hook")
    parser.add_argument("--limit", metavar="N", type=int, default=0, help="show sessions, clients: so many at most")
