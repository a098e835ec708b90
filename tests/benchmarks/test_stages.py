"""Where the time goes: every stage is there, and computes what it computes when the executor runs it."""

import numpy as np
import pytest

from benchmarks import stages
from benchmarks.nets import NETS
from benchmarks.sides.data import batch
from benchmarks.sides.with_cnnlite import build
from cnnlite import utils
from cnnlite.engine import executor, thread_pool
from cnnlite.engine.program import Workspace
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed


def test_all_stages_of_a_step_are_timed_once():
    before = executor.entry, Workspace.call, thread_pool.take
    net = NETS["LeNet-5"]._replace(batch=20)
    model, (x, y) = build(net), batch(net.input_shape, net.batch)
    turns = []
    rows, together, whole = stages.measure(lambda: model.train_on_batch(x, y), lambda: turns.append(1))
    made = model.plan(net.batch, training=True, input_shape=net.input_shape).plans[0][1]
    expected = [(step.layer, step.stage.name) for group in made.schedule.groups for track in group
                for step in track.steps]
    assert sorted(row[:2] for row in rows) == sorted(expected)
    assert all(calls > 0 and seconds >= 0 for _, _, _, calls, seconds, _ in rows)
    assert 0 < together < whole
    assert len(turns) > 1
    assert (executor.entry, Workspace.call, thread_pool.take) == before


@pytest.mark.parametrize("name", ["LeNet-5", "W1"])
def test_stages_that_are_timed_give_the_bits_of_those_that_are_not(name):
    net = NETS[name]._replace(batch=37)
    x, y = batch(net.input_shape, net.batch)
    found = []
    for each in (False, True):
        utils.set_random_seed(3)
        model = build(net)
        with stages.Clock() as clock:
            clock.each = each
            losses = [model.train_on_batch(x, y) for _ in range(2)]
            found.append([*losses, model(x), model(x[:1]), *model.get_weights()])
    for plain, timed in zip(*found):
        np.testing.assert_array_equal(plain, timed)


def test_the_text_has_a_line_for_each_stage_and_the_sums():
    rows = [("conv2d", "convolve", 0, 4, 0.002, 4e6), ("dense", "copy", 1, 1, 0.001, 0.0)]
    text = stages.report("a step", rows, together=0.004, whole=0.01, sgemm=4e9)
    assert text.startswith("a step: 10000 us. The executor takes 4000, the stages alone 3000, and "
                           "Python 6000.")
    assert "| conv2d | convolve | 0 | 4 | 2000.0 | 20.0% | 2.0 | 50% |" in text
    assert "| dense | copy | 1 | 1 | 1000.0 | 10.0% |  |  |" in text
