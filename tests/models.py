"""Small models and data that several files of tests share."""

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback
from cnnlite.random import RandomStream

N, D, K = 50, 6, 3


def make_data():
    """Return N samples of D numbers, and for each the largest of K sums: a class that can be learnt."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, D)).astype(np.float32)
    return x, (x @ generator.normal(size=(D, K))).argmax(axis=1)


def make_model(*, optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=("accuracy",),
               activation="softmax", regularizer=None, batchnorm=False, seed=1):
    cnnlite.utils.set_random_seed(seed)
    stack = [layers.Dense(8, activation="relu", kernel_regularizer=regularizer)]
    stack += [layers.BatchNorm()] if batchnorm else []
    model = cnnlite.Sequential([*stack, layers.Dense(K, activation=activation)])
    model.compile(optimizer, loss, metrics=list(metrics))
    model.build((None, D))
    model.shuffle_random = RandomStream(seed)
    return model


def weights_of(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


def fit(model, x, y, **arguments):
    return model.fit(x, y, **{"verbose": 0, **arguments})


class Stop(Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True
