"""Forms: what a value from a file must look like before anything goes on from it."""

import numpy as np
import pytest

from cnnlite.support.schema import COUNT, NUMBER, check_form

FORM = {"wait": COUNT, "best": (NUMBER, None), "weights": ([np.ndarray], None), "logs": {str: NUMBER}}
GOOD = {"wait": 3, "best": 0.5, "weights": None, "logs": {}}


@pytest.mark.parametrize(
    "change",
    [{}, {"wait": 0}, {"wait": np.int64(2)}, {"best": None}, {"best": float("nan")}, {"best": np.float32(1)},
     {"best": -7}, {"weights": []}, {"weights": [np.ones(2)]}, {"logs": {"loss": 1.0, "accuracy": 0}}],
)
def test_what_has_the_form_passes(change):
    check_form({**GOOD, **change}, FORM, "the state")


@pytest.mark.parametrize(
    "change",
    [{"wait": -1}, {"wait": True}, {"wait": 1.0}, {"wait": 2**63}, {"wait": None}, {"wait": "1"}, {"best": "0.5"},
     {"best": False}, {"best": 10**400}, {"best": 1j}, {"weights": np.ones(2)}, {"weights": [1.0]},
     {"logs": {1: 1.0}}, {"logs": {"loss": None}}, {"logs": []}, {"more": 1}],
)
def test_what_has_not_is_refused(change):
    with pytest.raises(ValueError, match="the state must be a dict with wait"):
        check_form({**GOOD, **change}, FORM, "the state")


def test_a_key_that_is_missing_is_refused_and_the_message_is_short():
    with pytest.raises(ValueError, match=r"the state must be a dict with wait \(a count\), best \(a number or None\)"):
        check_form({"wait": 1}, FORM, "the state")
    with pytest.raises(ValueError, match="must be a count") as caught:
        check_form("x" * 10_000, COUNT, "it")
    assert len(str(caught.value)) < 300
