"""Every library that is installed builds the same networks and computes the same convolutions."""

import pytest

from benchmarks.convolutions import DIRECTIONS, Convolution
from benchmarks.large import Dense
from benchmarks.measure import require_agreement
from benchmarks.nets import LEAKY_RELU, Net, conv, dense, depthwise, inference, pool, resnet18, training
from benchmarks.sides import EAGER, INFERS, JAX, KERAS, ONLY_INFER, TORCH, TORCH_COMPILE, TRAINS, is_installed
from benchmarks.workers import SideFailed, Worker
from tests.benchmarks.test_nets import weights

pytestmark = pytest.mark.parity

# Every kind of layer, with and without a bias, on images and on features.
DEPTHWISE = Net((6, 6, 2), 2, [
    depthwise(3, "same"), ("batchnorm",), LEAKY_RELU, depthwise(3, bias=False), conv(3, 1, "same"), ("average",),
    dense(10),
])
SMALL = Net((10, 10, 1), 2, [
    conv(2, 3), ("relu",), pool(2), conv(3, 3, "same", bias=False), ("batchnorm",), ("relu",),
    ("flatten",), ("dropout",), dense(5, bias=False), ("batchnorm",), ("relu",), dense(10),
])


@pytest.fixture(scope="module")
def workers():
    pytest.importorskip("torch")
    # Compiling C++ takes half a minute, and its network is PyTorch's.
    names = [name for name in dict.fromkeys(TRAINS + INFERS) if name != TORCH_COMPILE and is_installed(name)]
    started = {name: Worker(name, threads=1) for name in names}
    yield started
    for worker in started.values():
        worker.close()


def checks(workers, job, names):
    found = {}
    for name in names:
        if name in workers:
            found[name], _ = workers[name].prepare(job)
            assert workers[name].run(0)[0][0] > 0
    assert len(found) > 1
    return found


def test_all_build_networks_of_as_many_weights(workers):
    small = (9 * 2 + 2) + 9 * 2 * 3 + 2 * 3 + (48 * 5) + 2 * 5 + (5 * 10 + 10)
    depthwise = (9 * 2 + 2) + 2 * 2 + 9 * 2 + (2 * 3 + 3) + (3 * 10 + 10)
    for net, expected in (SMALL, small), (DEPTHWISE, depthwise):
        for job, names in [(training(net), TRAINS), (inference(net, 3), INFERS)]:
            assert set(checks(workers, job, names).values()) == {expected}


def test_all_that_have_residuals_build_a_resnet_of_as_many_weights(workers):
    net = resnet18(size=20, filters=4, classes=10)
    expected = weights(net)
    for job, names in [(training(net), EAGER), (inference(net, 3), [*EAGER, *ONLY_INFER])]:
        assert set(checks(workers, job, names).values()) == {expected}


@pytest.mark.parametrize("name", [KERAS, JAX])
def test_a_library_without_residuals_is_left_out(workers, name):
    if name not in workers:
        pytest.skip(f"{name} is not installed")
    with pytest.raises(SideFailed, match=r"(?i)residual"):
        workers[name].prepare(inference(resnet18(size=20, filters=4), 1))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_compute_the_same_convolution(workers, direction):
    shape = Convolution(2, 9, 3, 4, 3, stride=2, pad=1)
    found = checks(workers, {"kind": "conv", "shape": shape, "direction": direction}, EAGER)
    require_agreement(found)
    assert found[TORCH] > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_compute_the_same_product(workers, direction):
    found = checks(workers, {"kind": "dense", "shape": Dense(5, 33, 17), "direction": direction}, EAGER)
    require_agreement(found)
    assert found[TORCH] > 0
