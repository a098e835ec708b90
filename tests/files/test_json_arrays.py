"""What callbacks and metrics remember, as JSON and arrays: every value comes back as it was."""

import json

import numpy as np
import pytest

from cnnlite.files.json_arrays import pack, unpack


@pytest.mark.parametrize("value", [
    None, True, 3, -0.0, float("inf"), 1e-320, 0.1 + 0.2, "text", [], [1, [2.5]], {"a": {"b": [1]}}, (1, (2,)),
    {1: 2}, {"$": 1}, np.float32(0.1), np.int64(3), np.bool_(True), np.arange(6.0)[::2], np.zeros((0, 3), "float16"),
    np.asfortranarray(np.arange(6).reshape(2, 3)), {"a": [np.ones(2), (np.float64(2),)]}, 2**80,
])
def test_values_come_back_as_they_were(value):
    def same(a, b):
        assert type(a) is type(b)
        if isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            assert all(map(same, a, b))
        elif isinstance(a, dict):
            assert list(a) == list(b)
            assert all(same(a[key], b[key]) for key in a)
        elif isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        else:
            assert repr(a) == repr(b)
        return True

    tensors = {}
    packed = json.loads(json.dumps(pack(value, tensors, "x")))
    assert same(unpack(packed, dict(tensors)), value)
    assert same(unpack(packed, dict(tensors)), value)


@pytest.mark.parametrize("value", [object(), {"a": [1j]}, np.array(["a"]), {1, 2}, np.ones(2, complex)])
def test_what_has_no_form_in_a_file_is_a_type_error_with_its_place(value):
    with pytest.raises(TypeError, match=r"^x.* is of type"):
        pack(value, {}, "x")
