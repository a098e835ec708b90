"""Forged model files, and how they must be refused."""

import json

import pytest

import cnnlite
from cnnlite.files import saving
from tests.helpers.models import dense_model
from tests.stress.fuzz import forged


def arrays_of(model):
    return dict(model.params | model.state)


def forge(path, model=None, tensors=None, training="{}", change=None):
    """Write the file of a dense model, with its description, tensors or training state replaced."""
    whole = dense_model()
    table = saving.describe(whole) if model is None else model
    if change:
        change(table["config"]["layers"])
    tensors = arrays_of(whole) if tensors is None else tensors
    path.write_bytes(forged.model_file(tensors, model=json.dumps(table), training=training))


def refused(path, message, read=cnnlite.load_model):
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert path.name in str(caught.value)
    assert len(str(caught.value)) < 2000
