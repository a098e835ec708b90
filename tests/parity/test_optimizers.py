"""Optimizers and schedules against Keras and PyTorch, over many steps."""

import inspect
import math

import numpy as np
import pytest

from cnnlite import optimizers
from tests.helpers.optimizing import random_parameters, train

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.parity

STEPS = 20
CASES = [
    ("SGD", {"learning_rate": 0.3}),
    ("SGD", {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 0.3, "momentum": 0.9, "nesterov": True, "clipnorm": 0.5}),
    ("SGD", {"learning_rate": 0.3, "global_clipnorm": 0.7}),
    ("RMSprop", {"learning_rate": 0.1, "clipvalue": 0.4}),
    ("RMSprop", {"learning_rate": 0.1, "rho": 0.7, "momentum": 0.5, "centered": True, "epsilon": 1e-2}),
    ("Adam", {"learning_rate": 0.3}),
    ("Adam", {"learning_rate": 0.3, "amsgrad": True, "beta_2": 0.5, "epsilon": 1e-2, "weight_decay": 0.2}),
    ("AdamW", {"learning_rate": 0.3}),
    ("Adagrad", {"learning_rate": 0.5, "global_clipnorm": 1.0}),
    ("Adagrad", {"learning_rate": 0.5, "initial_accumulator_value": 0.0, "epsilon": 1e-2, "weight_decay": 0.1}),
]


def gradient(step, size):
    return np.random.default_rng(100 + step).normal(size=size)


def mine(name, arguments, dtype):
    parameters = random_parameters(dtype)
    train(getattr(optimizers, name)(**arguments), parameters, STEPS)
    return parameters.vector


