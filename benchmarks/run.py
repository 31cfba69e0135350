"""Runs the benchmarks: `python -m benchmarks.run [--quick] [NAME …]`.

A benchmark is a module `bench_<name>.py` here, with a docstring and `def run(rounds: int) -> list[Figure]`. A complete
run writes docs/performance.md; a quick or partial one only prints.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

# `python benchmarks/run.py` puts this folder on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, report

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"


def main() -> int:
    """Run what was asked for; 0 when every benchmark gave its figures."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure, beside a yardstick.")
    parser.add_argument("names", nargs="*", help=f"which ones, all when left out: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help=f"{measure.QUICK_ROUNDS} rounds, for a first look")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(known):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    figures, about, others = {}, {}, {}
    for name in asked.names or known:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        print(f"{name} …", flush=True)
        clock = measure.CpuClock()
        figures[name] = module.run(measure.QUICK_ROUNDS if asked.quick else measure.ROUNDS)
        others[name] = clock.others()
        about[name] = (module.__doc__ or "").strip()
        for item in figures[name]:
            print("  " + report.line(item), flush=True)
        print(f"  ({report.company(others[name])})", flush=True)
    if asked.quick or asked.names:
        print("(not written: only a complete run replaces docs/performance.md)")
        return 0
    PAGE.write_text(report.page(figures, about, others))
    print(f"written: docs/{PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
