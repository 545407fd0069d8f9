"""smtp/transaction.py: recipients as handlers keep them."""

from __future__ import annotations

import copy
import pickle

from preforksmtp.smtp.transaction import Recipient


def test_a_recipient_is_a_str_that_survives():
    recipient = Recipient("a@b", {"NOTIFY": ("DELAY",)})
    assert recipient == "a@b"
    assert isinstance(recipient, str)
    for twin in (pickle.loads(pickle.dumps(recipient)), copy.deepcopy(recipient), copy.copy(recipient)):
        assert twin == recipient
        assert twin.params == recipient.params
