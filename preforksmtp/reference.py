"""The texts made from the table of settings: the sample config file, README's reference, --print-config.

    python3 -m preforksmtp.reference conf/preforksmtp.conf.py README.md

writes the first two anew: a .md file between the markers <!-- settings --> and <!-- /settings -->, and those of the
metrics, any other file whole. tests/test_generated.py proves that they were. Fails with one line if a file has no
markers or cannot be written.
"""

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preforksmtp.config.arguments import CONFIG_FILE, default_text
from preforksmtp.config.setting import Setting
from preforksmtp.config.settings import HOOKS, SECTIONS, SETTINGS
from preforksmtp.logs.access import ATOMS
from preforksmtp.observe.metrics import FAMILIES, HISTOGRAMS, PREFIX

if TYPE_CHECKING:
    from preforksmtp.config.model import Config

# preforksmtp.handlers:Forward('mx', password='...') in `app`, or ...(key="...")
_SECRET_ARGUMENT = re.compile(
    r"""(\w*(?:pass|secret|token|key)\w*\s*=\s*)(['"]).*?(?<!\\)\2""", re.IGNORECASE
)


def sample_file() -> str:
    """conf/preforksmtp.conf.py: every setting, commented out, with its help and default."""
    lines = [
        "# Sample config file of preforksmtp: every setting with its default.",
        f"# Copy it to ./{CONFIG_FILE}, or name it with -c; uncomment what you change.",
        "#",
        "# It is Python: what computes a value may stand here. Names of your own begin with an underscore.",
        "# Made by: python3 -m preforksmtp.reference conf/preforksmtp.conf.py",
    ]
    for section in SECTIONS:
        lines += ["", "", f"# --- {section}"]
        for setting in _rows(section):
            shown = f" Default: {setting.shown}." if setting.shown else ""
            lines += [
                "",
                *textwrap.wrap(setting.full_help + shown, 98, initial_indent="# ", subsequent_indent="# "),
            ]
            lines += _assignment(setting)
    lines += ["", "", "# --- Hooks: functions that the server calls; see README.md"]
    for hook in HOOKS:
        lines += [
            "",
            *textwrap.wrap(hook.help, 98, initial_indent="# ", subsequent_indent="# "),
            f"# def {hook.name}({', '.join(hook.arguments)}):",
            "#     ...",
        ]
    return "\n".join(lines) + "\n"


def readme_table() -> str:
    """README.md's reference: a table for each section, and the atoms of the access log."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += [
            f"### {section}",
            "",
            "| setting | command line | default | meaning |",
            "|---|---|---|---|",
        ]
        lines += [_row(setting) for setting in _rows(section)]
        lines += [""]
    lines += ["### Hooks", "", "| function in the config file | runs in the | when |", "|---|---|---|"]
    lines += [f"| `{hook.name}({', '.join(hook.arguments)})` | {hook.process} | {_cell(hook.help)} |" for hook in HOOKS]
    lines += ["", "### Atoms of `access_logformat`", "", "| atom | meaning |", "|---|---|"]
    lines += [f"| `%({name})s` | {_cell(atom.help)} |" for name, atom in ATOMS.items()]
    return "\n".join(lines) + "\n"


def describe(config: "Config") -> str:
    """--print-config: every value and where it comes from, secrets masked."""
    shown = values(config)
    names = max(len(name) for name, _, _ in shown)
    width = min(40, max(len(value) for _, value, _ in shown))
    return "".join(f"{name:<{names}} = {value:<{width}}  # {origin}\n" for name, value, origin in shown)


def values(config: "Config") -> list[tuple[str, str, str]]:
    """Each setting: name, value, origin; secrets masked."""
    return [
        (setting.name, _value(setting, getattr(config, setting.name)), config.origin(setting.name))
        for setting in SETTINGS
    ]


def _rows(section: str) -> list[Setting]:
    return [setting for setting in SETTINGS if setting.section == section]


def _assignment(setting: Setting) -> list[str]:
    value = setting.default if not callable(setting.default) else None
    line = f"# {setting.name} = {_literal(value)}"
    if len(line) <= 110:
        return [line]
    # A long text in several pieces, as Python joins them.
    pieces = [
        repr(piece) for piece in textwrap.wrap(str(value), 90, drop_whitespace=False, break_on_hyphens=False)
    ]
    return [f"# {setting.name} = (", *(f"#     {piece}" for piece in pieces), "# )"]


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, str) and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return repr(value)


def _value(setting: Setting, value: Any) -> str:
    if setting.secret is not None:
        value = setting.secret(value)
    text = _literal(value)
    return _SECRET_ARGUMENT.sub(r"\1\2********\2", text) if isinstance(value, str) else text


def _row(setting: Setting) -> str:
    options = ", ".join(f"`{option}`" for option in setting.options) or "`APP`"
    cells = [
        options,
        _cell(default_text(setting)),
        _cell(setting.full_help),
    ]
    return f"| `{setting.name}` | {' | '.join(cells)} |"


def metrics_table() -> str:
    """README's table of the metrics."""
    rows = [f"| `{PREFIX}{family.name}` | {family.type} | {_cell(family.help)} |" for family in FAMILIES]
    rows += [
        f"| `{PREFIX}{name}` | histogram | {_cell(text)} |" for name, text in HISTOGRAMS.items()
    ]
    return "\n".join(["| name | type | meaning |", "|---|---|---|", *sorted(rows)]) + "\n"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table: none of it is markup."""
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


TABLES = {"settings": readme_table, "metrics": metrics_table}  # by the markers in README.md


def write(path: Path) -> None:
    """Write the text that belongs into one file. Raises ValueError if README.md has no markers."""
    if path.suffix != ".md":
        path.write_text(sample_file(), encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{path}: has no line {begin} followed by {end} to put the reference between")
        text = f"{before}{begin}\n{table()}{end}{after}"
    path.write_text(text, encoding="utf-8")


def main(paths: Sequence[str]) -> int:
    """Write the named files anew."""
    for path in paths:
        try:
            write(Path(path))
        except (OSError, ValueError) as error:
            print(f"preforksmtp.reference: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
