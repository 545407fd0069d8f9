"""The orders: what an operator may tell a running master, one row and one function each.

They run in the master's loop, as generators: `yield` waits for the next round, the value returned is the answer, so an
order is over when what it asked for has come true, or has failed. They do what signals do, and nothing of their own.
Raises Refused with one line for an order that cannot be carried out.
"""

from __future__ import annotations

import difflib
import ipaddress
import logging
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preforksmtp.config.settings import BY_NAME
from preforksmtp.observe.snapshot import Facts, as_json, take, workers_json
from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.query import Inquiry
from preforksmtp.prefork.questions import CLOSE, SESSIONS, STACKS, Line, named
from preforksmtp.prefork.watchlist import MOST, Network

if TYPE_CHECKING:
    from preforksmtp.prefork.master.child import Child
    from preforksmtp.prefork.master.master import Master

BY = "preforksmtpctl"
WATCH_TIME, LONGEST_WATCH = 600, 86400  # seconds for which a client is transcribed, unless told, and at most
LEVELS = ("debug", "info", "warning", "error", "critical")

Answer = Any  # what JSON can hold
Steps = Generator[None, None, Answer]


class Refused(Exception):
    """One line: why not."""


@dataclass(frozen=True)
class Order:
    """`words` is how it is said, `argument` how its argument is called in the help, "" where it has none; [X]
    may be left out."""

    words: str
    argument: str
    help: str
    run: Callable[[Orders, str], Steps]


