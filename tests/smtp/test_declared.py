"""smtp/declared.py: extensions that a handler declares."""

from __future__ import annotations

import pytest

from preforksmtp.smtp.declared import DECLARED, read_declared


def test_declarations():
    assert read_declared(()) == {}
    assert read_declared(["prdr", "FUTURERELEASE"]) == {"PRDR": "", "FUTURERELEASE": DECLARED["FUTURERELEASE"]}
    assert read_declared({"DELIVERBY": 5, "MT-PRIORITY": "MIXER"}) == {"DELIVERBY": "5", "MT-PRIORITY": "MIXER"}


@pytest.mark.parametrize("wrong", [["FOO"], ["PIPELINING"], {"FUTURERELEASE": "soon"}, {"DELIVERBY": -1}])
def test_a_wrong_declaration(wrong):
    with pytest.raises(ValueError, match="extensions: "):
        read_declared(wrong)
