"""How much longer than `import torch` does `import bayesreg` take? Fresh processes, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys

from _common import write

ROUNDS = 15
TIMER = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(modules: str) -> float:
    done = subprocess.run([sys.executable, "-c", TIMER.format(modules)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    pairs = []
    for index in range(ROUNDS + 1):
        order = ("torch", "bayesreg") if index % 2 else ("bayesreg", "torch")
        times = {name: seconds("torch" if name == "torch" else "torch, bayesreg") for name in order}
        if index:
            pairs.append((times["torch"], times["bayesreg"]))
    rows: list[dict[str, object]] = [
        {"import": "torch", "median s": statistics.median(t for t, _ in pairs), "ratio": 1.0},
        {
            "import": "torch, bayesreg",
            "median s": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(b / t for t, b in pairs),
        },
    ]
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
