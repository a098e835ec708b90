"""Turn the seconds of all rounds into ratios, means and shares. Nothing is measured here."""

import statistics

from benchmarks.sides import CNNLITE, NUMPY

BETTER_LAYOUT = "PyTorch's better layout"


def compare(result, among=None):
    """Return the figures of one result against the opponent with the shortest median, or None if there is none.

    The ratio is the opponent's time divided by cnnlite's, taken per round: whatever slows the machine down
    for a while slows down both. `among` names the opponents that count, by default all.
    """
    seconds = result["seconds"]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians.pop(CNNLITE)
    medians = {name: median for name, median in medians.items() if among is None or name in among}
    if not medians:
        return None
    best = min(medians, key=medians.get)
    ratios = ratios_of(seconds[best], seconds[CNNLITE])
    return {"work": result["work"], "topic": result["topic"], "cnnlite": ours, "best": best,
            "opponent": medians[best], "ratios": ratios, **spread(ratios, "ratio")}


def ratios_of(times, others):
    """Return, for each round, the time divided by the other time."""
    return [time / other for time, other in zip(times, others)]


def spread(values, name):
    return {name: statistics.median(values), "lowest": min(values), "highest": max(values)}


def of_topic(report, topic):
    return [result for result in report["results"] if result["topic"] == topic]


def comparisons(report, topic, among=None):
    compared = [compare(result, among) for result in of_topic(report, topic)]
    return [figures for figures in compared if figures]


def mean_ratio(report, direction):
    """Return the geometric mean of the ratios of all convolutions in that direction, or None if there are none."""
    return mean_of(of_topic(report, "conv"), [direction], direction)


def large_means(report, directions):
    """Return the geometric mean of the ratios of all large operations in these directions, or None if none ran."""
    return mean_of(of_topic(report, "large"), directions, " and ".join(directions))


def mean_of(results, directions, what):
    """Return the geometric mean of the ratios; the spread is over rounds, each with a mean of its own."""
    compared = [figures for result in results if result["direction"] in directions and (figures := compare(result))]
    if not compared:
        return None
    means = [statistics.geometric_mean(ratios) for ratios in zip(*(figures["ratios"] for figures in compared))]
    ratio = statistics.geometric_mean(figures["ratio"] for figures in compared)
    return {"work": f"{what}, mean of {len(compared)}", "topic": compared[0]["topic"], "best": BETTER_LAYOUT,
            **spread(means, "round"), "ratio": ratio}


def lowest_large(report):
    """Return the figures of the large operation with the lowest ratio, named in its "best" entry, or None."""
    lowest = min(comparisons(report, "large"), key=lambda figures: figures["ratio"], default=None)
    return lowest and {**lowest, "best": f"{lowest['best']}, in {lowest['work']}"}


def share_of_roof(result):
    """Return the median and the extremes of cnnlite's rate divided by SGEMM's, and both rates."""
    rates = {name: [result["flops"][name] / time for time in times] for name, times in result["seconds"].items()}
    shares = [ours / roof for ours, roof in zip(rates[CNNLITE], rates[NUMPY])]
    return {"work": result["work"], **spread(shares, "share"),
            "cnnlite": statistics.median(rates[CNNLITE]), "SGEMM": statistics.median(rates[NUMPY])}


def share_of_memory(result, among=None):
    """Return cnnlite's peak memory divided by that of the leanest opponent, or None if there is none."""
    medians = {name: statistics.median(peaks) for name, peaks in result["bytes"].items()}
    ours = medians.pop(CNNLITE)
    medians = {name: median for name, median in medians.items() if among is None or name in among}
    if not medians:
        return None
    best = min(medians, key=medians.get)
    return {"work": result["work"], "cnnlite": ours, "best": best, "opponent": medians[best],
            "share": ours / medians[best]}


def machine_roofs(report):
    """Return the machine's operations per second and bytes per second, each None if not measured."""
    seconds = {result["work"]: statistics.median(result["seconds"][NUMPY]) for result in of_topic(report, "machine")}
    amounts = {result["work"]: result.get("flops") or result["bytes"] for result in of_topic(report, "machine")}
    return tuple(amounts[work] / seconds[work] if work in seconds else None for work in ("SGEMM", "copy"))


def in_one_line(result):
    """Return the progress line of a result, shown as soon as it has been measured."""
    work = result["work"]
    if result["topic"] == "machine":
        rate = (result.get("flops") or result["bytes"]) / statistics.median(result["seconds"][NUMPY]) / 1e9
        return f"{work}: {rate:.0f} {'GFLOP/s' if 'flops' in result else 'GB/s'}"
    if result["topic"] == "roof":
        return f"{work}: {share_of_roof(result)['share']:.0%} of SGEMM"
    if result["topic"] == "memory":
        figures = share_of_memory(result)
        return f"memory, {work}: {figures['share']:.0%} of {figures['best']}" if figures else f"memory, {work}"
    figures = compare(result)
    if figures is None:
        return f"{work}: {statistics.median(result['seconds'][CNNLITE]):.3g} s, without an opponent"
    return f"{figures['work']}: {figures['ratio']:.2f} times as fast as {figures['best']}"
