"""preforksmtpctl: an operator's orders to a running server, over its control socket, and their outcome.

    preforksmtpctl show workers          same as: python3 -m preforksmtp.ctl show workers
    preforksmtpctl reload
    preforksmtpctl top

Exit codes: 0 carried out; 1 it was refused, or it failed; 2 usage; 3 no server answers; 4 no outcome in time.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Sequence
from typing import Any

from preforksmtp import __version__
from preforksmtp.config.model import ConfigError
from preforksmtp.config.settings import BY_NAME
from preforksmtp.control import choice, completion
from preforksmtp.control.client import Outcome, Overdue, Unreachable, give
from preforksmtp.control.orders import ORDERS, Refused, find
from preforksmtp.control.tables import TEXTS
from preforksmtp.control.top import Top
from preforksmtp.control.whereabouts import find_socket
from preforksmtp.logs.escaping import escape

OK, FAILED, USAGE, UNREACHABLE, OVERDUE = range(5)


def main(argv: Sequence[str] | None = None) -> int:
    """Give one order; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # of `| head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _run(arguments: argparse.Namespace) -> int:
    if arguments.lasting is not None:
        arguments.order.append(f"{arguments.lasting:g}")
    if arguments.completion:
        print(completion.script(arguments.completion, _options()))
        return OK
    try:
        chosen = choice.Choice.of(arguments)
        find(arguments.order)  # before anybody is asked: a word that is misspelt is no order to a server
        path = arguments.socket or find_socket(arguments.config, os.environ)
        trusted = _trusted(arguments.user)
        if arguments.order == ["top"] and not arguments.json:
            Top(lambda words: give(path, words, arguments.timeout, trusted), chosen).run(once=arguments.once)
            return OK
        outcome = give(path, arguments.order, arguments.timeout, trusted)
    except (ConfigError, Refused, choice.Wrong) as error:
        return _complain(str(error), USAGE)
    except Unreachable as error:
        return _complain(str(error), UNREACHABLE)
    except Overdue:
        return _complain(f"no outcome within {arguments.timeout:g} s; the order goes on", OVERDUE)
    except KeyboardInterrupt:
        return _complain("not waiting for the outcome any longer; the order goes on", OVERDUE)
    return _show(arguments.order, outcome, chosen, arguments.json)


def _parser() -> argparse.ArgumentParser:
    says = {order: f"{order.words} {order.argument}".strip() for order in ORDERS}
    width = max(map(len, says.values()))
    orders = "\n".join(f"  {text:<{width}}  {order.help}" for order, text in says.items())
    parser = argparse.ArgumentParser(
        prog="preforksmtpctl",
        description="Orders to a running preforksmtp, over its control socket. Waits for the outcome.",
        epilog=f"orders:\n{orders}\n\nexit codes: 0 carried out, 1 refused or failed, 2 usage, 3 no server answers, "
        "4 no outcome in time.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("order", nargs="*", metavar="ORDER", help="what to do, see below")
    parser.add_argument("-s", "--socket", metavar="PATH", help="the control socket; default: that of the configuration")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="config file of the server; without it the environment and ./preforksmtp.conf.py are looked at as the "
        "server does. It is not run: the socket must stand there as plain text",
    )
    parser.add_argument(
        "-u", "--user", metavar="USER", help="whose server it is, if neither root's nor your own: a name or a number"
    )
    parser.add_argument("-j", "--json", action="store_true", help="print the answer as JSON")
    parser.add_argument(
        "-t", "--timeout", metavar="SECONDS", type=_seconds, default=0.0, help="wait no longer; default: for ever"
    )
    parser.add_argument(
        "--for", dest="lasting", metavar="SECONDS", type=_seconds, help="transcript on: so long; default: 10 minutes"
    )
    parser.add_argument("--changed", action="store_true", help="show config: only what differs from the default")
    choice.add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="top: print once; so does any output but a terminal")
    parser.add_argument("--completion", choices=completion.SHELLS, help="print the completion of this shell, and end")
    parser.add_argument("--version", action="version", version=f"preforksmtpctl {__version__}")
    return parser


def _options() -> list[str]:
    return [option for action in _parser()._actions for option in action.option_strings if option.startswith("--")]


def _seconds(text: str) -> float:
    try:
        return float(BY_NAME["graceful_timeout"].type.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _trusted(user: str | None) -> set[int]:
    """Who may answer."""
    trusted = {0, os.geteuid()}
    if user is not None:
        try:
            trusted.add(int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigError([f"--user: there is no user {user!r}"]) from None
    return trusted


def _complain(line: str, code: int) -> int:
    print(f"preforksmtpctl: error: {line}", file=sys.stderr)
    return code


def _show(order: Sequence[str], outcome: Outcome, chosen: choice.Choice, as_json: bool) -> int:
    """Print the outcome; the exit code."""
    result: Any = outcome.result
    if outcome.ok:
        result = chosen.apply(" ".join(order[:2]), result)
    if as_json:
        answer = {"ok": outcome.ok, **({"result": result} if outcome.ok else {"error": outcome.error})}
        print(json.dumps(answer, indent=1))
        return OK if outcome.ok else FAILED
    if not outcome.ok:
        return _complain(escape(outcome.error), FAILED)
    print(TEXTS.get(" ".join(order[:2]), str)(result))
    return OK


if __name__ == "__main__":
    sys.exit(main())
