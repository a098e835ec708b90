"""From the seconds of all rounds to ratios, a Markdown table and a picture. Nothing is measured here."""

import json
import statistics

from benchmarks.machine import BUSY

HEADINGS = {
    "train": "Training step",
    "infer": "Inference",
    "conv": "Single convolutions",
    "start": "A new process",
}


def compare(result):
    """Return the figures of one result, against the opponent whose median is the shortest, or None without one.

    The ratio is the opponent's time divided by cnnlite's, in each round on its own: what slows down the
    machine for a while slows down both.
    """
    seconds = result["seconds"]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians.pop("cnnlite")
    if not medians:
        return None
    best = min(medians, key=medians.get)
    ratios = [theirs / mine for theirs, mine in zip(seconds[best], seconds["cnnlite"])]
    return {
        "work": result["work"], "topic": result["topic"], "cnnlite": ours, "best": best, "opponent": medians[best],
        "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
    }


def comparisons(report, topic):
    compared = [compare(result) for result in report["results"] if result["topic"] == topic]
    return [figures for figures in compared if figures]


def share_of_roof(result):
    """Return the median and the extremes of cnnlite's rate divided by the matrix product's, and both rates."""
    rates = {name: [result["flops"][name] / time for time in times] for name, times in result["seconds"].items()}
    shares = [ours / roof for ours, roof in zip(rates["cnnlite"], rates["SGEMM"])]
    return {
        "work": result["work"], "share": statistics.median(shares), "lowest": min(shares), "highest": max(shares),
        "cnnlite": statistics.median(rates["cnnlite"]), "SGEMM": statistics.median(rates["SGEMM"]),
    }


def row(figures):
    return (
        f"| {figures['work']} | {figures['cnnlite'] * 1000:.3g} | {figures['opponent'] * 1000:.3g} | {figures['best']} "
        f"| **{figures['ratio']:.2f}** | {figures['lowest']:.2f} to {figures['highest']:.2f} |"
    )


def markdown(report):
    """Return the tables, and under them the machine and what else it did."""
    lines = []
    for topic, heading in HEADINGS.items():
        rows = [row(figures) for figures in comparisons(report, topic)]
        if rows:
            lines += [
                f"| {heading} | cnnlite, ms | best opponent, ms | which | ratio | lowest to highest |",
                "|---|--:|--:|---|--:|--:|", *rows, "",
            ]
    for result in report["results"]:
        if result["topic"] == "roof":
            figures = share_of_roof(result)
            lines += [
                f"Share of the machine's own matrix product: {result['work']} reaches {figures['share']:.0%} "
                f"({figures['lowest']:.0%} to {figures['highest']:.0%}) of it, {figures['cnnlite'] / 1e9:.0f} of "
                f"{figures['SGEMM'] / 1e9:.0f} GFLOP/s.", "",
            ]
    return "\n".join([*lines, *describe_run(report), ""])


def describe_run(report):
    machine, run = report["machine"], report["run"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"Rounds: {run['rounds']}. Threads of each side: {run['threads']}. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; Python {machine['python']}, {versions}.",
    ]
    if run["load_before"] is not None:
        lines.append(f"Load average before {run['load_before']:.2f}, after {run['load_after']:.2f}.")
        if run["load_before"] > BUSY:
            lines.append("**The machine was busy with something else: these figures are worth little.**")
    return lines


def draw(report, path):
    """Draw a bar for each ratio, with a line from the lowest to the highest, and the 1 at which both are as fast."""
    from matplotlib.figure import Figure

    rows = [figures for topic in HEADINGS for figures in comparisons(report, topic)]
    if not rows:
        return
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    ratios = [figures["ratio"] for figures in rows]
    spread = [[figures["ratio"] - figures["lowest"] for figures in rows],
              [figures["highest"] - figures["ratio"] for figures in rows]]
    colours = {topic: f"C{i}" for i, topic in enumerate(HEADINGS)}
    bars = [colours[figures["topic"]] for figures in rows]
    axes.barh(places, ratios, xerr=spread, color=bars, ecolor="0.4", capsize=2)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [f"{figures['work']}\nagainst {figures['best']}" for figures in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("opponent's time / cnnlite's time: to the right of 1 cnnlite is faster")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(report), encoding="utf-8")
    draw(report, folder / "results.png")
