"""A whole script as Keras users write it, timed from start to exit: the simple MNIST convnet, two epochs.

Run as a program, this file is that script. Both libraries use the images bundled with cnnlite, so nothing is
downloaded.
"""

import importlib
import subprocess
import sys
import time

import numpy as np

from benchmarks.sides import CNNLITE, KERAS
from benchmarks.workers import ROOT, environment

IMAGES = ROOT / "cnnlite" / "datasets" / "mnist.npz"
SAMPLES, FEW = 60_000, 3_000  # the whole training set; enough to compile everything
LIBRARIES = {CNNLITE: "cnnlite", KERAS: "keras"}


def seconds(names, threads, rounds, samples=SAMPLES):
    """Return {side: [seconds, for each round]}; the sides take turns.

    A short run first is a warm-up: cnnlite may have to compile kernels in it.
    """
    variables = {**environment(threads), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2",
                 "CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": str(threads)}
    for name in names:
        run(name, variables, FEW)
    times = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            times[name].append(run(name, variables, samples))
    return times


def run(name, variables, samples):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "benchmarks.script", LIBRARIES[name], str(samples)], env=variables,
                          capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"The script failed with {name}:\n{done.stderr}")
    return time.perf_counter() - start


def main(library, samples):
    keras = importlib.import_module(library)
    layers = keras.layers

    with np.load(IMAGES) as images:
        x_train, y_train, x_test, y_test = (images[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    x_train = np.expand_dims(x_train[:samples].astype("float32") / 255, -1)
    x_test = np.expand_dims(x_test.astype("float32") / 255, -1)
    y_train = keras.utils.to_categorical(y_train[:samples], 10)
    y_test = keras.utils.to_categorical(y_test, 10)

    model = keras.Sequential([
        keras.Input(shape=(28, 28, 1)),
        layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ])
    model.summary()
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=128, epochs=2, validation_split=0.1)
    score = model.evaluate(x_test, y_test, verbose=0)
    print("Test loss:", score[0])
    print("Test accuracy:", score[1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
