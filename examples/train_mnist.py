"""Train a convolutional network on the handwritten digits of MNIST and report the results.

    python examples/train_mnist.py                 all 60,000 images, 6 epochs
    python examples/train_mnist.py --quick         4,000 images, to check that everything works

Writes model.safetensors, history.csv and report.png to the folder given by --out. Ctrl-C stops training early and
keeps the best model so far.
"""

import argparse
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np

import cnnlite
from cnnlite import callbacks, layers
from cnnlite.optimizers import Adam, schedules
from cnnlite.support.distribution import how_to_install


def build_model():
    """Return the network: two rounds of convolution, normalisation and pooling, then two dense layers."""
    return cnnlite.Sequential([
        cnnlite.Input(shape=(28, 28, 1)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, use_bias=False),  # the beta of BatchNorm is the bias
        layers.BatchNorm(momentum=0.9),
        layers.ReLU(),
        layers.MaxPool(),
        layers.Conv2D(64, 3, use_bias=False),
        layers.BatchNorm(momentum=0.9),
        layers.ReLU(),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ])


def main():
    options = read_options()
    draw = find_report()
    options.out.mkdir(parents=True, exist_ok=True)
    model_file, history_file = options.out / "model.safetensors", options.out / "history.csv"

    cnnlite.utils.set_random_seed(options.seed)
    (x_train, y_train), (x_test, y_test) = cnnlite.datasets.mnist.load_data()
    if options.quick:
        x_train, y_train, x_test, y_test = x_train[:4000], y_train[:4000], x_test[:1000], y_test[:1000]

    model = build_model()
    model.summary()
    steps = options.epochs * math.ceil(len(x_train) / options.batch_size)
    model.compile(
        # The learning rate rises for the first quarter of training, then falls to almost zero.
        optimizer=Adam(schedules.OneCycle(options.learning_rate, total_steps=steps, pct_start=0.25)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = callbacks.History()
    best = callbacks.ModelCheckpoint(model_file, monitor="loss", save_best_only=True)
    try:
        model.fit(
            x_train[..., np.newaxis], y_train, batch_size=options.batch_size, epochs=options.epochs,
            # The test images are evaluated after each epoch only to plot the curves, not to select anything: the
            # best model is the one with the lowest training loss.
            validation_data=(x_test[..., np.newaxis], y_test),
            callbacks=[best, history, callbacks.CSVLogger(history_file)],
        )
        model.save(model_file)  # the final model, which is almost always the best
    except KeyboardInterrupt:
        model = keep_best(model, model_file, history.history.get("loss"))

    probabilities = model.predict(x_test[..., np.newaxis], batch_size=1000, verbose=0)
    accuracy = float((probabilities.argmax(axis=1) == y_test).mean())
    print(class_table(y_test, probabilities.argmax(axis=1)))
    print(f"\nTest accuracy: {accuracy:.2%} of {len(y_test):,} images\n")
    print(f"model    {model_file}")
    print(f"history  {history_file}")
    if draw is not None:
        picture = options.out / "report.png"
        title = f"cnnlite on MNIST: {accuracy:.2%} of {len(y_test):,} test images right"
        draw(history.history, x_test, y_test, probabilities, picture, title)
        print(f"picture  {picture}")


def keep_best(model, model_file, losses):
    """Return the best model of a run that was interrupted after these losses, and say where it was saved."""
    if not losses:
        model.save(model_file)
        print(f"\n\nInterrupted in the first epoch. The model at that point was saved to {model_file}.")
        return model
    best = 1 + int(np.argmin(losses))
    print(f"\n\nInterrupted. The best model so far, from epoch {best}, was saved to {model_file}.")
    return cnnlite.load_model(model_file)


def class_table(y_true, y_pred):
    """Return a table with the precision, the recall and the number of test images of each digit."""
    lines = ["", "digit  precision  recall  images"]
    for digit in range(10):
        is_digit, said_digit = y_true == digit, y_pred == digit
        right = int((is_digit & said_digit).sum())
        precision, recall = right / max(1, said_digit.sum()), right / max(1, is_digit.sum())
        lines.append(f"{digit:>5}  {precision:>9.2%}  {recall:>6.1%}  {is_digit.sum():>6,}")
    return "\n".join(lines)


def find_report():
    """Return the function that draws the picture; without Matplotlib say so before training, and return None."""
    if importlib.util.find_spec("matplotlib") is None:
        print(f"There will be no picture because Matplotlib is not installed. Run: {how_to_install('plot')}\n")
        return None
    from report import draw  # report.py, next to this file

    return draw


def read_options():
    parser = argparse.ArgumentParser(description="Train a convolutional network on MNIST.")
    parser.add_argument("--epochs", type=at_least(int, 1), help="passes over the images (default: 6; quick: 1)")
    parser.add_argument("--batch-size", type=at_least(int, 1), help="images per step (default: 128; quick: 32)")
    parser.add_argument("--learning-rate", type=at_least(float, 0), default=3e-3, help="peak value (default: 0.003)")
    parser.add_argument("--seed", type=at_least(int, 0), default=0, help="same seed, same result (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for the results (default: results)")
    parser.add_argument("--quick", action="store_true", help="train on 4,000 images, test on 1,000")
    options = parser.parse_args()
    if options.epochs is None:
        options.epochs = 1 if options.quick else 6
    if options.batch_size is None:
        options.batch_size = 32 if options.quick else 128
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"argument --out: must be a folder. Received: {options.out}, which is a file.")
    return options


def at_least(kind, minimum):
    """Return an argparse type: integers of at least the minimum, or floats above it."""
    rule = f"must be an integer of at least {minimum}" if kind is int else f"must be a number above {minimum}"

    def read(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and (value >= minimum if kind is int else value > minimum)):
            raise argparse.ArgumentTypeError(f"{rule}. Received: {text}.")
        return value

    return read


if __name__ == "__main__":
    # A path with characters that the terminal can't display must not end the run.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
