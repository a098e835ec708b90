"""The table of what was survived, at the end of `make stress`."""

import importlib.util

from tests.stress import report

collect_ignore = ["fuzz/worker.py"]  # it needs Atheris, and is run, not imported
if importlib.util.find_spec("torch") is None:
    collect_ignore += ["differential/judges.py", "differential/with_torch.py"]


def pytest_terminal_summary(terminalreporter):
    failed = sum(len(terminalreporter.stats.get(outcome, [])) for outcome in ("failed", "error"))
    table = report.lines(failed)
    if table:
        terminalreporter.section("survived")
        for line in table:
            terminalreporter.write_line(line)
