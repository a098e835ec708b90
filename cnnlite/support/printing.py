"""Text for streams that can't encode every character: a log on Windows (cp1252), a pipe with LANG=C (ascii).

Mere output must not end a computation, so a character that a stream can't take becomes an escape ("\\xe4").
"""

import sys
from typing import Any


def encoding_of(stream: Any) -> str | None:
    """Return the encoding of a stream, or None if it has none, like `io.StringIO`, or does not report it."""
    encoding = getattr(stream, "encoding", None)
    return encoding if isinstance(encoding, str) else None


def can_encode(text: str, encoding: str | None) -> bool:
    """Return whether the text can be encoded."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def encodable(text: str, encoding: str | None) -> str:
    """Return the text with escapes for what can't be encoded; unchanged if the encoding is None."""
    if encoding is None or can_encode(text, encoding):
        return text
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except (UnicodeError, LookupError):  # an encoding that Python does not know
        return text.encode("ascii", "backslashreplace").decode("ascii")


def for_stdout(text: str) -> str:
    """Return the text in a form that `print` can most likely write to stdout without an error."""
    return encodable(text, encoding_of(sys.stdout))


def print_text(text: str, file: Any = None) -> None:
    """Print a line of text to a stream, by default stdout, flushed and whatever characters are in it."""
    stream = sys.stdout if file is None else file
    try:
        print(encodable(text, encoding_of(stream)), file=stream, flush=True)
    except UnicodeEncodeError:  # from a stream that passes text on to an encoding that it does not report
        print(encodable(text, "ascii"), file=stream, flush=True)


def message(text: str, file: Any = None) -> None:
    """Print a line of text, above the progress bar if one is on the screen."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print_text(text, file)
    else:
        with tqdm.tqdm.external_write_mode(file=sys.stdout if file is None else file):
            print_text(text, file)
