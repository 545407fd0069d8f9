"""The texts made from the table equal what the table makes now; --help names every setting."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from preforksmtp import reference
from preforksmtp.config import arguments
from preforksmtp.config.load import load
from preforksmtp.config.settings import BY_NAME, SETTINGS
from preforksmtp.logs import access

ROOT = Path(__file__).resolve().parent.parent
AGAIN = "run: python3 -m preforksmtp.reference conf/preforksmtp.conf.py README.md"


def test_the_sample_config_file_is_up_to_date():
    assert (ROOT / "conf" / "preforksmtp.conf.py").read_text("utf-8") == reference.sample_file(), AGAIN


@pytest.mark.parametrize("name, table", reference.TABLES.items())
def test_the_reference_in_the_readme_is_up_to_date(name, table):
    text = (ROOT / "README.md").read_text("utf-8")
    found = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    assert found == "\n" + table(), AGAIN


def test_every_line_of_the_sample_is_a_comment_and_uncommented_it_holds_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    sample = reference.sample_file()
    assert ast.parse(sample).body == []
    names = "|".join(BY_NAME)
    # The assignments, and the continuation of those in parentheses.
    code = re.findall(rf"^# ((?:{names}) = (?:\((?:\n# .*?)*\n# \)|.*))$", sample, re.MULTILINE)
    (tmp_path / "all.py").write_text("\n".join(part.replace("\n# ", "\n") for part in code))
    config = load(["-c", str(tmp_path / "all.py")], {}, str(tmp_path))
    for setting in SETTINGS:
        assert config.origin(setting.name).startswith("config file"), setting.name
        assert getattr(config, setting.name) == setting.parse(None), setting.name


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_help_names_each_setting_with_default_and_variables(setting, monkeypatch):
    monkeypatch.setenv(
        "COLUMNS", "100000"
    )  # nothing is wrapped, but long names still get a line of their own
    text = " ".join(arguments.format_help().split())
    names = (
        ", ".join(option if setting.type.switch else f"{option}\\b.*?" for option in setting.options) or "APP"
    )
    about = re.escape(
        f"{setting.full_help} Default: {arguments.default_text(setting)}. [{', '.join(setting.variables)}]"
    )
    if setting.type.switch:
        names += f", --no-{setting.options[-1][2:]}"
    assert re.search(rf" {names} ?{about}", text)


def test_help_lists_sections_atoms_and_ends_with_examples(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = arguments.format_help()
    places = [text.index(f"\n{section}:\n") for section in ("Processes", "SMTP", "TLS", "Logs")]
    assert places == sorted(places)
    for name in access.ATOMS:
        assert re.search(rf"^  %\({name}\)s +\w", text, re.MULTILINE), name
    assert text.index("\natoms of") < text.index("\nexamples:\n")
    assert "%%" not in text


def test_regeneration(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    around = "# x\n\n<!-- settings -->\n%s<!-- /settings -->\n\nend\n<!-- metrics -->\n%s<!-- /metrics -->\nx"
    readme.write_text(around % ("old\n", ""))
    command = [sys.executable, "-m", "preforksmtp.reference", str(tmp_path / "conf.py"), str(readme)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / "conf.py").read_text("utf-8") == reference.sample_file()
    assert readme.read_text("utf-8") == around % (reference.readme_table(), reference.metrics_table())
    readme.write_text("no markers")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "has no line <!-- settings -->" in done.stderr
