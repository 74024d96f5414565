"""One contender in a process of its own: reads tasks from standard input, a line of JSON each.

`{"task": "forward", "arguments": {"length": 1024}}` prepares a task and runs it once, to compile
and to compare; `{"run": true}` runs it again. Each answer is a line of JSON: the seconds, the
numbers to compare, and the highest memory of the process since the task was prepared.
"""

import json
import sys
import time
from pathlib import Path

from contenders import CONTENDERS


def resident(field: str) -> int:
    """Bytes of memory that this process has ("VmRSS") or had at most ("VmHWM"). Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}.")


def main(name: str, size: str) -> None:
    """Answers until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print what they like
    start = time.perf_counter()
    contender = CONTENDERS[name](size)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}), file=answers, flush=True)
    run, before = None, 0
    for line in sys.stdin:
        message = json.loads(line)
        prepare = 0.0
        if "task" in message:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
            before = resident("VmRSS")
            start = time.perf_counter()
            run = getattr(contender, message["task"])(**message["arguments"])
            prepare = time.perf_counter() - start
        start = time.perf_counter()
        numbers = run()
        answer = {
            "seconds": time.perf_counter() - start,
            "prepare_seconds": prepare,
            "numbers": numbers,
            "extra_bytes": resident("VmHWM") - before,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
