"""Pick the fastest of several ways to do the same job."""

import time


def fastest(ways, seconds=0.1):
    """Take {note: factory of a function}, time each function, and return (function, note) of the fastest.

    A factory may change the whole process, such as the number of threads, so the winner's is called again.
    """
    times = {note: time_of(make(), seconds) for note, make in ways.items()}
    best = min(times, key=times.get)
    return ways[best](), best


def time_of(run, seconds):
    """Return the shortest time of some calls, after a warm-up call that may compile."""
    run()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
