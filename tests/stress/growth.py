"""What the tests of memory ask of the program `tests.stress.memory`."""

from tests.helpers.programs import run_program

BLOCKS = 200  # of some 400,000; the measures themselves are some
OBJECTS = 50  # of some 120,000
BYTES = 2 << 20  # of some 200 MB: threads have pages of their own, and pieces of freed memory are not all given back


def assert_no_growth(way, rounds, steps, threads=1):
    """Assert that the last round left no more memory in use than the first; return what the program printed.

    The middle of the last half of the rounds is looked at, and of the first, since a measure goes up and down.
    """
    result, _ = run_program("tests.stress.memory", way, rounds, steps, threads=threads, timeout=600)
    for name, most in ("resident", BYTES), ("blocks", BLOCKS), ("objects", OBJECTS), ("arrays", 0):
        values = result[name]
        half = len(values) // 2
        first, last = (sorted(part)[len(part) // 2] for part in (values[:half], values[-half:]))
        assert last - first <= most, f"{way}: {name} grew: {values}"
    return result
