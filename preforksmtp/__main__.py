"""python3 -m preforksmtp"""

import sys

from preforksmtp.cli import main

if __name__ == "__main__":
    sys.exit(main())
