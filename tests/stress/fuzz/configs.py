"""Attacks on `from_config` and `get`, with configs that do not come out of a file of ours."""

from __future__ import annotations

import json

import cnnlite
from cnnlite import losses, metrics, optimizers
from cnnlite.optimizers import schedules
from tests.stress.fuzz.model_files import good_models
from tests.stress.fuzz.refusals import refuses


def attack_config(data, folder):
    """What `from_config` and `get` are given: a refusal, or an object whose config makes it again."""
    text = data.decode("utf-8", "replace")
    accepted = False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    for get in (cnnlite.Sequential.from_config, optimizers.get, losses.get, metrics.get, schedules.get,
                cnnlite.initializers.get, cnnlite.regularizers.get, cnnlite.activations.get):
        made = []
        if not isinstance(value, dict) or ("layers" in value and _size_of(value) > 1e5):
            continue
        if not refuses(lambda get=get, made=made: made.append(get(value)), "", (ValueError, TypeError)):
            accepted = True
            if made[0] is not None and hasattr(made[0], "get_config"):
                json.dumps(made[0].get_config(), default=repr)
    return accepted


def _size_of(config):
    """Return a bound of the weights of a model, as its config alone says nothing of what may be large."""
    sizes = [1]

    def walk(value):
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)
        if isinstance(value, int) and not isinstance(value, bool):
            sizes.append(abs(value))

    walk(config)
    return max(sizes) ** 2


def seeds_of_configs():
    made = good_models()
    things = [model.get_config() for model in made]
    things += [value for model in made[:3] for value in _entries(model.get_compile_config())]
    things += [
        schedules.serialize(schedule) for schedule in (
            schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2, 0.3]), schedules.OneCycle(0.1, 10),
            schedules.InverseTimeDecay(0.1, 3, 0.5), schedules.CosineDecay(0.1, 10, warmup_target=0.2, warmup_steps=3),
        )
    ]
    return [json.dumps(thing).encode() for thing in things]


def _entries(config):
    for value in config.values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if item is not None)
