"""CSVLogger on files that other programs, or a process that was killed, have left behind."""

import csv

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import CSVLogger
from tests.helpers.dictated import run


def append(path, content, *values, **arguments):
    path.write_bytes(content)
    run(CSVLogger(path, append=True, **arguments), values or [0.5], name="loss")
    return path.read_bytes()


@pytest.mark.parametrize(("content", "expected"), [
    (b"epoch,loss\r\n0,1.5", b"epoch,loss\r\n0,1.5\r\n0,0.5\r\n"),
    (b"epoch,loss\n0,1.5", b"epoch,loss\n0,1.5\n0,0.5\n"),
    (b"epoch,loss\n0,1.5\n", b"epoch,loss\n0,1.5\n0,0.5\n"),
    (b"epoch,loss\r0,1.5\r", b"epoch,loss\r0,1.5\r0,0.5\r"),
    (b"epoch,loss", b"epoch,loss\r\n0,0.5\r\n"),
    (b"epoch,loss\r\n0,1.5\r\n1", b"epoch,loss\r\n0,1.5\r\n1\r\n0,0.5\r\n"),
    (b"\xef\xbb\xbfepoch,loss\r\n", b"\xef\xbb\xbfepoch,loss\r\n0,0.5\r\n"),
    (b"loss,other,epoch\r\n1,2,3", b"loss,other,epoch\r\n1,2,3\r\n0.5,NA,0\r\n"),
    (b'epoch,"loss"\r\n0,"1.5"', b'epoch,"loss"\r\n0,"1.5"\r\n0,0.5\r\n'),
    (b"", b"epoch,loss,val_loss\r\n0,0.5,NA\r\n"),
])
def test_a_row_is_appended_on_a_line_of_its_own_under_the_header(tmp_path, content, expected):
    assert append(tmp_path / "log.csv", content) == expected


def test_a_line_end_is_missed_before_each_row_and_not_only_the_first(tmp_path):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 1})
    path.write_bytes(path.read_bytes()[:-2])  # as an editor may save it meanwhile
    logger.on_epoch_end(1, {"loss": 2})
    assert path.read_bytes() == b"epoch,loss,val_loss\r\n0,1,NA\r\n1,2,NA\r\n"


def test_a_value_without_a_column_is_left_out_with_a_warning_once(tmp_path):
    with pytest.warns(UserWarning, match=r"log.csv has no column for loss, which is left out") as caught:
        content = append(tmp_path / "log.csv", b"epoch,accuracy\n", 1.0, 2.0)
    assert content == b"epoch,accuracy\n0,NA\n1,NA\n"
    assert len(caught) == 1


@pytest.mark.parametrize(("content", "separator", "remedy"), [
    (b"epoch;loss\n0;1\n", ",", r"Pass separator=';'"),
    (b"epoch\tloss\n", ",", r"Pass separator='\\t'"),
    (b"loss,epoch\n", "|", r"Pass separator=','"),
    (b"hello\n", ",", "Pass append=False"),
])
def test_a_file_with_another_separator_is_refused_with_the_right_one(tmp_path, content, separator, remedy):
    with pytest.raises(ValueError, match=rf"log.csv does not begin with a header.*{remedy}"):
        append(tmp_path / "log.csv", content, separator=separator)
    assert (tmp_path / "log.csv").read_bytes() == content


def test_a_file_that_ends_within_a_quoted_value_is_refused(tmp_path):
    content = b'epoch,loss\n0,"[0.1\n0.'
    with pytest.raises(ValueError, match=r"log.csv ends within a quoted value"):
        append(tmp_path / "log.csv", content)
    assert (tmp_path / "log.csv").read_bytes() == content


@pytest.mark.parametrize(("separator", "error"), [
    (", ", ValueError), ("", ValueError), ('"', ValueError), ("\n", ValueError), ("\r", ValueError),
    ("\0", ValueError), (None, TypeError), (b",", TypeError), (1, TypeError),
])
def test_a_separator_that_csv_can_not_have_is_refused_when_given(separator, error):
    with pytest.raises(error, match=r"CSVLogger: separator must be .*Received: separator="):
        CSVLogger("log.csv", separator=separator)


@pytest.mark.parametrize("separator", [";", "\t", " ", "|", "é"])
def test_other_separators_are_taken_and_read_back(tmp_path, separator):
    path = tmp_path / "log.csv"
    run(CSVLogger(path, separator), [0.5], name="a, b")
    run(CSVLogger(path, separator, append=True), [0.25], name="a, b")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=separator))
    assert [row["a, b"] for row in rows] == ["0.5", "0.25"]


@pytest.mark.parametrize(("filename", "error"), [(None, TypeError), (3, TypeError), ("", ValueError)])
def test_what_is_no_name_of_a_file_is_refused_when_given(filename, error):
    with pytest.raises(error, match=r"CSVLogger: filename must be .*Received: filename="):
        CSVLogger(filename)


def test_rows_that_come_again_are_taken_away_when_the_next_one_is_written(tmp_path):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path, append=True)
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 3})
    state, before = logger.get_state(), path.read_bytes()
    logger.on_epoch_end(1, {"loss": 2})
    later = path.read_bytes()
    for end in (lambda logger: logger.on_epoch_end(1, {"loss": 2}), lambda logger: logger.on_train_end({})):
        resumed = CSVLogger(path, append=True)
        resumed.on_train_begin({})
        resumed.set_state(state)
        assert path.read_bytes() == later  # for the backup may be refused yet
        assert resumed.get_state() == state
        end(resumed)
        assert path.read_bytes() in (later, before)
    assert path.read_bytes() == before


def test_a_fit_goes_on_in_a_file_that_was_torn(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"epoch,loss\r\n0,1.51")
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((4, 3), np.float32)
    history = model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[CSVLogger(path, append=True)])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [1.51, *history.history["loss"]]


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_is_moved_away_meanwhile_is_begun_anew_with_its_header(tmp_path, append):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path, append=append)
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 1})
    path.rename(tmp_path / "moved.csv")
    logger.on_epoch_end(1, {"loss": 2})
    logger.on_train_end({})
    assert path.read_bytes() == b"epoch,loss,val_loss\r\n1,2,NA\r\n"
    assert (tmp_path / "moved.csv").read_bytes() == b"epoch,loss,val_loss\r\n0,1,NA\r\n"
