"""What is tested as the oldest is what setup.cfg allows."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_constraints_of_the_oldest_versions_are_the_bounds_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    options = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    bounds = dict(re.findall(r"([\w-]+) >= ([\d.]+)", options))
    assert {"numpy", "numba", "safetensors", "pytest"} < set(bounds)
    oldest = dict(re.findall(r"^([\w-]+) == ([\d.]+)", (ROOT / "tests" / "oldest.txt").read_text(), re.MULTILINE))
    for name, bound in bounds.items():
        assert oldest[name] in (bound, f"{bound}.0"), name
