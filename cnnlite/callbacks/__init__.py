"""Callbacks: objects that `fit`, `evaluate` and `predict` call when a run, an epoch or a batch begins or ends."""

from cnnlite.callbacks.backup import BackupAndRestore
from cnnlite.callbacks.base import Callback, CallbackList, LambdaCallback
from cnnlite.callbacks.checkpoint import ModelCheckpoint
from cnnlite.callbacks.history import CSVLogger, History
from cnnlite.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from cnnlite.callbacks.monitor import EarlyStopping, TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
