"""The corpus of odd messages through the real server, to a handler that reads everything: 250 for each, and the facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.facts import FACTS
from tests.processes import ROOT
from tests.program.conftest import LOOPBACK, Serve, Talk

CORPUS = ROOT / "tests" / "corpus"
HANDLER = "tests.corpus.read:handler"


def send(client: Talk, name: str, content: bytes) -> str:
    for line in ("MAIL FROM:<ann@example.com> BODY=8BITMIME", f"RCPT TO:<{name}@corpus.example>"):
        assert client.ask(line).startswith("250")
    assert client.ask("DATA").startswith("354")
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    content = content.replace(b"\r\n.", b"\r\n..")
    client.send((b"." + content if content.startswith(b".") else content) + b".\r\n")
    return client.read()


def compare(facts: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What the handler has read, and what it should have."""
    first = dict(reversed(facts["headers"]))
    assert {name: first.get(name) for name in wanted.get("headers", {})} == wanted.get("headers", {})
    assert {name: len(first[name]) for name in wanted.get("lengths", {})} == wanted.get("lengths", {})
    for name, addresses in wanted.get("addresses", {}).items():
        assert [tuple(each) for each in facts["addresses"][name]] == addresses
    assert len(facts["addresses"].get("To", ())) == wanted.get("address_count", len(facts["addresses"].get("To", ())))
    if "text_length" in wanted:
        assert len(facts["text"]) == wanted["text_length"]
    else:
        assert facts["text"] == wanted.get("text", "Text.\n")
    assert facts["html"] == wanted.get("html")
    if "file_count" in wanted:
        assert len(facts["files"]) == wanted["file_count"]
    else:
        assert [tuple(each) for each in facts["files"]] == wanted.get("files", [])
    types = [each[0] for each in facts["parts"]]
    if "part_count" in wanted:
        assert len(types) == wanted["part_count"]
    else:
        assert types == wanted.get("types", ["text/plain"])
    assert facts["defects"] == wanted.get("defects", [])


def test_the_table_is_that_of_the_files() -> None:
    assert sorted(FACTS) == sorted(file.stem for file in CORPUS.glob("*.eml"))
    assert len(FACTS) > 100


@pytest.mark.parametrize("threshold", [1048576, 0], ids=["in memory", "in a file"])
def test_each_is_accepted_and_read(serve: Serve, tmp_path: Path, threshold: int) -> None:
    server = serve("-b", LOOPBACK, "--bare-newlines", "accept", "--spool-threshold", str(threshold), HANDLER).ready()
    with Talk(server.port()) as client:
        client.ask("EHLO client.example")
        for name in FACTS:
            answer = send(client, name, (CORPUS / f"{name}.eml").read_bytes())
            assert answer.startswith("250"), f"{name}: {answer}\n{server.output}"
            try:
                compare(json.loads((tmp_path / f"{name}.json").read_text("utf-8")), FACTS[name])
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
