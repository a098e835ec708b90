"""Data that are no plain arrays, in every place that takes data: refused, before anything is changed."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.data.batches import is_stream
from tests.helpers.models import K, fit, make_data, make_model, weights_of
from tests.support.test_arguments import Archive, Frame, Sparse

X, Y = make_data()
HIDDEN_X = np.ma.masked_invalid(np.where(X > 1, np.nan, X))
HIDDEN_Y = np.ma.array(Y, mask=Y == 0)
WEIGHTS = np.ma.array(np.ones(len(X)), mask=False)

TAKERS = {
    "fit x": lambda m: fit(m, HIDDEN_X, Y),
    "fit y": lambda m: fit(m, X, HIDDEN_Y),
    "fit sample_weight": lambda m: fit(m, X, Y, sample_weight=WEIGHTS),
    "fit validation x": lambda m: fit(m, X, Y, validation_data=(HIDDEN_X, Y)),
    "fit validation y": lambda m: fit(m, X, Y, validation_data=(X, HIDDEN_Y)),
    "fit validation weights": lambda m: fit(m, X, Y, validation_data=(X, Y, WEIGHTS)),
    "fit validation_split": lambda m: fit(m, HIDDEN_X, Y, validation_split=0.5),
    "fit generator x": lambda m: m.fit(iter([(HIDDEN_X, Y)]), verbose=0),
    "fit generator y": lambda m: m.fit(iter([(X, HIDDEN_Y)]), verbose=0),
    "fit generator weights": lambda m: m.fit(iter([(X, Y, WEIGHTS)]), verbose=0),
    "fit list": lambda m: fit(m, list(HIDDEN_X), Y),
    "train_on_batch": lambda m: m.train_on_batch(HIDDEN_X, Y),
    "test_on_batch": lambda m: m.test_on_batch(X, HIDDEN_Y),
    "evaluate": lambda m: m.evaluate(HIDDEN_X, Y, verbose=0),
    "predict": lambda m: m.predict(HIDDEN_X, verbose=0),
    "predict generator": lambda m: m.predict(iter([HIDDEN_X]), verbose=0),
    "predict_on_batch": lambda m: m.predict_on_batch(HIDDEN_X),
    "model(x)": lambda m: m(HIDDEN_X),
    "layer(x)": lambda m: m.layers[0](HIDDEN_X),
    "a new layer": lambda m: layers.Dense(2)(HIDDEN_X),
    "set_weights": lambda m: m.set_weights([np.ma.array(w) for w in m.get_weights()]),
    "params[name] =": lambda m: m.layers[0].params.__setitem__("bias", np.ma.array(m.layers[0].params["bias"])),
    "params.update": lambda m: m.layers[0].params.update(bias=np.ma.array(m.layers[0].params["bias"])),
    "layer.bias =": lambda m: setattr(m.layers[0], "bias", np.ma.array(m.layers[0].bias)),
    "loss y": lambda m: m.loss(HIDDEN_Y, np.eye(K)[Y]),
    "loss y_pred": lambda m: m.loss(Y, np.ma.array(np.eye(K)[Y])),
    "loss sample_weight": lambda m: m.loss(Y, np.eye(K)[Y], WEIGHTS),
    "metric y": lambda m: m.metrics[0].update_state(HIDDEN_Y, np.eye(K)[Y]),
    "metric y_pred": lambda m: m.metrics[0].update_state(Y, np.ma.array(np.eye(K)[Y])),
    "metric sample_weight": lambda m: m.metrics[0].update_state(Y, np.eye(K)[Y], WEIGHTS),
    "mean": lambda m: cnnlite.metrics.Mean().update_state(HIDDEN_X),
    "to_categorical": lambda m: cnnlite.utils.to_categorical(HIDDEN_Y),
    "normalize": lambda m: cnnlite.utils.normalize(HIDDEN_X),
    "check_gradients": lambda m: cnnlite.check_gradients(m, HIDDEN_X),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_masked_array_is_refused_everywhere(taker):
    model = make_model(batchnorm=True)
    before = weights_of(model)
    with pytest.raises(TypeError, match=r"without a mask.*filled\(0\)"):
        TAKERS[taker](model)
    np.testing.assert_array_equal(weights_of(model), before)
    assert model.optimizer.iterations == 0


OTHERS = {
    "sparse x": (lambda m: fit(m, Sparse(), Y), r"toarray\(\)"),
    "sparse y": (lambda m: fit(m, X, Sparse()), r"toarray\(\)"),
    "sparse in predict": (lambda m: m.predict(Sparse(), verbose=0), r"toarray\(\)"),
    "sparse in evaluate": (lambda m: m.evaluate(Sparse(), Y, verbose=0), r"toarray\(\)"),
    "sparse in a generator": (lambda m: m.fit(iter([(Sparse(), Y)]), verbose=0), r"toarray\(\)"),
    "sparse in a call": (lambda m: m(Sparse()), r"toarray\(\)"),
    "frame": (lambda m: fit(m, Frame(*X.T), Y), r'x.astype\("float32"\)'),
    "frame with names": (lambda m: fit(m, Frame(*X.T, ["a"] * len(X)), Y), r"a str at x\[0, 6\]"),
    "frame of y": (lambda m: fit(m, X, Frame(Y)), r'y.astype\("float32"\)'),
    "objects in validation": (lambda m: fit(m, X, Y, validation_data=(X.astype(object), Y)), r'astype\("float32"\)'),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_containers_are_refused_with_the_way_to_an_array(case):
    call, message = OTHERS[case]
    model = make_model()
    before = weights_of(model)
    with pytest.raises(TypeError, match=message):
        call(model)
    np.testing.assert_array_equal(weights_of(model), before)


def test_a_sparse_matrix_is_no_stream_of_its_rows():
    assert not is_stream(Sparse())


def test_a_file_of_arrays_is_no_stream_of_them():
    for call in (lambda m: m.predict(Archive(), verbose=0), lambda m: fit(m, Archive(), Y)):
        with pytest.raises(TypeError, match=r"x must be an array\. Received: a Archive"):
            call(make_model())


def test_a_list_of_batches_lacks_its_targets():
    with pytest.raises(ValueError, match=r"y must be given.* let a generator yield \(x, y\)"):
        make_model().fit([(X, Y), (X, Y)], verbose=0)


def test_the_remedy_for_a_weight_is_no_name_of_two_words():
    model = make_model()
    for weights, remedy in ((np.ma.array(X), r": filled\(0\)\."), (Sparse(), r"Pass toarray\(\)\.")):
        with pytest.raises(TypeError, match=remedy):
            model.set_weights([weights, *model.get_weights()[1:]])


def test_scipys_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array, sparse.lil_array):
        with pytest.raises(TypeError, match=r"toarray\(\)"):
            make_model().predict(make(X), verbose=0)
