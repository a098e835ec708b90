"""Layers and models as plain values that JSON can hold, and back: the name of a class, and the config to make it from.

Classes are looked up among the library's own, added by `register`, and the custom objects that a user passes; nothing
is ever imported because a file names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnlite.layers.base import Layer
from cnnlite.layers.composite import CompositeLayer
from cnnlite.types import Config

_classes: dict[str, type[Any]] = {}  # the library's own, by name


def register(*classes: type[Any]) -> None:
    """Allow entries to name these classes."""
    _classes.update((cls.__name__, cls) for cls in classes)


def registered(name: str) -> type[Any]:
    """Return the class of that name, which may be in a module that imports this one."""
    return _classes[name]


def describe(layer: Layer) -> Config:
    """Return {"class_name", "config"} for a layer or a model; "custom": True marks a class that is not cnnlite's."""
    name = type(layer).__name__
    entry: Config = {"class_name": name, "config": layer.get_config()}
    if _classes.get(name) is not type(layer):
        entry["custom"] = True  # so that a user's own Dense is never taken for cnnlite's
    return entry


# Limits on what a file may hold: making a layer takes a third of a millisecond and more memory than its entry in the
# file, and nested models are handled by recursion.
MOST_LAYERS = 10_000
DEEPEST = 50


def check_extent(entry: Any, owner: str = "") -> None:
    """Raise a ValueError if an entry describes more layers, or models nested more deeply, than a file may hold."""
    number, entries = -1, [(entry, 0)]  # the model itself is not a layer
    while entries:
        entry, depth = entries.pop()
        config = entry.get("config") if isinstance(entry, dict) else None
        if isinstance(config, dict):
            layers = config.get("layers")
            inside = [*(layers if isinstance(layers, list) else []), config.get("body"), config.get("shortcut")]
            entries += [(layer, depth + 1) for layer in inside if layer is not None]
        number += 1
        if depth > DEEPEST:
            raise ValueError(f"{owner}a file may nest models at most {DEEPEST} deep. Received: deeper nesting")
    if number > MOST_LAYERS:
        raise ValueError(f"{owner}a file may hold at most {MOST_LAYERS} layers. Received: a model of {number}")


def rebuild(entry: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the layer or model that `describe` described, with new weights.

    Raises:
        ValueError: a class or a function is neither cnnlite's nor among the custom objects.
    """
    custom_objects = custom_objects or {}
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or not isinstance(
        entry.get("class_name"), str
    ):
        raise ValueError(f"a layer must be described by a class_name and a config. Received: {entry!r:.200}")
    cls = _find_class(entry, custom_objects)
    if issubclass(cls, CompositeLayer):  # which passes custom_objects on to its layers
        from_config: Any = cls.from_config
        return from_config(entry["config"], custom_objects)
    return cls.from_config(revive(entry["config"], custom_objects))


def revive(value: Any, custom_objects: Mapping[str, Any]) -> Any:
    """Return a config with each entry that stands for a custom object or a function replaced by it."""
    if isinstance(value, list):
        return [revive(item, custom_objects) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: revive(item, custom_objects) for key, item in value.items()}
    if set(value) == {"class_name", "config"} and value["class_name"] in custom_objects:
        cls = custom_objects[value["class_name"]]
        if not isinstance(cls, type):  # functions are passed on, and never called with what a file says
            raise ValueError(f"{value['class_name']!r} must be a class. Received: {cls!r}")
        return cls(**value["config"])
    if set(value) == {"function"}:
        if value["function"] not in custom_objects:
            raise ValueError(_unknown("function", value["function"]))
        return custom_objects[value["function"]]
    return value


def is_model(thing: Any) -> bool:
    """Return whether `thing` is a model, and not only a layer that may contain some."""
    return isinstance(thing, _classes["Sequential"])


def _find_class(entry: Any, custom_objects: Mapping[str, Any]) -> type[Any]:
    name = entry["class_name"]
    if name in custom_objects:
        return custom_objects[name]
    if entry.get("custom", False) or name not in _classes:
        raise ValueError(_unknown("class", name))
    return _classes[name]


def _unknown(kind: str, name: str) -> str:
    return (
        f"the {kind} {name!r} is not part of cnnlite. "
        f"Pass it: load_model(path, custom_objects={{{name!r}: ...}})"
    )