@pytest.fixture
def keras_in(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


@pytest.mark.parametrize("keras_in", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_keras_makes_the_same_steps(name, arguments, keras_in):
    start = random_parameters(keras_in)
    variables = [keras.Variable(start.vector[place], dtype=keras_in) for place in start.slices]
    theirs = getattr(keras.optimizers, name)(**arguments)
    for step in range(STEPS):
        flat = gradient(step, start.vector.size).astype(keras_in)
        theirs.apply([torch.tensor(flat[place]) for place in start.slices], variables)
    expected = np.concatenate([keras.ops.convert_to_numpy(variable) for variable in variables])
    assert expected.dtype == keras_in
    # Keras works out Adam's 1 - beta**t in the precision of the weights, we in float64; and its `maximum` rounds the
    # norm of a gradient to float32, whatever the precision.
    clips_by_norm = "clipnorm" in arguments or "global_clipnorm" in arguments
    tolerance = 1e-5 if keras_in == "float32" else 1e-6 if clips_by_norm else 1e-9
    np.testing.assert_allclose(mine(name, arguments, keras_in), expected, rtol=0, atol=tolerance * abs(expected).max())


def eps_of_torch(step, epsilon):
    """What PyTorch's Adam has to be given at a step so that its epsilon is ours: theirs stands after the correction."""
    return epsilon / math.sqrt(1 - 0.999**step)


@pytest.mark.parametrize(
    ("name", "arguments", "theirs"),
    [
        ("SGD", {"learning_rate": 0.3}, lambda p: torch.optim.SGD(p, 0.3)),
        # With a learning rate that stays the same, PyTorch's m is ours divided by minus that rate.
        ("SGD", {"learning_rate": 0.3, "momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.3, momentum=0.9)),
        ("SGD", {"learning_rate": 0.3, "momentum": 0.9, "nesterov": True},
         lambda p: torch.optim.SGD(p, 0.3, momentum=0.9, nesterov=True)),
        # Epsilon stands under the root here and beside it in PyTorch: the two agree at 0.
        ("RMSprop", {"learning_rate": 0.1, "rho": 0.8, "epsilon": 0.0},
         lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.8, eps=0)),
        ("RMSprop", {"learning_rate": 0.1, "rho": 0.8, "epsilon": 0.0, "momentum": 0.5},
         lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.8, eps=0, momentum=0.5)),
        ("Adagrad", {"learning_rate": 0.5, "epsilon": 0.0},
         lambda p: torch.optim.Adagrad(p, 0.5, initial_accumulator_value=0.1, eps=0)),
        ("Adam", {"learning_rate": 0.3, "epsilon": 0.0}, lambda p: torch.optim.Adam(p, 0.3, eps=0)),
        ("AdamW", {"learning_rate": 0.3, "weight_decay": 0.2, "epsilon": 0.0},
         lambda p: torch.optim.AdamW(p, 0.3, eps=0, weight_decay=0.2)),
        ("Adam", {"learning_rate": 0.3, "epsilon": 0.05}, lambda p: torch.optim.Adam(p, 0.3)),
    ],
)
def test_pytorch_makes_the_same_steps(name, arguments, theirs):
    start = random_parameters("float64")
    p = torch.nn.Parameter(torch.tensor(start.vector))
    theirs = theirs([p])
    for step in range(STEPS):
        p.grad = torch.tensor(gradient(step, start.vector.size))
        if isinstance(theirs, torch.optim.Adam) and arguments["epsilon"]:
            theirs.param_groups[0]["eps"] = eps_of_torch(step + 1, arguments["epsilon"])
        theirs.step()
    np.testing.assert_allclose(mine(name, arguments, "float64"), p.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW", "Adagrad"])
def test_arguments_have_the_names_the_order_and_the_defaults_of_keras(name):
    ours = inspect.signature(getattr(optimizers, name)).parameters
    theirs = inspect.signature(getattr(keras.optimizers, name)).parameters
    left_out = {"use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor",
                "gradient_accumulation_steps", "kwargs"}
    expected = {key: parameter.default for key, parameter in theirs.items() if key not in left_out}
    assert {key: parameter.default for key, parameter in ours.items()} == expected
    assert list(ours) == list(expected)


SCHEDULES = [
    ("ExponentialDecay", (0.1, 7, 0.9), {}),
    ("ExponentialDecay", (0.1, 7, 0.9), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 7, 0.9), {}),
    ("InverseTimeDecay", (0.1, 7, 0.9), {"staircase": True}),
    ("PiecewiseConstantDecay", ([3, 11, 20], [0.4, 0.3, 0.2, 0.1]), {}),
    ("PolynomialDecay", (0.1, 10), {}),
    ("PolynomialDecay", (0.1, 10, 0.01), {"power": 2.0}),
    ("PolynomialDecay", (0.1, 10, 0.01), {"power": 0.5, "cycle": True}),
    ("CosineDecay", (0.1, 16), {}),
    ("CosineDecay", (0.1, 16), {"alpha": 0.2, "warmup_steps": 5}),
    ("CosineDecay", (0.1, 16), {"alpha": 0.2, "warmup_target": 0.7, "warmup_steps": 5}),
    ("CosineDecay", (0.0, 16), {"warmup_target": 0.7, "warmup_steps": 8}),
]


@pytest.mark.parametrize(("name", "positional", "keywords"), SCHEDULES)
def test_keras_has_the_same_learning_rates(name, positional, keywords):
    ours = getattr(optimizers.schedules, name)(*positional, **keywords)
    theirs = getattr(keras.optimizers.schedules, name)(*positional, **keywords)
    for step in range(45):
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", sorted({name for name, _, _ in SCHEDULES}))
def test_schedules_have_the_arguments_of_keras(name):
    ours = inspect.signature(getattr(optimizers.schedules, name)).parameters
    theirs = inspect.signature(getattr(keras.optimizers.schedules, name)).parameters
    assert [(key, parameter.default) for key, parameter in ours.items()] == [
        (key, parameter.default) for key, parameter in theirs.items()
    ]


@pytest.mark.parametrize(
    "arguments", [{}, {"pct_start": 0.45, "div_factor": 4.0, "final_div_factor": 10.0}, {"pct_start": 0.0}]
)
def test_pytorch_has_the_same_one_cycle(arguments):
    total = 30
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total, cycle_momentum=False, **arguments)
    ours = optimizers.schedules.OneCycle(0.4, total, **arguments)
    for step in range(total):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()
