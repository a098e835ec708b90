"""Which stages may follow one another on a band of rows while other threads work on other bands."""

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.schedule import Schedule
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed


def groups(add):
    graph = Graph(np.float32)
    add(graph.given((N, 8, 6, 3)))
    return [[[step.stage.name for step in track.steps] for track in group]
            for group in Schedule(graph, graph.steps, banded=True).groups]


def test_the_same_rows_follow_at_once():
    assert groups(lambda x: kernels.tanh(kernels.relu(x))) == [[["relu", "tanh"]]]


@pytest.mark.parametrize("shape", [(N, 144), (N, 4, 36), (N, 6, 8, 3)])
def test_other_rows_wait_for_all(shape):
    assert groups(lambda x: kernels.tanh(kernels.relu(x).reshape(shape))) == [[["relu"]], [["tanh"]]]


def test_a_softmax_of_each_pixel_follows_at_once_and_one_of_all_pixels_waits():
    assert groups(lambda x: kernels.softmax(kernels.relu(x))) == [[["relu", "softmax"]]]
    assert groups(lambda x: kernels.softmax(kernels.relu(x), (1, 2, 3))) == [[["relu"]], [["softmax"]]]


def test_whole_images_are_not_in_a_track_of_bands():
    def add(x):
        kernels.relu(x)
        kernels.moveaxis(x, 1, 2)

    assert groups(add) == [[["relu"]], [["swap"]]]


def test_what_others_still_read_rows_of_is_not_written():
    def add(x):
        kernels.pad(x, ((1, 1), (0, 0)))
        kernels.relu(kernels.relu(x), x)

    assert groups(add) == [[["pad", "relu"]], [["relu"]]]
