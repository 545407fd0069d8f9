"""The whole suite, in parts side by side: `python3 -m tests [--parts N] [options of pytest]`.

Most of the suite waits: for processes to start, to stop, to notice. So several pytest run at once, each with some of the
files. A test that failed beside the others has a second chance when they are over, alone; it is named, and what it
printed shown. The counts are added up, and the ten slowest tests named. Ends with 1 when a test has failed alone as well,
or a part has not come to its end.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO

TESTS = Path(__file__).parent
# Seconds a test takes, about, by its folder: real processes, master and workers, all others.
SECONDS = {"program": 0.9, "prefork": 0.5, "process": 0.3}
OTHER_SECONDS = 0.05
SLOWEST = 10


def estimate(file: Path) -> float:
    """How long a file takes, roughly; parametrized tests count as one."""
    folder = file.relative_to(TESTS).parts[0]
    return SECONDS.get(folder, OTHER_SECONDS) * len(re.findall(r"^ *def test_", file.read_text(), re.MULTILINE))


def divide(count: int) -> list[list[str]]:
    """All files in so many parts that take about as long: the longest first, each to the part with the least to do."""
    parts: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for file in sorted(TESTS.rglob("test_*.py"), key=lambda file: (-estimate(file), file)):
        lightest = loads.index(min(loads))
        loads[lightest] += estimate(file)
        parts[lightest].append(str(file.relative_to(TESTS.parent)))
    return [part for part in parts if part]


def start(files: list[str], options: list[str], output: IO[str]) -> subprocess.Popen[str]:
    """pytest with these files. What failed is remembered beside its output, for `again`."""
    cache = f"cache_dir={output.name}.cache"
    command = [sys.executable, "-m", "pytest", "-q", "-o", cache, f"--durations={SLOWEST}", *options]
    return subprocess.Popen([*command, *files], stdout=output, stderr=subprocess.STDOUT, cwd=TESTS.parent, text=True)


def again(files: list[str], options: list[str], first: str, folder: str) -> tuple[int, str]:
    """What failed there, alone. The exit code and the output."""
    with Path(folder, "again").open("w+") as output:
        command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={first}.cache", "--last-failed", *options]
        code = subprocess.call([*command, *files], stdout=output, stderr=subprocess.STDOUT, cwd=TESTS.parent)
        output.seek(0)
        return code, output.read()


def counts(text: str) -> Counter[str]:
    """What the last line of pytest says: 12 passed, 1 skipped in 3.4s."""
    last = text.rstrip().rpartition("\n")[2]
    return Counter({word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)})


def slowest(texts: list[str]) -> list[str]:
    found = [line for text in texts for line in re.findall(r"^ *(\d+\.\d+s (?:call|setup|teardown) .*)$", text, re.MULTILINE)]
    return sorted(found, key=lambda line: -float(line.partition("s ")[0]))[:SLOWEST]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests", description=__doc__)
    parser.add_argument("--parts", type=int, default=3, help="how many pytest run at once (default: %(default)s)")
    given, options = parser.parse_known_args()
    began = time.monotonic()
    total: Counter[str] = Counter()
    texts, broken, failed = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, files in enumerate(divide(max(1, given.parts))):
            output = Path(folder, f"{number}").open("w+")  # noqa: SIM115 # open as long as its process runs
            running.append((start(files, options, output), output, files))
        for process, output, files in running:
            code = process.wait()
            with output:
                output.seek(0)
                texts.append(output.read())
            total += counts(texts[-1])
            if code:
                broken.append((code, output.name, files))
                print(texts[-1], flush=True)
        for code, name, files in broken:
            second, text = again(files, options, name, folder) if code == 1 else (code, "")
            print(text, flush=True)
            failed += 1 if second else 0
            if not second:
                print("failed beside others, and passed alone:", flush=True)
                print(*re.findall(r"^(?:FAILED|ERROR) (.*)$", texts[int(Path(name).name)], re.MULTILINE), sep="\n", flush=True)
    for line in sorted({line for text in texts for line in re.findall(r"^SKIPPED .*$", text, re.MULTILINE)}):
        print(line)
    print("slowest:", *slowest(texts), sep="\n  ")
    print(f"{len(texts)} parts in {time.monotonic() - began:.0f} s")
    print(f"{total['passed']} passed, {total['failed'] + total['error'] if failed else 0} failed, {total['skipped']} skipped")
    return 1 if failed or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
