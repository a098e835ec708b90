"""Scripts written for Keras run with only their imports changed, and learn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# Sample counts and epochs are the least with which each of them learns reliably.
@pytest.mark.parametrize(
    ("script", "samples", "epochs"),
    [("simple_convnet", 4000, 2), ("image_classification", 3000, 2), ("batch_normalization", 3000, 2)],
)
def test_keras_script_learns(script, samples, epochs):
    environment = {
        **os.environ, "SAMPLES": str(samples), "EPOCHS": str(epochs),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "keras_scripts" / f"{script}.py")],
        env=environment, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"Test accuracy: ([\d.]+)", done.stdout).group(1))
    assert accuracy > 0.85, done.stdout
    assert "Total params" in done.stdout or script == "batch_normalization"
