"""Writing a file: where it goes, and what is there when that fails."""

import os

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.models import dense_model


@pytest.mark.parametrize("ending", [".keras", ".h5", ".hdf5", ".pkl", ".H5", ".weights.h5"])
def test_the_endings_of_other_formats_are_refused_with_what_cnnlite_writes(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    model = dense_model()
    for write in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"safetensors files only.*model\.safetensors"):
            write(path)
    assert not path.exists()
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="safetensors files only"):
        cnnlite.load_model(path)


def test_overwrite_false_keeps_a_file_that_is_there(path):
    path.write_text("mine")
    for write in (dense_model().save, dense_model().save_weights):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            write(path, overwrite=False)
    assert path.read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere .*does not exist"):
        dense_model().save(tmp_path / "nowhere" / "model.safetensors")


def test_a_folder_or_a_number_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        dense_model().save(tmp_path)
    with pytest.raises(IsADirectoryError, match=r"load_model: .* is a folder"):
        cnnlite.load_model(tmp_path)
    with pytest.raises(TypeError, match="path must be a string or a path"):
        dense_model().save(3)
    with pytest.raises(TypeError, match="path must be a string or a path"):
        cnnlite.load_model(None)


def test_a_model_without_weights_cannot_be_saved(path):
    model = cnnlite.Sequential([layers.Dense(2)])
    for write in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"has no weights yet. Call build"):
            write(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch, step):
    model = dense_model()
    model.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    model.layers[0].params["bias"] = np.ones(3)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupt_leaves_the_old_file(path, monkeypatch):
    model = dense_model()
    model.save(path)
    before = path.read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.save_weights(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_to_is_a_permission_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            dense_model().save(tmp_path / "model.safetensors")
    finally:
        tmp_path.chmod(0o700)


def test_a_link_stays_a_link(path, tmp_path):
    target = tmp_path / "target.safetensors"
    target.write_bytes(b"")
    path.symlink_to(target)
    dense_model().save(path)
    assert path.is_symlink()
    cnnlite.load_model(target)
