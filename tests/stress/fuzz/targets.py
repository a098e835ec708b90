"""What is attacked: for each reader what it may do with bytes that nobody vouches for, and good inputs to start from.

A target takes bytes and a folder to write them to. It returns whether they were accepted, and raises an AssertionError
where the reader did what SECURITY.md says it never does. Any other exception that comes out is such a finding too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.stress.fuzz import configs, data_sets, model_files, runs
from tests.stress.fuzz.mutations import mutate_bytes, mutate_json_bytes


class Target(NamedTuple):
    attack: Callable[[bytes, Path], bool]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes]


TARGETS = {
    "model files": Target(model_files.attack_container, model_files.seeds_of_containers, mutate_bytes),
    "model files with a valid checksum": Target(
        model_files.attack_model, model_files.seeds_of_models, model_files.mutate_model
    ),
    "backups": Target(runs.attack_backup, runs.seeds_of_backups, mutate_json_bytes),
    "configs": Target(configs.attack_config, configs.seeds_of_configs, mutate_json_bytes),
    "npz files": Target(data_sets.attack_npz, data_sets.seeds_of_npz, mutate_bytes),
    "members of npz files": Target(data_sets.attack_members, data_sets.seeds_of_members, mutate_bytes),
    "IDX files": Target(data_sets.attack_idx, data_sets.seeds_of_idx, mutate_bytes),
    "CSV logs": Target(runs.attack_csv, runs.seeds_of_csv, mutate_bytes),
}
