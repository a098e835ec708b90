"""What must be set before Keras is imported."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
