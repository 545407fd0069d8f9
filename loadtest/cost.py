"""CPU time of 64 KiB of the worst input, parser by parser: `python3 loadtest/cost.py [PART OF A NAME]`.

Prints the dearest ones, and ends with 1 where one costs more than 5 ms. For a quiet machine; tests/test_cost.py has
wider bounds for busy ones. The inputs are those of tests/worstcases.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.worstcases import CASES, per_64_kib, seconds

MOST = 0.005  # seconds
SHOWN = 25


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    rows = []
    for case in CASES:
        if wanted in case.name:
            quarter = seconds(case, case.most // 4)
            rows.append((per_64_kib(case), seconds(case, case.most) / max(quarter, 1e-9), case.name))
    rows.sort(reverse=True)
    print("   ms of 64 KiB, and how many times those of a quarter")
    for cost, ratio, name in rows[:SHOWN]:
        print(f"{cost * 1e3:8.2f} {ratio:6.1f}  {name}")
    dear = [name for cost, _, name in rows if cost > MOST]
    print(f"{len(rows)} parsers and inputs, {len(dear)} of them above {MOST * 1e3:g} ms")
    return 1 if dear else 0


if __name__ == "__main__":
    raise SystemExit(main())
