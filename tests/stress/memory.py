"""A process that trains, predicts, and makes and deletes models, and looks at what memory it has after each round.

    python -m tests.stress.memory WAY ROUNDS STEPS

It prints, as JSON, how many times it did so, and for each measure what it was after each round:

    resident    bytes of memory that the process has in the machine's (Linux)
    blocks      pieces of memory that Python's objects have
    objects     objects that Python's collector of garbage knows
    arrays      arrays that compiled code has allocated and not freed
"""

import gc
import json
import os
import sys
import threading
import weakref
from collections import Counter

os.environ["NUMBA_NRT_STATS"] = "1"  # before numba is imported

import numpy as np
from numba.core.runtime import rtsys

import cnnlite
from cnnlite import layers
from cnnlite.model.passes import PLANS_KEPT
from cnnlite.model.training_step import StepPlan

SIZE, CLASSES, BATCH, MOST = 12, 10, 8, 32
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def measures():
    gc.collect()
    stats = rtsys.get_allocation_stats()
    return {"resident": resident(), "blocks": sys.getallocatedblocks(), "objects": len(gc.get_objects()),
            "arrays": stats.mi_alloc - stats.mi_free}


def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def make_model():
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(SIZE, SIZE, 1)), layers.Conv2D(16, 3), layers.BatchNorm(), layers.ReLU(),
        layers.MaxPool(), layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dropout(0.3),
        layers.Dense(32, activation="relu"), layers.Dense(CLASSES, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_data(number):
    generator = np.random.default_rng(0)
    return generator.normal(size=(number, SIZE, SIZE, 1)).astype("f4"), generator.integers(0, CLASSES, number)


def fit(rounds, steps):
    """Train the same model, with a fit for each round."""
    model, (x, y) = make_model(), make_data(steps * BATCH)

    def run():
        model.fit(x, y, batch_size=BATCH, verbose=0)
        assert not workspaces_of(model)

    return watched(run, rounds)


def train_on_batch(rounds, steps):
    """Train with batches of changing size; the workspace stays as large as the largest of them needs."""
    model, (x, y), sizes = make_model(), make_data(MOST), np.random.default_rng(1)
    largest = make_model()
    largest.train_on_batch(x, y)

    def run():
        for size in (MOST, *sizes.integers(1, MOST, steps - 1)):
            model.train_on_batch(x[:size], y[:size])
        assert workspaces_of(model) == workspaces_of(largest) > 0

    return watched(run, rounds)


def plans_of(model):
    """Return {key: plan with what belongs to it} of all that the model keeps."""
    return {key: value for key, value in (model.memo._found or {}).items() if hasattr(value, "plan")}


def workspaces_of(model):
    """Return the bytes of memory that the model's training steps keep for the next one."""
    memories = {made.plan.workspace.memory for made in plans_of(model).values() if isinstance(made, StepPlan)}
    return sum(memory.bytes.nbytes for memory in memories)


def predict(rounds, steps):
    """Ask with batches of changing size, in three ways, and now and then in a new thread."""
    model, (x, y), sizes = make_model(), make_data(MOST), np.random.default_rng(1)
    ways = (lambda part: model.predict(part, verbose=0), lambda part: model.predict(part, batch_size=5, verbose=0),
            model)

    def run():
        for i, size in enumerate(sizes.integers(1, MOST + 1, steps)):
            answers = []
            if i % 100:
                answers.append(ways[i % 3](x[:size]))
            else:
                thread = threading.Thread(target=lambda: answers.append(ways[i % 3](x[:size])))  # noqa: B023
                thread.start()
                thread.join()
            assert answers[0].shape == (size, CLASSES)
        model.evaluate(x, y, verbose=0)

    return watched(run, rounds)


def images(rounds, steps):
    """Ask and train a model that takes images of any size with images of changing size."""
    model = cnnlite.Sequential([layers.Conv2D(3, 3, padding="same", activation="relu"),
                                layers.Conv2D(24, 3, padding="same"), layers.GlobalAveragePool(),
                                layers.Dense(CLASSES, activation="softmax")])
    model.build((None, None, None, 1))
    model.compile("sgd", "sparse_categorical_crossentropy")

    def run():
        # The same ones in each round, so that what is kept of the last shapes is the same at the end of each.
        for i, size in enumerate(range(3, 3 + steps)):
            x = np.ones((1, 3, size, 1), "f4")
            if i % 2:
                model.predict(x, verbose=0)
            else:
                model.train_on_batch(x, [0])
        kept = Counter(type(made) for made in plans_of(model).values())
        assert kept[StepPlan] == PLANS_KEPT
        assert sorted(kept.values()) == [PLANS_KEPT] * 2  # the others are for inference

    return watched(run, rounds)


def delete(rounds, steps):
    """Make, train, ask, copy and delete models of 16 MB, with optimizers that have twice as much."""
    x, y = make_data(MOST)

    def one():
        model = cnnlite.Sequential([
            cnnlite.Input(shape=(SIZE, SIZE, 1)), layers.Conv2D(16, 3, activation="relu"), layers.BatchNorm(),
            layers.Conv2D(16, 3), layers.MaxPool(), layers.Flatten(), layers.Dense(4096), layers.Dense(700),
            layers.Dense(CLASSES, activation="softmax"),
        ])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, batch_size=BATCH, verbose=0)
        model.train_on_batch(x, y)
        model.predict(x, verbose=0)
        model(x[:1])
        copy = cnnlite.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy(x)
        things = [model, copy, model.optimizer, model.parameters(), *model.walk(), *copy.walk(), *model.metrics]
        things += [model.parameters().vector, model.parameters().gradient]
        things += [*plans_of(model).values(), *plans_of(copy).values()]
        return [weakref.ref(thing) for thing in things]

    def run():
        for _ in range(steps):
            references = one()
            gc.collect()
            assert all(reference() is None for reference in references)

    return watched(run, rounds)


def watched(run, rounds):
    """Return the measures after each round but the first two, in which all that is made once is made."""
    result = []
    for i in range(rounds + 2):
        run()
        if i >= 2:
            result.append(measures())
    return {name: [measure[name] for measure in result] for name in result[0]}


WAYS = {function.__name__: function for function in (fit, train_on_batch, predict, images, delete)}


def main(way, rounds, steps):
    rounds, steps = int(rounds), int(steps)
    print(json.dumps({"times": (rounds + 2) * steps, **WAYS[way](rounds, steps)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
