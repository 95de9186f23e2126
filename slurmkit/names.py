"""Names that become paths, placeholders or git references, and the text of axis labels in them."""

import difflib
import re
from collections.abc import Iterable

from slurmkit.records import Json

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,@-]*")
_NOT_IN_RUN_NAME = re.compile(r"[^A-Za-z0-9._=+,@-]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_WORDS = {None: "null", True: "true", False: "false"}

MAX_COLLECTION_NAME = 120
MAX_RUN_NAME = 160
"""Characters. File systems allow 255 bytes a name; records put suffixes to it."""

Label = Json
"""The value of an axis in one cell: str, int, float, bool or None."""


def check_collection_name(name: str) -> str:
    """Return the name of a collection if it is safe as a path below ``runs/`` and in a git reference.

    Raises:
        ValueError: it is not; says why and what to write.
    """
    if len(name) > MAX_COLLECTION_NAME:
        raise ValueError(
            f"the name has {len(name):,} characters; at most {MAX_COLLECTION_NAME} are allowed. Shorten it"
        )
    for segment in name.split("/"):
        if not _SEGMENT.fullmatch(segment) or ".." in segment or segment.endswith((".", ".lock")):
            raise ValueError(
                f"{name!r} is not a name. Write letters, digits and . _ = + - in parts joined by /, each part starting "
                "with a letter or digit, without .. and not ending in . or .lock"
            )
    return name


def check_run_name(name: str) -> str:
    """Return the name of a run if it is safe as the name of a folder.

    Raises:
        ValueError: it is not; says why and what to write.
    """
    if len(name) > MAX_RUN_NAME:
        raise ValueError(
            f"the run name has {len(name):,} characters; at most {MAX_RUN_NAME} are allowed. Shorten run_name"
        )
    if not _RUN_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a run name. Start run_name with a letter or digit, and use letters, digits, . _ = + , @ -"
        )
    return name


def check_word(word: str) -> str:
    """Return the name of an axis or an alias if a placeholder can name it.

    Raises:
        ValueError: it is not a word.
    """
    if not _WORD.fullmatch(word):
        raise ValueError(
            f"{word[:60]!r} is not a name here. Write up to 64 letters, digits and _, not starting with a digit"
        )
    return word


def label_text(label: Label) -> str:
    """Write a label as placeholders and tables show it: text as it is, the rest as JSON."""
    if isinstance(label, str):
        return label
    return _WORDS[label] if label is None or isinstance(label, bool) else repr(label)


def label_key(label: Label) -> str:
    """Return what two spellings of the same label share: ``0``, ``0.0`` and ``"0"`` name one label."""
    if isinstance(label, float) and label.is_integer() and abs(label) < 2**53:
        return str(int(label))
    return label_text(label)


def label_in_name(label: Label) -> str:
    """Write a label for the name of a run: what cannot stand in a name becomes ``-``."""
    return _NOT_IN_RUN_NAME.sub("-", label_text(label))


def did_you_mean(word: str, known: Iterable[str], *, what: str = "Known") -> str:
    """Advise on an unknown word: the nearest known one, or all of them."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(word[:100], known, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    if not known:
        return f"{what}: none."
    return f"{what}: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}."
