"""Turn what a user writes ("adam", "Adam", Adam, Adam(), a saved config) into the object that it stands for."""

import difflib
from typing import Any


def from_identifier(identifier, table, base, kind):
    """Return an instance of `base` for a name in `table`, a class, an instance or a saved config.

    Args:
        identifier: a key of `table` or the name of one of its classes; a class; an object; or the
            {"class_name", "config"} that `to_config` made.
        table: the known names, each with its class.
        base: the class that the result must be an instance of. A callable that is not one is returned as it is.
        kind: what error messages call such an object ("initializer").

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
        TypeError: it is none of the above.
    """
    if isinstance(identifier, base):
        return identifier
    if isinstance(identifier, dict) and set(identifier) == {"class_name", "config"}:
        return _class_named(identifier["class_name"], table, kind)(**identifier["config"])
    if isinstance(identifier, str):
        return _class_named(identifier, table, kind)()
    if isinstance(identifier, type) and issubclass(identifier, base):
        return identifier()
    if callable(identifier) and not isinstance(identifier, type):
        return identifier
    article = "an" if base.__name__[0] in "AEIOU" else "a"
    raise TypeError(
        f"{kind} must be a name, {article} {base.__name__} or a function. Received: {identifier!r}. "
        f"Known names: {', '.join(sorted(table))}."
    )


def _class_named(name, table, kind):
    classes = {cls.__name__: cls for cls in table.values()}
    if name in table or name in classes:
        return table.get(name) or classes[name]
    if str(name).lower() in table:
        return table[str(name).lower()]
    close = difflib.get_close_matches(str(name), [*table, *classes], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"Unknown {kind}: {name!r}. Known: {', '.join(sorted(table))}.{hint}")


def to_config(thing: Any) -> Any:
    """Return {"class_name", "config"} of an object with a `get_config`, or None for None."""
    if thing is None:
        return None
    if not hasattr(thing, "get_config"):
        raise ValueError(
            f"{thing!r} has no get_config() and can't be written to a file. Define get_config(), or use a named one."
        )
    return {"class_name": type(thing).__name__, "config": thing.get_config()}
