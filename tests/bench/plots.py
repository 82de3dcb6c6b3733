"""Draws what grows. Runs in the environment of the peers, which has matplotlib.

python -m bench.plots report.json FOLDER        writes growth-*.svg, and prints their names
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt


def main() -> None:
    """Draw one plot per dimension: what each operation costs at each size, both axes logarithmic."""
    figures = json.loads(Path(sys.argv[1]).read_text("utf-8"))["figures"]
    lines: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for figure in figures:
        if figure["scenario"] == "growth":
            dimension, _, operation = figure["quantity"].partition(": ")
            lines[dimension][operation].append((int(figure["case"]), figure["median"]))
    mpl.rcParams["svg.hashsalt"] = "turnwire"  # the same figures make the same file
    for dimension, operations in lines.items():
        figure, axes = plt.subplots(figsize=(8, 5))
        for operation, points in operations.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=operation)
        axes.set(xscale="log", yscale="log", xlabel=dimension, ylabel="median ms")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
        name = f"growth-{dimension.partition(' ')[0]}.svg"
        figure.savefig(Path(sys.argv[2]) / name, metadata={"Date": None}, bbox_inches="tight")
        print(name)


if __name__ == "__main__":
    main()
