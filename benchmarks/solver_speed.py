"""1,000 networks of different widths by `summarize`, and one `summarize` of nin-224.

    python benchmarks/solver_speed.py [--rounds 15]

Also, for comparison in the same rounds, the same 1,000 networks by `solver.costs`, which the heat
map of the Architecture page uses, and one answer of the solver. All four give exact figures; that
they are the same ones is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nin_core import PRESETS, solver, summarize

MANY_TARGET = 400.0  # milliseconds for all 1,000 configurations
ONE_TARGET = 0.3  # milliseconds
ACROSS, DOWN = range(8, 258, 10), range(10, 410, 10)  # 25 × 40 widths of blocks 1 and 3


def milliseconds(work: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    config = PRESETS["nin-224"]
    middle = config.widths[1]

    def by_summarize() -> list[int]:
        """Each configuration is made and validated as well, as a page would."""
        return [
            summarize(config.with_widths((first, middle, third))).total_parameters
            for third in DOWN
            for first in ACROSS
        ]

    def by_arrays() -> list[int]:
        channels = {
            place: values.reshape(side)
            for block, widths, side in ((0, ACROSS, (1, -1)), (2, DOWN, (-1, 1)))
            for place, values in solver.channels_of_block(config, block, widths).items()
        }
        return solver.costs(config, channels).parameters.ravel().tolist()

    def answer() -> solver.Fit:
        return solver.fit(solver.proportions(config), solver.Budget("parameters", 500_000))

    assert by_summarize() == by_arrays(), "the two count different networks"
    works: dict[str, tuple[Callable[[], object], int]] = {
        "many": (by_summarize, 1),
        "arrays": (by_arrays, 10),
        "one": (lambda: summarize(config), 100),
        "answer": (answer, 3),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, repeats) in works.items():
            times[name].append(milliseconds(work, repeats))
    middle_of = {name: statistics.median(found) for name, found in times.items()}
    count = len(ACROSS) * len(DOWN)
    print(f"nin-224, medians of {rounds} rounds")
    print(
        f"  {count:,} configurations by summarize  {middle_of['many']:9.1f} ms "
        f"(target: at most {MANY_TARGET:.0f})"
    )
    print(f"  the same by solver.costs           {middle_of['arrays']:9.2f} ms")
    print(
        f"  one summarize                      {middle_of['one']:9.3f} ms "
        f"(target: at most {ONE_TARGET})"
    )
    print(f"  one answer of solver.fit           {middle_of['answer']:9.2f} ms")


if __name__ == "__main__":
    main()
