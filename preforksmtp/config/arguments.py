"""The command line: an argparse parser made from the table of settings, and --help.

It knows the table and nothing of files or processes. A wrong command line ends in argparse's own way (one
line on standard error, exit 2); a wrong PREFORKSMTP_CMD_ARGS, which no shell user sees, is a ValueError
with one clear line.
"""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from preforksmtp.config.setting import Setting
from preforksmtp.config.settings import SECTIONS, SETTINGS
from preforksmtp.logs.access import ATOMS

CONFIG_FILE = "preforksmtp.conf.py"

DESCRIPTION = "A pre-fork SMTP server: a master process, worker processes, and your blocking Python callable."

PRECEDENCE = """\
A value comes from the last of these that has one: default, environment variable, config file,
PREFORKSMTP_CMD_ARGS (options in one environment variable), command line.
"""

EXAMPLES = """\
examples:
  preforksmtp                                        store mail in ./Maildir, listening on 127.0.0.1:8025
  preforksmtp -w 4 app:handler                       the function `handler` of app.py, four workers
  preforksmtp -b :25 -b submission://:587 --certfile mx.pem app:Mail
  preforksmtp -b ':25?max_message_size=10M' -b 'lmtp://unix:/run/lmtp.sock' app:handler
  preforksmtp -c mx.conf.py --check-config           validate everything, bind nothing
  WEB_CONCURRENCY=auto preforksmtp app:handler       a setting from the environment
"""


@dataclass
class Arguments:
    """What a command line asked for; `given` holds only the settings it names."""

    given: dict[str, Any] = field(default_factory=dict)
    config_file: str | None = None
    action: str = "run"  # or "check-config", "print-config"


def parse(argv: Sequence[str]) -> Arguments:
    """The command line. Exits by itself for -h, -v (0) and for a usage error (2), as argparse does."""
    return _arguments(_add_actions(_add_settings(_parser(argparse.ArgumentParser))).parse_args(argv))


def parse_text(text: str) -> Arguments:
    """PREFORKSMTP_CMD_ARGS: options and APP, split as a shell would. Raises ValueError."""
    return _arguments(_add_settings(_parser(_RaisingParser)).parse_args(shlex.split(text)))


def format_help() -> str:
    """The text of --help."""
    return _add_actions(_add_settings(_parser(argparse.ArgumentParser))).format_help()


def default_text(setting: Setting) -> str:
    """The default of a setting in words, for people."""
    if setting.shown:
        return setting.shown
    if isinstance(setting.default, tuple):
        return ", ".join(setting.default) or "none"
    if isinstance(setting.default, bool):
        return "yes" if setting.default else "no"
    return str(setting.default) if setting.default not in (None, {}) else "none"


class _RaisingParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser(kind: type[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    # No abbreviations: --max-e would change its meaning with the next setting added.
    return kind(
        prog="preforksmtp",
        usage="%(prog)s [OPTIONS] [APP]",
        description=DESCRIPTION,
        epilog=f"{PRECEDENCE}\n{_atoms()}\n{EXAMPLES}",  # argparse leaves its percent signs alone
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )


def _add_settings(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"Config file, written in Python. Default: ./{CONFIG_FILE} if present.",
    )
    for section in SECTIONS:
        group = parser.add_argument_group(section)
        for setting in SETTINGS:
            if setting.section == section:
                group.add_argument(*(setting.options or (setting.name,)), **_keywords(setting))
    return parser


def _add_actions(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    from preforksmtp import __version__

    parser.add_argument("-h", "--help", action="help", help="Show this text.")
    parser.add_argument(
        "-v", "--version", action="version", version=f"preforksmtp {__version__}", help="Show the version."
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="Validate everything, bind nothing; exit 0, or 1 with the errors.",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="Show every value and where it comes from."
    )
    return parser


def _keywords(setting: Setting) -> dict[str, Any]:
    keywords: dict[str, Any] = {"help": _percent_safe(_help(setting)), "default": None}
    if setting.type.switch:
        return keywords | {"action": argparse.BooleanOptionalAction, "dest": setting.name}
    keywords |= {"type": _reader(setting), "metavar": setting.type.metavar}
    if setting.positional:
        return keywords | {"nargs": "?"}
    return keywords | {"dest": setting.name, "action": "append" if setting.type.repeats else "store"}


def _help(setting: Setting) -> str:
    return f"{setting.full_help} Default: {default_text(setting)}. [{', '.join(setting.variables)}]"


def _reader(setting: Setting) -> Callable[[str], str]:
    """Checks a word where it stands, so that argparse names the option; the word is kept as it is."""

    def read(word: str) -> str:
        try:
            setting.type.parse(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return word

    return read


def _arguments(found: argparse.Namespace) -> Arguments:
    values = vars(found)
    action = next((name for name in ("check_config", "print_config") if values.get(name)), "run")
    given = {setting.name: values[setting.name] for setting in SETTINGS if values[setting.name] is not None}
    return Arguments(given, found.config, action.replace("_", "-"))


def _atoms() -> str:
    rows = "\n".join(f"  {'%(' + name + ')s':<10} {atom.help}" for name, atom in ATOMS.items())
    return f"atoms of --access-logformat:\n{rows}\n"


def _percent_safe(text: str) -> str:
    return text.replace("%", "%%")
