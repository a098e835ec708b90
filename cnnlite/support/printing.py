"""Text for streams that can't encode every character: a log of Windows (cp1252), a pipe where LANG=C (ascii).

What is only shown must not end a computation, so a character that a stream can't take becomes an escape ("\\xe4").
"""

import sys
from typing import Any


def encoding_of(stream: Any) -> str | None:
    """Return the encoding of a stream, or None where it has none, as `io.StringIO`, or does not tell."""
    encoding = getattr(stream, "encoding", None)
    return encoding if isinstance(encoding, str) else None


def can_encode(text: str, encoding: str | None) -> bool:
    """Return whether text of these characters passes an encoding."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def encodable(text: str, encoding: str | None) -> str:
    """Return the text with escapes in the place of what can't be encoded; as it is where the encoding is None."""
    if encoding is None or can_encode(text, encoding):
        return text
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except (UnicodeError, LookupError):  # an encoding that Python does not know
        return text.encode("ascii", "backslashreplace").decode("ascii")


def for_stdout(text: str) -> str:
    """Return text that will most likely be printed, so that `print` can't fail."""
    return encodable(text, encoding_of(sys.stdout))


def print_text(text: str, file: Any = None) -> None:
    """Print text and a line's end on a stream, by default stdout, at once and whatever characters are in it."""
    stream = sys.stdout if file is None else file
    try:
        print(encodable(text, encoding_of(stream)), file=stream, flush=True)
    except UnicodeEncodeError:  # of a stream that hands on what it gets, and does not say to which encoding
        print(encodable(text, "ascii"), file=stream, flush=True)


def message(text: str, file: Any = None) -> None:
    """Print a line of text, above the bar if one is on the screen."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print_text(text, file)
    else:
        with tqdm.tqdm.external_write_mode(file=sys.stdout if file is None else file):
            print_text(text, file)
