"""The table that `make stress` ends with."""

import collections

import pytest

from tests.stress import report


@pytest.fixture
def _empty(monkeypatch):
    monkeypatch.setattr(report, "_counts", collections.Counter())


@pytest.mark.usefixtures("_empty")
def test_the_table_adds_up_what_was_counted_and_says_what_came_of_it():
    report.count("kills", 19)
    report.count("fuzz inputs", 12000)
    report.count("kills")
    assert report.counted("kills") == 20
    assert report.lines() == ["    20  kills", "12,000  fuzz inputs", "", "Nothing was lost."]
    assert report.lines(failed=2)[-1] == "NOT ALL OF IT WAS SURVIVED: 2 tests failed."


@pytest.mark.usefixtures("_empty")
def test_there_is_no_table_where_nothing_was_counted():
    assert report.lines() == []
    assert report.counted("kills") == 0
