import functools
import itertools

import numpy as np

from cnnlite import kernels
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import results

pytestmark = compiled_kernels_needed


def moved_twice(moveaxis, x, moves):
    for source, destination in moves:
        x = moveaxis(x, source, destination)
    return x


def test_two_moves_are_two_moves_although_sizes_are_alike():
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 1)).astype(np.float32)
    one_move = [(1, 2), (1, 3), (2, 3), (3, 1)]
    for moves in itertools.product(one_move, repeat=2):
        expected = moved_twice(np.moveaxis, x, moves)
        compute = functools.partial(moved_product, moves)
        np.testing.assert_array_equal(results(compute, {"x": x}, "x")[0], expected * expected)


def moved_product(moves, x):
    moved = moved_twice(kernels.moveaxis, x, moves)  # may be x itself, which the graph doesn't compute
    return kernels.multiply(moved, moved)


def test_a_move_and_its_opposite_are_none():
    x = Graph(np.float32).given((N, 5, 4, 3))
    for source, destination in itertools.permutations(range(1, 4), 2):
        assert kernels.moveaxis(kernels.moveaxis(x, source, destination), destination, source) is x
