"""What a session needs of Python's library besides what is imported already: loaded while it can be read.

Runs in the master, before it forks: workers share that memory. Afterwards they may run as a user who cannot enter the
library (of a root's home, say), and an upgrade of Python itself may have put other files there. Codecs are what Python
loads at their first use; which of them a message asks for is the client's choice.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import os
import sys

from preforksmtp.process.privileges import Identity

# Of host names (idna: stringprep, punycode), of clients that speak no TLS (unicode_escape), of the rest of SMTP.
_SESSION = ("encodings.ascii", "encodings.latin_1", "encodings.idna", "encodings.punycode", "encodings.unicode_escape")
# What is there that fails in some way or takes a terminal to use.
_NO_CODECS = ("aliases", "mbcs", "oem", "cp65001")
_HANDLERS = "preforksmtp.handlers"


def provide(app: str, identity: Identity | None) -> None:
    """`app` as it is written, `identity` that of the workers."""
    for name in _SESSION:
        importlib.import_module(name)
    module, _, attribute = app.partition(":")
    if module == _HANDLERS:  # ours: root may import it
        handlers = importlib.import_module(_HANDLERS)
        with contextlib.suppress(AttributeError):  # said by who loads the application
            getattr(handlers, attribute.partition("(")[0])
    if identity is not None and not identity.may_enter(os.path.dirname(os.__file__)):
        _provide_codecs()


def _provide_codecs() -> None:
    for folder in encodings.__path__:
        for file in sorted(os.listdir(folder)):
            name, kind = os.path.splitext(file)
            if kind == ".py" and name not in _NO_CODECS and f"encodings.{name}" not in sys.modules:
                with contextlib.suppress(ImportError):  # of another system
                    importlib.import_module(f"encodings.{name}")
