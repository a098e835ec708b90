"""Files that nobody vouches for: random damage, headers that lie, and what a file claims costs no memory.

The checksums of these files fit: they are what a villain would write, and not what a disk damages.
"""

import json
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import CSVLogger
from tests.helpers.forging import forge, refused
from tests.helpers.models import dense_model
from tests.stress.fuzz import forged
from tests.stress.fuzz.targets import TARGETS

MEGABYTE = 2**20


def peak_memory(function, *arguments):
    """Return the most memory that was taken at a time while the function ran, in megabytes."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1] / MEGABYTE
    finally:
        tracemalloc.stop()


# Random damage, for each kind of file. The same attacks run for longer in `make stress`, and for hours under Atheris.


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(random=st.randoms(use_true_random=False), times=st.sampled_from([1, 1, 2, 3]))
def test_random_damage_is_refused_in_words_or_makes_no_difference(tmp_path_factory, name, random, times):
    target = TARGETS[name]
    data = random.choice(seeds_of(name))
    for _ in range(times):
        data = target.mutate(data, random)
    target.attack(data, tmp_path_factory.mktemp("damaged"))


_seeds: dict[str, list[bytes]] = {}


def seeds_of(name):
    if name not in _seeds:
        _seeds[name] = TARGETS[name].seeds()
    return _seeds[name]


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_damage_starts_from_is_accepted(tmp_path, name):
    # Some seeds are refused on purpose: weights without a model, an array that is there twice.
    assert sum(TARGETS[name].attack(seed, tmp_path) for seed in seeds_of(name)) >= len(seeds_of(name)) / 2


# Headers.


def header_of(shape=(2,), dtype="F32", offsets=(0, 8), **metadata):
    return json.dumps({
        "__metadata__": {"format": "cnnlite", "format_version": "1", **metadata},
        "w": {"dtype": dtype, "shape": shape, "data_offsets": offsets},
    }).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((2**63).to_bytes(8, "little") + b"{}", "header claims 9223372036854775808 bytes, but the file has 10"),
        (forged.with_header(b"[]" * 2**23 + b" "), "header claims 16777217 bytes, but 16777216 is the limit"),
        (forged.with_header(b"[]"), "header is not a JSON object"),
        (forged.with_header(b'{"__metadata__": {"format": 1}}'), "metadata are not strings"),
        (forged.with_header(b'{"__metadata__": {"format": "x", "format": "cnnlite"}}'), "a key appears twice"),
        (forged.with_header(b"[" * 100_000), "nested too deeply"),
        (forged.with_header(b"\xff\xfe{}"), "can't decode"),
        (forged.with_header(header_of(), bytes(7)), "arrays claim 8 bytes, but the file holds 7"),
        (forged.with_header(header_of(), bytes(9)), "arrays claim 8 bytes, but the file holds 9"),
        (forged.with_header(header_of(offsets=(4, 12)), bytes(12)), "lies at byte 4 of the arrays, where 0"),
        (forged.with_header(header_of(offsets=(8, 0)), bytes(8)), "has -8 bytes"),
        (forged.with_header(header_of(offsets=(-8, 0)), bytes(8)), "not sizes"),
        (forged.with_header(header_of(offsets=(0, 8, 9)), bytes(8)), "no dtype, shape and data_offsets"),
        (forged.with_header(header_of(shape=(10**6, 10**6)), bytes(8)), r"8 bytes, which is not what F32 \[1000000"),
        (forged.with_header(header_of(shape=(-1, -2)), bytes(8)), "not sizes"),
        (forged.with_header(header_of(shape=(True, 2)), bytes(8)), "not sizes"),
        (forged.with_header(header_of(shape=(2.0,)), bytes(8)), "not sizes"),
        (forged.with_header(header_of(shape="22"), bytes(8)), "not sizes"),
        (forged.with_header(header_of(shape=[1] * 65 + [2]), bytes(8)), "maximum supported dimension"),
        (forged.with_header(header_of(shape=(0, 2**62, 2**62), offsets=(0, 0))), "dimension|too big"),
        (forged.with_header(header_of(dtype="BF16"), bytes(8)), "dtype BF16, which cnnlite does not read"),
        (forged.with_header(header_of(dtype=["F32"]), bytes(8)), r"dtype \['F32'\], which"),
        (forged.with_header(header_of().replace(b'"w"', b'"\\ud800"'), bytes(8)), "surrogates not allowed"),
        (forged.with_header(header_of().replace(b'"w"', b'"\\u001b[2J"'), bytes(7)), "claim 8 bytes"),
        (forged.with_header(header_of(format="\x1b[2J" + "x" * 10_000)), r"by cnnlite: format='\\x1b\[2Jxxx"),
        (forged.with_header(header_of(format_version="9" * 10_000)), "format_version='999"),
        (forged.with_header(header_of(format_version="-1")), "format_version='-1'"),
        (forged.with_header(header_of(format_version="3", cnnlite_version="\x1b[2J")), r"version 3, .* cnnlite '\\x1b"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_lie(path, content, message):
    path.write_bytes(content)
    for read in (cnnlite.load_model, dense_model().load_weights):
        refused(path, message, read)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (cnnlite.load_model, dense_model().load_weights, cnnlite.datasets.mnist.load_data):
        refused(pipe, "is a pipe or a device", read)
    refused(pipe, "is not a file", lambda path: CSVLogger(path, append=True).on_train_begin())
    os.mkfifo(tmp_path / f"cnnlite-{'0' * 16}.tmp")  # as a writer that was killed might have left it
    dense_model().save(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(FileNotFoundError, match="must hold a file named train-images"):
        cnnlite.datasets.mnist.load_data(tmp_path)


# Memory.


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[0]["config"].update(units=10**9),
        lambda layers: layers[0]["config"].update(units=10**30),
        lambda layers: layers[0]["config"].update(units=200_000),
        lambda layers: layers.extend([
            {"class_name": "Dense", "config": {"units": 500, "name": f"d{i}", "kernel_initializer": "orthogonal"}}
            for i in range(200)
        ]),
        lambda layers: layers.insert(0, {"class_name": "ZeroPadding2D", "config": {"padding": 10**9}}),
    ],
)
def test_layers_larger_than_the_file_justifies_cost_no_memory(path, change):
    forge(path, change=change)
    assert peak_memory(refused, path, "can't be made") < 32


def test_loading_takes_little_more_than_two_times_the_weights(path):
    model = cnnlite.Sequential([cnnlite.Input((1000,)), layers.Dense(1000), layers.Dense(1000)])
    model.save(path)
    size = path.stat().st_size / MEGABYTE
    # The weights, the arrays of the file, and gradients, which are zeros that no page of memory holds yet.
    assert peak_memory(cnnlite.load_model, path) < 3.2 * size
    assert peak_memory(model.load_weights, path) < 1.2 * size


def test_a_file_of_more_layers_than_can_be_added_in_time_is_refused(path):
    model = {"class_name": "Sequential", "config": {
        "name": "s", "trainable": True, "given_input_shape": [4], "input_shape": [None, 4],
        "layers": [{"class_name": "Linear", "config": {}}] * 100_000,
    }}
    forge(path, model=model)
    refused(path, "a file may hold at most 10000 layers. Received: a model of 100000")


@pytest.mark.parametrize("branch", ["body", "shortcut"])
def test_layers_in_the_branches_of_a_residual_count_too(branch, path):
    def residual(inside):
        return {"class_name": "Residual", "config": {"name": "r", branch: inside}}

    layer = {"class_name": "Linear", "config": {}}
    many = {"class_name": "Sequential", "config": {"layers": [layer] * 20_000}}
    deep = layer
    for _ in range(60):
        deep = residual(deep)
    for inside, message in ((many, "a file may hold at most 10000 layers. Received: a model of 20002"),
                            (deep, "nest models at most 50 deep"), ({}, "a layer must be described by a class_name"),
                            (3, "a layer must be described by a class_name and a config. Received: 3")):
        forge(path, model={"class_name": "Sequential", "config": {
            "name": "s", "trainable": True, "given_input_shape": [4], "input_shape": [None, 4],
            "layers": [residual(inside)],
        }})
        refused(path, message)


def test_a_residual_alone_is_no_model(path):
    forge(path, model={"class_name": "Residual", "config": layers.Residual(layers.Linear()).get_config()})
    refused(path, "it is a Residual and not a model")


def test_a_description_too_large_for_a_file_is_refused_before_anything_is_written(path):
    model = cnnlite.Sequential([layers.Rescaling(np.full(900_000, 1 / 3), input_shape=(900_000,))])
    message = r"save: the description of the model takes \d+ bytes, but 16777216 is the limit"
    with pytest.raises(ValueError, match=message):
        model.save(path)
    assert not path.exists()


def test_models_nested_too_deeply_are_refused_when_loading_and_when_saving(path):
    block = (
        '{"class_name": "Sequential", "config": {"name": "s", "trainable": true, "given_input_shape": [4], '
        '"input_shape": [null, 4], "layers": ['
    )
    layer = '{"class_name": "Linear", "config": {}}'
    for depth, message in ((51, "50 deep"), (200, "50 deep"), (300, "50 deep|too deeply"), (9000, "too deeply")):
        path.write_bytes(forged.model_file({}, model=block * depth + layer + "]}}" * depth))
        refused(path, message)
    model = cnnlite.Sequential([layers.Dense(2, input_shape=(4,))])
    for _ in range(49):
        model = cnnlite.Sequential([model])
    model.build((None, 4))
    model.save(path)
    cnnlite.load_model(path)
    model = cnnlite.Sequential([model])
    model.build((None, 4))
    with pytest.raises(ValueError, match="save: a file may nest models at most 50 deep"):
        model.save(path)
