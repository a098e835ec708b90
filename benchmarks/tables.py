"""The report as Markdown.

    python -m benchmarks.tables results/benchmarks/results.json    # the table in README.md, from an earlier run
"""

import json
import statistics
import sys
from pathlib import Path

from benchmarks.convolutions import DIRECTIONS
from benchmarks.figures import compare, comparisons, mean_ratio, of_topic, share_of_memory, share_of_roof
from benchmarks.machine import BUSY
from benchmarks.sides import CNNLITE, SIDES
from benchmarks.targets import TARGETS, cells, rows

HEADINGS = {"train": "Training step", "infer": "Inference", "avx2": "Training step without AVX-512",
            "busy": "With one core busy", "script": "A whole script", "start": "A new process"}


def markdown(report):
    """Return everything: the targets, the machine and its other load, and every convolution."""
    every = best_opponents("Every convolution", comparisons(report, "conv"))
    return joined([target_table(report), describe_run(report), *topic_tables(report), every, left_out(report)])


def on_screen(report):
    """Return the summary for the terminal, with the targets last."""
    return joined([*topic_tables(report), left_out(report), describe_run(report), target_table(report)])


def joined(parts):
    return "\n\n".join(filter(None, parts)) + "\n"


def topic_tables(report):
    parts = []
    for topic, heading in HEADINGS.items():
        parts.append(best_opponents(heading, comparisons(report, topic)))
        if topic not in ("script", "start"):
            parts.append(each_opponent(heading, of_topic(report, topic)))
    means = [figures for direction in DIRECTIONS if (figures := mean_ratio(report, direction))]
    return [*parts, convolution_means(means), rates(report, "large", "Large operations"), shares(report),
            memory(report), growth(report), rates(report, "channels", "As much work, with more and more channels")]


def table(header, lines):
    """Return a Markdown table with the first column left-aligned, or None without lines."""
    if not lines:
        return None
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def target_table(report):
    lines = [[work, against, value and f"**{value}**", *rest] for work, against, value, *rest in rows(report)]
    return table(["Target", "against", "figure", "lowest to highest", "floor", "aim", "reached"], lines)


def readme_table(report):
    """Return the measured targets as shown in README.md: with cnnlite's own time, without the spread."""
    lines = []
    for target in TARGETS:
        figures = target.figure(report)
        if figures:
            work, against, value, _, *goals, _ = cells(target, figures)
            ours = milliseconds(figures["cnnlite"]) if target.name == "ratio" and "cnnlite" in figures else ""
            lines.append([work, ours, against, f"**{value}**", *goals])
    return table(["work", "cnnlite, ms", "against", "figure", "floor", "then go for"], lines)


def milliseconds(seconds):
    return f"{seconds * 1000:.3g}"


def best_opponents(heading, compared):
    lines = [
        [figures["work"], milliseconds(figures["cnnlite"]), milliseconds(figures["opponent"]), figures["best"],
         f"**{figures['ratio']:.2f}**", f"{figures['lowest']:.2f} to {figures['highest']:.2f}"]
        for figures in compared
    ]
    return table([heading, "cnnlite, ms", "best opponent, ms", "which", "ratio", "lowest to highest"], lines)


def each_opponent(heading, results):
    """Return the ratios against every side that has a result anywhere in this topic."""
    names = [name for name in SIDES if name != CNNLITE and any(name in result["seconds"] for result in results)]
    lines = [[result["work"], *(ratio_against(result, name) for name in names)] for result in results]
    return table([f"{heading}, against", *names], lines) if names else None


def ratio_against(result, name):
    figures = compare(result, [name])
    return f"{figures['ratio']:.2f}" if figures else ""


def convolution_means(means):
    lines = [[figures["work"], figures["best"], f"**{figures['ratio']:.2f}**",
              f"{figures['lowest']:.2f} to {figures['highest']:.2f}"] for figures in means]
    return table(["Single convolutions", "against", "geometric mean of the ratios", "of one round each"], lines)


