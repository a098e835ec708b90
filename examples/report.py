"""A picture of a training run: its curves, its confusion matrix, and the digits that it got most wrong."""

import matplotlib

matplotlib.use("Agg")  # draws to files; no display needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, PercentFormatter

TRAINING, TEST, RIGHT, WRONG, GREY = "#9467bd", "#e07b39", "#2f6f9f", "#c0392b", "#666666"
INK = LinearSegmentedColormap.from_list("", ["#f0f0f0", "#111111"])
WRONGEST = 20  # digits, in two rows
LEFT, RIGHT_END = 0.06, 0.965  # left and right edge of all panels, as fractions of the width


def confusion_matrix(y_true, y_pred, classes=10):
    """Return how often each digit (row) was taken for each digit (column)."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (y_true, y_pred), 1)
    return counts


def draw(history, images, y_true, probabilities, path, title):
    """Write the picture.

    Args:
        history: {"loss", "accuracy", "val_loss", "val_accuracy"}, one value per epoch; may be empty.
        images: the test images, (N, 28, 28).
        y_true: their labels, (N,).
        probabilities: the model's predictions, (N, 10).
        path: where to write the PNG.
        title: the title of the picture.
    """
    y_pred = probabilities.argmax(axis=1)
    with plt.rc_context({"font.size": 10, "axes.titlesize": 12, "axes.titleweight": "bold",
                         "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(14, 11.5))
        figure.suptitle(title, fontsize=17, fontweight="bold", x=LEFT, y=0.972, ha="left")
        curves = figure.add_gridspec(2, 1, left=LEFT, right=0.42, top=0.905, bottom=0.375, hspace=0.4).subplots()
        matrix = figure.add_axes((0.51, 0.375, RIGHT_END - 0.51, 0.53))
        digits = figure.add_gridspec(
            2, WRONGEST // 2, left=LEFT, right=RIGHT_END, top=0.24, bottom=0.02, wspace=0.28, hspace=0.3
        ).subplots()
        _draw_curve(curves[0], history, "loss", "Loss")
        _draw_curve(curves[1], history, "accuracy", "Accuracy")
        _draw_confusion(matrix, confusion_matrix(y_true, y_pred))
        _draw_wrongest(digits.ravel(), images, y_true, y_pred, probabilities)
        figure.text(LEFT, 0.298, f"The {min(WRONGEST, int((y_pred != y_true).sum()))} test digits that the model got "
                    "most wrong", fontsize=12, fontweight="bold")
        figure.text(LEFT, 0.278, "what it was, what the model took it for, and how sure the model was",
                    fontsize=10, color=GREY)
        figure.savefig(path, dpi=110, facecolor="white")
        plt.close(figure)


def _draw_curve(axes, history, key, title):
    for name, label, color in ((key, "training (mean over the epoch, with dropout)", TRAINING),
                               (f"val_{key}", "test (after the epoch)", TEST)):
        values = history.get(name, [])
        axes.plot(range(1, len(values) + 1), values, "o-", color=color, label=label, linewidth=2, markersize=5)
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    if key == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    if history.get(key):
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no epoch was completed", transform=axes.transAxes, ha="center", color=GREY)


def _draw_confusion(axes, counts):
    # Right answers outnumber wrong ones by hundreds to one, so each kind gets a colour and a scale of its own.
    diagonal = np.eye(len(counts), dtype=bool)
    for kind, color in ((diagonal, RIGHT), (~diagonal, WRONG)):
        top = max(1, counts[kind].max())
        shown = np.ma.masked_where(~kind | (counts == 0), counts)
        colors = LinearSegmentedColormap.from_list("", ["#f4f4f4", color])
        axes.imshow(shown, cmap=colors, vmin=0, vmax=1.35 * top)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            top = counts[diagonal if i == j else ~diagonal].max()
            axes.text(j, i, f"{count:,}", ha="center", va="center", fontsize=10,
                      color="white" if count > 0.55 * top else "#222222")
    digits = range(len(counts))
    axes.set_xticks(digits, digits)
    axes.set_yticks(digits, digits)
    axes.set_xticks(np.arange(-0.5, len(counts)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(counts)), minor=True)
    axes.grid(which="minor", color="#e8e8e8", linewidth=1)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Confusion matrix, in test images", loc="left")
    axes.set_xlabel("taken for")
    axes.set_ylabel("was")


def _draw_wrongest(all_axes, images, y_true, y_pred, probabilities):
    # The most wrong are those whose true class got the lowest probability.
    of_truth = probabilities[np.arange(len(y_true)), y_true]
    wrong = np.flatnonzero(y_pred != y_true)
    wrong = wrong[np.argsort(of_truth[wrong], kind="stable")]
    for axes in all_axes:
        axes.axis("off")
    for axes, i in zip(all_axes, wrong):
        axes.imshow(images[i], cmap=INK, vmin=0, vmax=255)
        axes.set_title(f"{y_true[i]} → {y_pred[i]}  {_percent(probabilities[i, y_pred[i]])}",
                       fontsize=10, fontweight="normal", color=WRONG, pad=4)
    if not len(wrong):
        all_axes[0].text(0, 0.5, "none", color=GREY)


def _percent(probability):
    return ">99.9%" if probability > 0.999 else f"{100 * probability:.1f}%"
