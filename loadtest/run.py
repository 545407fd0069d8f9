"""`python loadtest/run.py [LOCUST OPTIONS]`: start a server with TLS and AUTH on free ports and locust against it.

What stands on the command line goes to locust. The exit code is locust's, or 1 if the server logged an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from target import PASSWORD, USER, Target

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main() -> int:
    with Target("--workers", os.environ.get("WEB_CONCURRENCY", "2"), tls=True) as target:
        environment = {
            **os.environ,
            "LOAD_SMTPS": f"127.0.0.1:{target.ports['smtps']}",
            "LOAD_USER": USER,
            "LOAD_PASSWORD": PASSWORD,
        }
        host = f"smtp://127.0.0.1:{target.ports['smtp']}"
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host, *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
