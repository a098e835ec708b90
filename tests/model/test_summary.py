"""The table that `summary` prints."""

import pytest

import cnnlite
from cnnlite import layers
from cnnlite.model.summary import summary_table

TABLE = """\
Model: "small"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                   ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ conv2d (Conv2D)                │ (None, 6, 6, 8)        │            80 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│ batch_norm (BatchNorm)         │ (None, 6, 6, 8)        │            32 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│ flatten (Flatten)              │ (None, 288)            │             0 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│ dense (Dense)                  │ (None, 10)             │         2,890 │
└────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 3,002 (11.73 KB)
 Trainable params: 2,986 (11.66 KB)
 Non-trainable params: 16 (64.00 B)"""


def small():
    return cnnlite.Sequential([
        cnnlite.Input(shape=(8, 8, 1)),
        layers.Conv2D(8, 3),
        layers.BatchNorm(),
        layers.Flatten(),
        layers.Dense(10),
    ], name="small")


def text_of(model, **arguments):
    printed = []
    model.summary(print_fn=printed.append, **arguments)
    return "\n".join(printed)


def test_the_table_has_layers_shapes_and_counts():
    assert text_of(small()) == TABLE


def test_it_is_printed(capsys):
    small().summary()
    assert capsys.readouterr().out == TABLE + "\n"


def test_frozen_weights_count_as_not_trainable():
    model = small()
    model.layers[0].trainable = False
    assert " Trainable params: 2,906 (" in text_of(model)
    assert " Non-trainable params: 96 (" in text_of(model)


def test_a_model_that_is_not_built_says_so():
    model = cnnlite.Sequential([layers.Conv2D(8, 3), layers.Flatten()])
    text = text_of(model)
    assert "0 (unbuilt)" in text
    assert " ? " in text
    assert " Total params: 0 (0.00 B)" in text


@pytest.mark.parametrize("line_length", [100, 80])
def test_lines_have_the_length_that_was_asked_for(line_length):
    table = [line for line in text_of(small(), line_length=line_length).splitlines() if line[0] in "┏┃┡│├└"]
    assert {len(line) for line in table} == {line_length}


def test_long_names_widen_the_table():
    model = cnnlite.Sequential([layers.Flatten(name="a" * 60, input_shape=(2, 2))])
    text = text_of(model)
    assert "a" * 60 + " (Flatten)" in text
    assert len({len(line) for line in text.splitlines() if line[0] in "┏┃┡│├└"}) == 1


def test_a_model_inside_a_model_is_one_line_with_all_its_weights():
    inner = cnnlite.Sequential([layers.Dense(3), layers.BatchNorm()], name="inner")
    model = cnnlite.Sequential([layers.Dense(4, input_shape=(2,)), inner])
    text = text_of(model)
    assert "inner (Sequential)" in text
    assert " Total params: 39 (" in text  # 12 + 15 + 12
    assert " Non-trainable params: 6 (" in text


RESIDUALS = """\
│ block (Residual)               │ (None, 4, 4, 2)        │            10 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│   └ body/conv2d (Conv2D)       │ (None, 4, 4, 2)        │             6 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│   └ body/residual (Residual)   │ (None, 4, 4, 2)        │             0 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│     └ body/re_lu (ReLU)        │ (None, 4, 4, 2)        │             0 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│   └ shortcut/conv2d (Conv2D)   │ (None, 4, 4, 2)        │             4 │
├────────────────────────────────┼────────────────────────┼───────────────┤
│ flatten (Flatten)              │ (None, 32)             │             0 │
└────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 10 (40.00 B)
"""


def test_a_residual_is_followed_by_the_layers_of_its_branches():
    block = layers.Residual([layers.Conv2D(2, 1), layers.Residual(layers.ReLU())],
                            shortcut=layers.Conv2D(2, 1, use_bias=False), name="block")
    model = cnnlite.Sequential([cnnlite.Input((4, 4, 2)), block, layers.Flatten()])
    assert RESIDUALS in text_of(model) + "\n"
    unbuilt = cnnlite.Sequential([layers.Residual(layers.ReLU())])
    assert text_of(unbuilt).count("0 (unbuilt)") == 2
    ascii_only = summary_table(model, encoding="ascii")
    assert "|   + body/conv2d (Conv2D) " in ascii_only
    assert ascii_only.isascii()


def test_double_precision_takes_twice_the_memory():
    model = cnnlite.Sequential([layers.Dense(4, input_shape=(2,), dtype="float64")])
    assert " Total params: 12 (96.00 B)" in text_of(model)
