"""The plots of the report: bars against each opponent, a roofline plot of the convolutions, and growth curves."""

import statistics
from collections import defaultdict

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.convolutions import DIRECTIONS
from benchmarks.figures import compare, machine_roofs, mean_ratio, of_topic
from benchmarks.sides import CNNLITE, JAX, KERAS, ONNX, OPENVINO, PYTORCH

OPPONENTS = {"PyTorch's best": PYTORCH, KERAS: [KERAS], JAX: [JAX], ONNX: [ONNX], OPENVINO: [OPENVINO]}


WIDTH = 0.16  # of a bar; five of them and a gap in each group


def new_figure(width, height):
    return Figure(figsize=(width, height), layout="constrained")


def bars(report, path):
    """Draw a bar for each ratio, with an error bar from lowest to highest, and a line at 1, equal speed."""
    groups = [(result["work"], {name: compare(result, among) for name, among in OPPONENTS.items()})
              for topic in ("train", "infer") for result in of_topic(report, topic)]
    groups += [(f"convolution, {direction}", {"PyTorch's best": mean_ratio(report, direction)})
               for direction in DIRECTIONS]
    groups = [(work, present) for work, figures in groups if (present := drop_none(figures))]
    if not groups:
        return
    figure = new_figure(9, 1.5 + 0.5 * len(groups))
    axes = figure.add_subplot()
    for i, name in enumerate(OPPONENTS):
        # However many bars a group has, they are centred on its label.
        rows = [(place + WIDTH * (list(figures).index(name) - (len(figures) - 1) / 2), figures[name])
                for place, (_, figures) in enumerate(groups) if name in figures]
        if rows:
            places, figures = zip(*rows)
            ends = [[max(0, each["ratio"] - each["lowest"]) for each in figures],
                    [max(0, each["highest"] - each["ratio"]) for each in figures]]
            ratios = [each["ratio"] for each in figures]
            axes.barh(places, ratios, WIDTH, xerr=ends, color=f"C{i}", ecolor="0.4", capsize=1.5, label=name)
    axes.axvline(1, color="black", linewidth=1)
    plain_logarithmic(axes, "x")
    axes.set_yticks(range(len(groups)), [work for work, _ in groups], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("opponent's time / cnnlite's time: to the right of 1 cnnlite is faster")
    figure.legend(loc="outside upper center", ncols=len(OPPONENTS), fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def plain_logarithmic(axes, which):
    """Make an axis logarithmic, with ticks at 0.5, 1, 2, 4, ..."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(base=2))
    axis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.set_minor_locator(NullLocator())


def drop_none(figures):
    return {name: each for name, each in figures.items() if each}


def roofline(report, path):
    """Draw each convolution's rate over its arithmetic intensity, under the roofs of the machine's SGEMM and memory.

    Small arrays stay in the caches, which are faster than memory, so points may lie above the slope.
    """
    results = of_topic(report, "conv")
    if not results:
        return
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    for direction, marker in zip(DIRECTIONS, "o^s"):
        chosen = [result for result in results if result["direction"] == direction]
        intensities = [result["flops"] / result["bytes"] for result in chosen]
        rates = [result["flops"] / statistics.median(result["seconds"][CNNLITE]) / 1e9 for result in chosen]
        axes.scatter(intensities, rates, marker=marker, s=22, label=f"cnnlite, {direction}")
    arithmetic, bandwidth = machine_roofs(report)
    if arithmetic and bandwidth:
        ridge = arithmetic / bandwidth
        all_of_them = [ridge, *(result["flops"] / result["bytes"] for result in results)]
        ends = [0.8 * min(all_of_them), ridge, 1.2 * max(all_of_them)]
        roof = [min(arithmetic, bandwidth * intensity) / 1e9 for intensity in ends]
        label = f"SGEMM {arithmetic / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.0f} GB/s"
        axes.plot(ends, roof, color="black", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte of images, kernels and result")
    axes.set_ylabel("GFLOP/s")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def growth(report, path):
    """Draw the time of a step, a panel for each thing that grows, and below the rate of convolutions over channels."""
    rows = [panels for topic in ("growth", "channels") if (panels := by_panel(of_topic(report, topic)))]
    if not rows:
        return
    columns = max(map(len, rows))
    figure = new_figure(3.4 * columns, 0.5 + 3.1 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(grid, rows):
        for axes, (by, results) in zip(line, panels.items()):
            panel(axes, by, results)
        line[0].set_ylabel("GFLOP/s" if rates_are_drawn(results) else "training step, ms")
        for axes in line[len(panels):]:
            axes.remove()
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=len(lines), fontsize=8)
    figure.savefig(path, dpi=150)


def by_panel(results):
    panels = defaultdict(list)
    for result in results:
        panels[result["by"]].append(result)
    return panels


def rates_are_drawn(results):
    return "flops" in results[0]


def panel(axes, by, results):
    """Draw a curve for each side: times, or rates where the number of operations is known."""
    values = [result["value"] for result in results]
    is_rate = rates_are_drawn(results)
    for name in results[0]["seconds"]:
        times = [statistics.median(result["seconds"][name]) for result in results]
        heights = [result["flops"] / time / 1e9 if is_rate else time * 1000 for result, time in zip(results, times)]
        axes.plot(values, heights, marker="o", markersize=4, label=name)
    axes.set_xscale("log", base=2)
    if is_rate:
        axes.set_xlabel(f"channels, {by}")
        axes.set_ylim(bottom=0)
    else:
        plain_logarithmic(axes, "y")
        axes.set_xlabel(by)
    axes.set_xticks(values, [f"{value}" for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
