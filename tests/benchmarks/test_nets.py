"""The networks of the benchmarks are those that they are said to be."""

import json

import pytest

from benchmarks.growth import CONVOLUTIONS, series, thread_counts
from benchmarks.nets import EVERY_NET, NETS, Net, every_layer, net_of, pool, resnet18, shapes, training, training_flops


def weights(net):
    total = 0
    for (kind, *numbers), before, _ in every_layer(shapes(net)):
        if kind == "conv":
            filters, size, _, bias, _ = numbers
            total += size * size * before[-1] * filters + bias * filters
        elif kind == "depthwise":
            size, _, bias = numbers
            total += (size * size + bias) * before[-1]
        elif kind == "dense":
            units, bias = numbers
            total += before[0] * units + bias * units
        elif kind == "batchnorm":
            total += 2 * before[-1]
    return total


@pytest.mark.parametrize(("name", "flat", "count"), [
    ("W1", (1600,), 34826), ("W2", (1600,), 225226), ("W3", (576,), 87850),
    ("LeNet-5", (400,), 61706), ("M3", (11264,), 1124180), ("V1", (4096,), 2196810), ("G1", (15488,), 1232778),
])
def test_a_network_has_the_features_and_weights_that_were_counted_by_hand(name, flat, count):
    net = NETS[name]
    (after,) = [after for (kind, *_), _, after in shapes(net) if kind == "flatten"]
    assert after == flat
    assert weights(net) == count


def test_s1_takes_depthwise_and_1x1_convolutions_in_turns_and_the_average_of_each_channel():
    assert [layer[0] for layer, _, _ in shapes(NETS["S1"]) if "conv" in layer[0] or "depthwise" in layer[0]] == [
        "conv", *3 * ["depthwise", "conv"]]
    assert [after for (kind, *_), _, after in shapes(NETS["S1"]) if kind == "pool"] == [(16, 16, 64), (8, 8, 128)]
    assert [(before, after) for (kind, *_), before, after in shapes(NETS["S1"]) if kind == "average"] == [
        ((8, 8, 128), (128,))]
    kernels = 27 * 32 + 9 * 32 + 32 * 64 + 9 * 64 + 64 * 128 + 9 * 128 + 128 * 128 + 128 * 10
    biases, scales = 32 + 32 + 64 + 64 + 3 * 128 + 10, 2 * (32 + 32 + 64 + 64 + 3 * 128)
    assert weights(NETS["S1"]) == kernels + biases + scales


def test_m3_is_the_network_of_the_paper():
    convolutions = [(layer, after) for layer, _, after in shapes(NETS["M3"]) if layer[0] == "conv"]
    assert [layer[1] for layer, _ in convolutions] == [32, 48, 64, 80, 96, 112, 128, 144, 160, 176]
    assert [after[0] for _, after in convolutions] == [26, 24, 22, 20, 18, 16, 14, 12, 10, 8]
    # A bias before BatchNorm would do nothing.
    assert not any(layer[4] for layer, _ in convolutions)
    assert [layer[0] for layer in NETS["M3"].layers[-3:]] == ["flatten", "dense", "batchnorm"]


def test_resnet_18_is_the_network_of_the_paper():
    net = EVERY_NET["ResNet-18"]
    assert weights(net) == 11_689_512
    blocks = [after for (kind, *_), _, after in shapes(net) if kind == "residual"]
    assert blocks == [shape for shape in [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)] for _ in range(2)]
    projected = [bool(layer[2]) for layer, _, _ in shapes(net) if layer[0] == "residual"]
    assert projected == [False, False, *3 * [True, False]]
    kinds = [layer[0] for layer, _, _ in every_layer(shapes(net))]
    assert (kinds.count("conv"), kinds.count("dense"), kinds.count("batchnorm")) == (20, 1, 20)
    # 1.8 billion multiplications for an image, three times less one of the first convolution's.
    assert training_flops(net) == pytest.approx(8 * 2 * (3 * 1.814e9 - 118e6), rel=1e-3)


def test_strides_and_padding_of_windows():
    assert [after for _, _, after in shapes(resnet18(size=30, filters=2))[:5]] == [
        *3 * [(15, 15, 2)], (8, 8, 2), (8, 8, 2)]
    assert shapes(Net((7, 8, 1), 1, [pool(2)]))[0][2] == (3, 4, 1)


def test_the_batches_to_train_with():
    assert {name: net.batch for name, net in NETS.items()} == {
        "W1": 128, "W2": 128, "W3": 512, "LeNet-5": 128, "MLP": 128, "M3": 120, "V1": 64, "G1": 4,
        "S1": 32,
    }


def test_the_work_of_a_training_step():
    first, second, dense = 26 * 26 * 32 * 9, 11 * 11 * 64 * 9 * 32, 1600 * 10
    # The lowest layer needs no gradient of its input.
    assert training_flops(NETS["W1"]) == 2 * 128 * (2 * first + 3 * second + 3 * dense)


def test_a_network_survives_the_way_to_a_worker():
    net = net_of(json.loads(json.dumps(training(NETS["W2"]))))
    assert (net.input_shape, net.batch) == ((28, 28, 1), 128)
    assert weights(net) == weights(NETS["W2"])


def test_what_grows_grows_alone():
    points = series(threads=2)
    assert list(points) == ["batch", "filters", "image size", "threads"]
    assert [net.batch for _, net, _ in points["batch"]] == [value for value, _, _ in points["batch"]]
    assert {net.input_shape for _, net, _ in points["filters"]} == {(28, 28, 1)}
    assert [net.input_shape[0] for _, net, _ in points["image size"]] == [14, 28, 42, 56]
    assert [threads for _, _, threads in points["threads"]] == [1, 2]


def test_over_channels_the_work_stays_the_same():
    assert [(shape.size, shape.channels) for shape in CONVOLUTIONS] == [
        (224, 16), (112, 32), (56, 64), (28, 128), (14, 256), (7, 512)]
    assert all(shape.channels == shape.filters and shape.out == shape.size for shape in CONVOLUTIONS)
    assert len({shape.flops() for shape in CONVOLUTIONS}) == 1


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_threads_double_up_to_the_most(most, counts):
    assert thread_counts(most) == counts
