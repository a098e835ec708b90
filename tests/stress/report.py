"""What the stress tests tried, counted over the whole session, for the table that ends `make stress`.

    count("kills", 20)

The tests that use it are marked `stress`, which leaves them out of an ordinary run. A number is counted after the
check that it stands for has passed, so that the table never claims more than was held.
"""

from collections import Counter

_counts: Counter[str] = Counter()


def count(what: str, number: int = 1) -> None:
    """Add so many `what` ("kills", "fuzz inputs of model files") to the table."""
    _counts[what] += int(number)


def counted(what: str) -> int:
    """Return how many `what` there were so far."""
    return _counts[what]


def lines(failed: int = 0) -> list[str]:
    """Return the table, a line for each thing counted in the order of the first count, and what came of it."""
    if not _counts:
        return []
    numbers = {what: f"{number:,}" for what, number in _counts.items()}
    width = max(map(len, numbers.values()))
    verdict = "Nothing was lost." if not failed else f"NOT ALL OF IT WAS SURVIVED: {failed} tests failed."
    return [*(f"{number:>{width}}  {what}" for what, number in numbers.items()), "", verdict]