def rates(report, topic, heading):
    """Return the rates in operations per second, with the geometric means of the ratios at the end."""
    results = of_topic(report, topic)
    compared = [(result, figures) for result in results if (figures := compare(result))]
    lines = [[figures["work"], f"{result['flops'] / figures['cnnlite'] / 1e9:.0f}",
              f"{result['flops'] / figures['opponent'] / 1e9:.0f}", f"**{figures['ratio']:.2f}**",
              f"{figures['lowest']:.2f} to {figures['highest']:.2f}"] for result, figures in compared]
    for direction in DIRECTIONS:
        ratios = [figures["ratio"] for result, figures in compared if result["direction"] == direction]
        if ratios:
            lines.append([f"{direction}, mean of {len(ratios)}", "", "", f"**{statistics.geometric_mean(ratios):.2f}**",
                          f"{min(ratios):.2f} to {max(ratios):.2f}"])
    return table([heading, "cnnlite, GFLOP/s", "PyTorch's better layout, GFLOP/s", "ratio", "lowest to highest"], lines)


def shares(report):
    figures = [share_of_roof(result) for result in of_topic(report, "roof")]
    lines = [[each["work"], f"{each['cnnlite'] / 1e9:.0f}", f"{each['SGEMM'] / 1e9:.0f}", f"**{each['share']:.0%}**",
              f"{each['lowest']:.0%} to {each['highest']:.0%}"] for each in figures]
    return table(["Share of the machine's matrix product", "cnnlite, GFLOP/s", "SGEMM, GFLOP/s", "share",
                  "lowest to highest"], lines)


def memory(report):
    figures = [figures for result in of_topic(report, "memory") if (figures := share_of_memory(result))]
    lines = [[each["work"], f"{each['cnnlite'] / 2**20:.0f}", f"{each['opponent'] / 2**20:.0f}", each["best"],
              f"**{each['share']:.0%}**"] for each in figures]
    return table(["Peak memory of a process", "cnnlite, MiB", "opponent, MiB", "which", "share"], lines)


def growth(report):
    """Return the times, each also relative to the line above."""
    lines, before = [], {}
    for result in of_topic(report, "growth"):
        medians = {name: statistics.median(times) for name, times in result["seconds"].items()}
        ours = medians.pop(CNNLITE)
        theirs = min(medians.values(), default=None)
        earlier = before.get(result["by"], (None, None))
        lines.append([result["work"], milliseconds(ours), times_as_long(ours, earlier[0]),
                      milliseconds(theirs) if theirs else "", times_as_long(theirs, earlier[1]),
                      f"{theirs / ours:.2f}" if theirs else ""])
        before[result["by"]] = ours, theirs
    return table(["W1's training step with", "cnnlite, ms", "times the line above", "PyTorch's better layout, ms",
                  "times the line above", "ratio"], lines)


def times_as_long(now, before):
    return f"{now / before:.2f}" if now and before else ""


def left_out(report):
    lines = [f"- {name} in {result['work']}: {note}" for result in report["results"]
             for name, note in result.get("notes", {}).items() if note.startswith("left out")]
    missing = report["run"].get("missing", {})
    lines = [*(f"- {name}: {why}" for name, why in missing.items()), *lines]
    return "\n".join(["Not in these tables:", "", *lines]) if lines else None


def describe_run(report):
    machine, run = report["machine"], report["run"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"Rounds: {run['rounds']}. Threads a side may use: {run['threads']}. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['system']}; Python {machine['python']}, {versions}.",
    ]
    if run.get("isa") == "avx2":
        lines.append("All libraries were limited to AVX2, without AVX-512.")
    if run["load_before"] is not None:
        lines.append(f"Load average before: {run['load_before']:.2f}, after: {run['load_after']:.2f}.")
    if "others" in run:
        lines.append(f"During the run, other processes used {run['others']:.2f} cores on average, and the host of the "
                     f"virtual machine took away {run['stolen']:.2f}.")
    if max(run["load_before"] or 0, run.get("others", 0) + run.get("stolen", 0)) > BUSY:
        lines.append("**The machine was busy with something else: don't trust these figures.**")
    return "\n".join(lines)


if __name__ == "__main__":
    print(readme_table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
