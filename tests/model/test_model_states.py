"""Any operations on models, in any order: a short run; the long one is in tests/stress."""

from hypothesis import HealthCheck, settings

from tests.helpers.model_states import Models

TestModels = Models.TestCase
TestModels.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
