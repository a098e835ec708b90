"""Thousands of operations on models in random orders, misuse included; see tests/helpers/model_states.py."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.helpers import model_states
from tests.stress.report import count

pytestmark = pytest.mark.stress


def test_models_stay_in_order_whatever_is_done_to_them():
    model_states.done.clear()
    run_state_machine_as_test(model_states.Models, settings=settings(
        max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck),
    ))
    for what, number in model_states.done.items():
        count(f"{what} of the state machine of models", number)