class Orders:
    """One a master. `facts` and `config` are root's: the facts in force; each setting, its value and its origin.
    `unopened`: the logs that the last USR1 could not open in the master, a line each."""

    def __init__(
        self,
        master: Master,
        facts: Callable[[], Facts],
        config: Callable[[], Sequence[tuple[str, str, str]]],
        unopened: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.master = master
        self.facts = facts
        self.config = config
        self.unopened = unopened
        self._asking = False
        self._level = 0  # that of the log before the first log-level; 0 = never changed

    def find(self, words: Sequence[str]) -> tuple[Order, str]:
        """The order that these words are, and its argument."""
        return find(words)

    # -- show

    def show_workers(self, _: str) -> Steps:
        yield from ()
        return [workers_json(worker) for worker in take(self.master.board, self.facts()).workers]

    def show_stats(self, _: str) -> Steps:
        yield from ()
        return as_json(take(self.master.board, self.facts()), self.facts())

    def show_listeners(self, _: str) -> Steps:
        yield from ()
        return list(self.facts().listeners)

    def show_config(self, _: str) -> Steps:
        yield from ()
        return [{"name": name, "value": value, "origin": origin} for name, value, origin in self.config()]

    def show_sessions(self, _: str) -> Steps:
        workers = [worker for worker in self.master.children.values() if worker.ready_at is not None]
        answers = yield from self._ask(SESSIONS, workers)
        sessions = [{"worker": pid, **line} for pid, lines in answers.items() for line in lines or ()]
        sessions.sort(key=lambda line: -line.get("seconds", 0.0))
        return {"sessions": sessions, "silent": [pid for pid, lines in answers.items() if lines is None]}

    def top(self, _: str) -> Steps:
        """Both at once: one order for each picture."""
        answer = yield from self.show_sessions("")
        return {**answer, "stats": (yield from self.show_stats(""))}

    def show_clients(self, _: str) -> Steps:
        """Sessions and their messages by address."""
        answer = yield from self.show_sessions("")
        clients: dict[str, dict[str, Any]] = {}
        for line in answer["sessions"]:
            if "peer" in line:
                peer = line["peer"].rpartition(":")[0].strip("[]") or line["peer"]
                client = clients.setdefault(peer, {"client": peer, "sessions": 0, "messages": 0, "received": 0})
                client["sessions"] += 1
                client["messages"] += line.get("messages", 0)
                client["received"] += line.get("received", 0)
        return sorted(clients.values(), key=lambda client: (-client["sessions"], -client["messages"]))

    def session_close(self, name: str) -> Steps:
        workers = [worker for worker in self.master.children.values() if worker.ready_at is not None]
        answers = yield from self._ask(CLOSE, workers, named(name))
        found = [line for lines in answers.values() for line in lines or ()]
        if not found:
            silent = [str(pid) for pid, lines in answers.items() if lines is None]
            more = f"; no answer from worker {', '.join(silent)}" if silent else ""
            raise Refused(f"there is no session {name}{more}")
        hook = str(found[0].get("hook") or "")
        return f"session {name} is closed" + (f"; its call of the handler's {hook} goes on" if hook else "")

    def _ask(
        self, kind: int, workers: Sequence[Child], argument: int = 0
    ) -> Generator[None, None, dict[int, list[Line] | None]]:
        while self._asking:  # somebody else's inquiry
            yield
        self._asking = True
        try:
            inquiry = Inquiry(kind, workers, self.master.audit.condemn, argument)
            while not inquiry.over():
                yield
        finally:
            self._asking = False
        return inquiry.answers

    # -- the server

    def reload(self, _: str) -> Steps:
        """As HUP; with preload that is an upgrade."""
        self._refuse_while_stopping()
        reload, upgrade = self.master.reload, self.master.upgrade
        before, under_way = reload.awaited, upgrade.pid
        self.master.actions[signal.SIGHUP]()
        if upgrade.pid != under_way:  # preload
            return (yield from self._upgraded())
        if reload.awaited == before and not reload.busy:
            raise Refused(f"no reload: {upgrade.refusal() or upgrade.fault}")
        return (yield from self._reloaded("reloaded"))

    def restart(self, _: str) -> Steps:
        self._refuse_while_stopping()
        if not self.master.wanted:
            raise Refused("no workers are wanted (SIGWINCH); reload or scale begins again")
        self.master.roll(BY)
        return (yield from self._reloaded("all workers replaced"))

    def _reloaded(self, done: str) -> Steps:
        """Until the reload that was just asked for is over."""
        reload = self.master.reload
        number = reload.awaited
        while (fault := reload.outcome(number)) is None:
            if self.master.stopping:
                raise Refused("the server is stopping")
            if reload.number > number or reload.awaited < number or (reload.number == number and not reload.busy):
                raise Refused("given up; see the error log")
            yield
        if fault:
            raise Refused(f"failed, former configuration and workers go on: {fault}")
        return f"{done}: {len(self.master.members())} workers"

    def upgrade(self, _: str) -> Steps:
        """As USR2."""
        refusal = self.master.upgrade.refusal()
        if refusal:
            raise Refused(f"no upgrade: {refusal}")
        self.master.upgrade.begin()
        return (yield from self._upgraded())

    def _upgraded(self) -> Steps:
        """Until the new master has told this one to stop, or has failed."""
        upgrade = self.master.upgrade
        pid = upgrade.pid
        while upgrade.pid:
            if self.master.stopping:
                return f"upgraded: the new master is {pid}"
            if not upgrade.automatic and upgrade.running:
                return f"the new master is {pid}; upgrade is manual, send TERM to {self.facts().master} to complete it"
            yield
        raise Refused(f"the upgrade failed, this program goes on: {upgrade.fault}")

    def reopen(self, _: str) -> Steps:
        """As USR1. The master opens files as those who write to them must, so what it could not, no worker can."""
        yield from ()
        self.master.reopen()
        faults = self.unopened()
        if faults:
            raise Refused(f"{'; '.join(faults)}; the old file stays in use")
        return "logs reopened"

    def shutdown(self, _: str) -> Steps:
        self.master.stop()
        return (yield from self._stopped())

    def shutdown_quick(self, _: str) -> Steps:
        self.master.stop_quickly()
        return (yield from self._stopped())

    def _stopped(self) -> Steps:
        """The answer is given when the loop ends: see Control.end."""
        while True:
            yield

    def log_level(self, level: str) -> Steps:
        """For master and workers, until the next reload."""
        yield from ()
        if level not in (*LEVELS, "default"):
            raise Refused(f"there is no level {level!r}; choose {', '.join(LEVELS)} or default")
        master = self.master
        if not master.board.level:
            self._level = master.log.level
        number = 0 if level == "default" else int(logging.getLevelName(level.upper()))
        master.log.setLevel(number or self._level)
        for board in master.board.chain():
            board.level = number
        for worker in master.children.values():
            worker.send(signal.SIGURG)
        return f"log level {level}, until the next reload"

    def transcript_on(self, argument: str) -> Steps:
        """New sessions of an address or a network, in the error log, until the time is up or the server is upgraded."""
        yield from ()
        client, _, text = argument.partition(" ")
        network, seconds = _network(client), _watch_time(text)
        if any(name == "transcript" and value != "None" for name, value, _origin in self.config()):
            raise Refused("the setting transcript has all sessions in its file")
        watchlist = self.master.board.watchlist
        if not watchlist.watch(network, seconds):
            raise Refused(f"{MOST} are transcribed already: {', '.join(map(str, watchlist.networks()))}")
        return f"new sessions of {_bare(network)} are in the error log for {seconds:g} s"

    def transcript_off(self, client: str) -> Steps:
        yield from ()
        network, watchlist = _network(client), self.master.board.watchlist
        if not watchlist.forget(network):
            known = ", ".join(map(_bare, watchlist.networks())) or "none"
            raise Refused(f"{_bare(network)} is not transcribed; there are {known}")
        return f"sessions of {_bare(network)} are not transcribed any more"

    # -- workers

    def scale(self, text: str) -> Steps:
        """N, +N or -N; it is over when so many are ready and the others take no new sessions."""
        self._refuse_while_stopping()
        digits = text.lstrip("+-")
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 6 or len(text) - len(digits) > 1:
            raise Refused(f"{text!r} is no number of workers; write 4, +1 or -1")
        wanted = int(text) + (self.master.wanted if text != digits else 0)
        refusal = self.master.scaling.scale(wanted)
        if refusal:
            raise Refused(refusal)
        failures = self.master.throttle.failures
        while not self._fits(wanted):
            if self.master.stopping:
                raise Refused("the server is stopping")
            if self.master.wanted != wanted:
                raise Refused(f"given up, {self.master.wanted} workers are wanted now")
            if self.master.throttle.failures > failures:
                raise Refused("a new worker died while booting; see the error log")
            yield
        return f"{wanted} workers"

    def _fits(self, wanted: int) -> bool:
        ready = [worker for worker in self.master.members() if worker.ready_at is not None]
        leaving = any(worker.reason and worker.accepting() for worker in self.master.children.values())
        return len(ready) == len(self.master.members()) == wanted and not leaving

    def worker_drain(self, pid: str) -> Steps:
        """Its replacement serves first."""
        self._refuse_while_stopping()
        worker = self._worker(pid)
        if worker.generation is self.master.candidate:
            raise Refused(f"worker {pid} is the first one of a reload that is under way")
        if worker.reason or worker.replacing:
            raise Refused(f"worker {pid} is leaving already ({worker.reason or worker.replacing})")
        self.master.recycling.replace(worker, BY)
        failures = self.master.throttle.failures
        while worker.status is None and worker.pid in self.master.children:
            if self.master.throttle.failures > failures:
                raise Refused(f"the replacement of worker {pid} died while booting; see the error log")
            yield
        return f"worker {pid} is gone"

    def worker_kill(self, pid: str) -> Steps:
        worker = self._worker(pid)
        worker.end(child.KILL, BY, asked=True)
        while worker.pid in self.master.children:
            yield
        return f"worker {pid} is gone"

    def worker_dump(self, pid: str) -> Steps:
        """Where its threads are. If its interpreter does not answer, C writes that to the error log."""
        worker = self._worker(pid)
        answers = yield from self._ask(STACKS, [worker])
        stacks = answers[worker.pid]
        if stacks is None:
            worker.send(signal.SIGUSR2)
            raise Refused(f"worker {pid} does not answer; the stacks of its threads are in the error log")
        return {"worker": worker.pid, "threads": stacks}

    def _worker(self, pid: str) -> Child:
        known = {str(number): worker for number, worker in self.master.children.items()}
        if pid not in known:
            raise Refused(f"there is no worker {pid}; there are {', '.join(known) or 'none'}")
        return known[pid]

    def _refuse_while_stopping(self) -> None:
        if self.master.stopping:
            raise Refused("the server is stopping")


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Refused(f"{text!r} is no address or network, such as 192.0.2.1 or 2001:db8::/32") from None


def _bare(network: Network) -> str:
    """A network of one address as that address."""
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _watch_time(text: str) -> float:
    try:
        seconds = float(BY_NAME["timeout"].type.parse(text or WATCH_TIME))
    except ValueError as error:
        raise Refused(f"how long: {error}") from None
    if not 1 <= seconds <= LONGEST_WATCH:
        raise Refused(f"how long: from 1 second to a day, not {text}")
    return seconds


def find(words: Sequence[str]) -> tuple[Order, str]:
    """The order that these words are, and its argument. Refused."""
    for order in ORDERS:
        name = order.words.split()
        if list(words[: len(name)]) == name:
            rest = words[len(name) :]
            wanted = order.argument.split()
            if not len([each for each in wanted if each[0] != "["]) <= len(rest) <= len(wanted):
                raise Refused(f"{order.words} takes {order.argument or 'no argument'}")
            return order, " ".join(rest)
    said, known = " ".join(words), [order.words for order in ORDERS]
    near = difflib.get_close_matches(" ".join(words[:2]), known, n=1) or difflib.get_close_matches(said, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise Refused(f"unknown order {said!r}; {hint}")


ORDERS = (
    Order("show workers", "", "Each worker: state, age, sessions, memory.", Orders.show_workers),
    Order("show sessions", "", "Each session: client, transaction, and the handler's call that runs.",
          Orders.show_sessions),
    Order("show clients", "", "Each client: its sessions, and their messages.", Orders.show_clients),
    Order("show listeners", "", "The addresses that are listened on.", Orders.show_listeners),
    Order("show stats", "", "Counters and gauges of the whole server.", Orders.show_stats),
    Order("show config", "", "Each setting in force, and where it comes from.", Orders.show_config),
    Order("top", "", "What goes on, each second anew, until q or ^C.", Orders.top),
    Order("reload", "", "Read the configuration again and replace all workers, as HUP does; fails without harm.",
          Orders.reload),
    Order("restart", "", "Replace all workers, one after the other, without reading the configuration.",
          Orders.restart),
    Order("upgrade", "", "Start the program anew and hand over the sockets, as USR2 does.", Orders.upgrade),
    Order("reopen", "", "Reopen the logs, as USR1 does.", Orders.reopen),
    Order("scale", "N|+N|-N", "So many workers, until the next reload.", Orders.scale),
    Order("session close", "ID", "End one session: its client hears 421, or is cut off in the middle of something.",
          Orders.session_close),
    Order("worker drain", "PID", "Replace one worker: the new one serves first, then the old one drains.",
          Orders.worker_drain),
    Order("worker kill", "PID", "Kill one worker at once; another takes its place.", Orders.worker_kill),
    Order("worker dump", "PID", "Where each thread of a worker is.", Orders.worker_dump),
    Order("log-level", "LEVEL", "Least severe messages in the error log until the next reload; 'default': log_level.",
          Orders.log_level),
    Order("transcript on", "CLIENT [SECONDS]",
          "New sessions of an address or network in the error log, without secrets; for ten minutes, or --for.",
          Orders.transcript_on),
    Order("transcript off", "CLIENT", "No longer; at once, in the midst of a session.", Orders.transcript_off),
    Order("shutdown quick", "", "Stop quickly, as INT does.", Orders.shutdown_quick),
    Order("shutdown", "", "Stop gracefully, as TERM does: open transactions finish.", Orders.shutdown),
)  # fmt: skip
