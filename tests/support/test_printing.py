"""What is shown on a stream that can't encode every character: in escapes and ASCII, and never an error."""

import io
import sys

import numpy as np
import pytest

import cnnlite
from cnnlite import callbacks, layers
from cnnlite.engine import cache
from cnnlite.model.progress import Progress
from cnnlite.support.printing import print_text

ENCODINGS = ["ascii", "cp1252", "latin-1", "cp437"]
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X.sum(axis=1)


class Stream(io.TextIOWrapper):
    """A file or a terminal of an encoding, without mercy."""

    def __init__(self, encoding, is_terminal=False):
        super().__init__(io.BytesIO(), encoding=encoding, newline="")
        self.isatty = lambda: is_terminal

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def stdout(monkeypatch):
    def put_in_place(encoding, is_terminal=False):
        monkeypatch.setattr(sys, "stdout", Stream(encoding, is_terminal))
        return sys.stdout

    return put_in_place


def model(name="größe_漢"):
    made = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1, name=name)], name=name)
    made.compile("sgd", "mse")
    return made


SUMMARY = """\
Model: "m"
+--------------------------------+------------------------+---------------+
| Layer (type)                   | Output Shape           |       Param # |
+================================+========================+===============+
| dense (Dense)                  | (None, 1)              |             4 |
+--------------------------------+------------------------+---------------+
| re_lu (ReLU)                   | (None, 1)              |             0 |
+--------------------------------+------------------------+---------------+
 Total params: 4 (16.00 B)
 Trainable params: 4 (16.00 B)
 Non-trainable params: 0 (0.00 B)
"""


def small():
    return cnnlite.Sequential([layers.Dense(1, input_shape=(3,), name="dense"), layers.ReLU(name="re_lu")], name="m")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_summary_is_drawn_with_what_stdout_can_encode(stdout, encoding):
    stream = stdout(encoding)
    small().summary()
    assert stream.text() == SUMMARY


@pytest.mark.parametrize("errors", ["replace", "backslashreplace", "ignore"])
def test_a_summary_is_drawn_in_ascii_where_stdout_would_replace_the_lines(monkeypatch, errors):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors, newline="")
    monkeypatch.setattr(sys, "stdout", stream)
    small().summary(print_fn=print)
    stream.flush()
    assert stream.buffer.getvalue().decode() == SUMMARY


def test_a_summary_keeps_its_lines_where_they_can_be_encoded(stdout):
    stream = stdout("utf-8")
    small().summary()
    assert "┏━━" in stream.text()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_summary_that_print_fn_can_not_encode_is_given_to_it_in_ascii(encoding):
    file = Stream(encoding)
    small().summary(print_fn=lambda text: file.write(text + "\n"))
    assert file.text() == SUMMARY


def test_the_lines_of_a_summary_have_one_length_with_names_in_escapes(stdout):
    stream = stdout("cp1252")
    model().summary()
    table = [line for line in stream.text().splitlines() if line[0] in "+|"]
    assert "| größe_\\u6f22 (Dense)" in stream.text()
    assert 'Model: "größe_\\u6f22"' in stream.text()
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize("is_terminal", [False, True])
def test_metrics_of_any_name_are_shown_while_a_model_trains(stdout, is_terminal):
    def error(y_true, y_pred):
        return np.abs(y_true - y_pred)

    error.__name__ = "größe_漢"
    stream = stdout("ascii", is_terminal)
    trained = model()
    trained.compile("sgd", "mse", metrics=[error])
    trained.fit(X, Y, epochs=1, verbose=1)
    trained.evaluate(X, Y, verbose=1)
    assert "gr\\xf6\\xdfe_\\u6f22 " in stream.text()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_bar_is_drawn_with_what_a_terminal_can_encode(stdout, encoding):
    stream = stdout(encoding, is_terminal=True)
    shown = Progress("Epoch 1/1", 2, verbose=1)
    shown.step(4)
    shown.show({"漢": 0.5})
    shown.close()
    assert "50%|#####" in stream.text().replace(" ", "")
    assert "\\u6f22 0.5000" in stream.text()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_message_with_any_path_is_shown_beside_a_bar_and_without_one(stdout, tmp_path, is_terminal):
    stream = stdout("cp1252", is_terminal)
    path = tmp_path / "päth 漢.safetensors"
    model().fit(X, Y, verbose=1, callbacks=[callbacks.ModelCheckpoint(str(path), verbose=1)])
    assert path.exists()
    assert "päth \\u6f22.safetensors\n" in stream.text()


def test_a_path_that_is_no_text_is_shown_on_any_stream(stdout):
    stream = stdout("utf-8")
    print_text("saved in \udcff")  # as Python names a file called b"\xff"
    assert stream.text() == "saved in \\udcff\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_reports_can_be_printed(stdout, encoding):
    stream = stdout(encoding)
    target = model("漢")
    print(cnnlite.check_gradients(target, X, Y))
    target.layers[0].params["bias"][:] = np.nan
    print(cnnlite.utils.find_nonfinite(target, X))
    assert "\\u6f22/kernel  (3, 1)  all" in stream.text()
    assert "the weight \\u6f22/bias is nan" in stream.text()
    with pytest.raises(UnicodeEncodeError):
        print("漢", flush=True)


def test_what_is_said_of_the_kernels_is_not_lost_on_a_stream_that_can_not_encode_a_folder(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream("ascii"))
    cache._say("nothing can be kept in /home/jürgen.")
    assert sys.stderr.text() == "cnnlite: nothing can be kept in /home/j\\xfcrgen.\n"


class HandsOn:
    """A stream that does not tell its encoding, as many write who want a log beside the screen."""

    def __init__(self, stream):
        self.write, self.flush = stream.write, stream.flush


def test_a_stream_that_does_not_tell_its_encoding_gets_escapes_where_it_must(monkeypatch):
    stream = Stream("ascii")
    monkeypatch.setattr(sys, "stdout", HandsOn(stream))
    small().summary()
    print_text("ü")
    assert stream.text() == SUMMARY + "\\xfc\n"


def test_without_a_stdout_nothing_is_shown_and_nothing_fails(monkeypatch):
    # As in a program of Windows without a console.
    monkeypatch.setattr(sys, "stdout", None)
    small().summary()
    model().fit(X, Y, verbose=1, callbacks=[callbacks.EarlyStopping("loss", patience=0, verbose=1, min_delta=1e9)],
                epochs=3)
