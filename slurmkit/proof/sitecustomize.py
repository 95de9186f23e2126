"""Run by Python at start-up (see ``site``): at exit, write which modules were imported from which files.

It runs inside other people's programs, so it imports next to nothing and never stands in the program's way: what
cannot be written is not written. Environment:

    SLURMKIT_IMPORTS     folder for the lists, made by the first, one file a process: name, NUL, file, NUL, ...
    SLURMKIT_CHECKOUT    the folders of the pinned code, joined as in PYTHONPATH
"""

import atexit
import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # what typing has under this name, without loading typing
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HERE = os.path.dirname(os.path.abspath(__file__))
_IMPORTS = os.environ.get("SLURMKIT_IMPORTS", "")
_CHECKOUT = [folder for folder in os.environ.get("SLURMKIT_CHECKOUT", "").split(os.pathsep) if folder]
_PYTHONS_OWN = ("BuiltinImporter", "FrozenImporter")


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return ""


_STARTED_IN = _current_folder()
"""What the relative path of a script is relative to; the program may go elsewhere."""


def _write_list() -> None:
    known = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))
    words: "list[str]" = []
    for name, module in list(sys.modules.items()):
        path = _file_of(module)
        if path is None or name == "sitecustomize":
            continue
        if name.partition(".")[0] not in known or path.startswith(tuple(_CHECKOUT)):
            words += [name, os.path.join(_STARTED_IN, path)]
    path = os.path.join(_IMPORTS, "%d" % os.getpid())
    try:
        os.makedirs(_IMPORTS, exist_ok=True)
        with open(path + ".tmp", "wb") as file:
            file.write("\0".join([*words, ""]).encode("utf-8", "surrogateescape"))
        os.rename(path + ".tmp", path)
    except OSError:
        pass


def _file_of(module: "ModuleType") -> "str | None":
    """Return where a module is from, without asking the module: lazy ones answer by importing."""
    try:
        words = module.__dict__
        path = words.get("__file__") or words["__loader__"].path  # a script has lost its __file__ by now
    except (AttributeError, KeyError, TypeError):  # built in, a namespace, or no module at all
        return None
    return path if isinstance(path, str) else None


class _CheckoutFinder:
    """Finds what the checkout has before finders that would lead elsewhere (some editable installs) are asked."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        spec = PathFinder.find_spec(name, path, target)
        origin = spec.origin if spec is not None else None
        return spec if isinstance(origin, str) and origin.startswith(tuple(_CHECKOUT)) else None


def _put_checkout_first() -> None:
    if sys.path[: len(_CHECKOUT)] != _CHECKOUT:  # a .pth file has put something in front
        sys.path[:] = _CHECKOUT + [folder for folder in sys.path if folder not in _CHECKOUT]
    ahead = sys.meta_path[: sys.meta_path.index(PathFinder)] if PathFinder in sys.meta_path else []
    if any(getattr(finder, "__name__", "") not in _PYTHONS_OWN for finder in ahead):
        sys.meta_path.insert(0, _CheckoutFinder)


def _run_next() -> None:
    """Run the sitecustomize that this one stands in front of, under its own name, as if this one were not here."""
    spec = PathFinder.find_spec("sitecustomize", [folder for folder in sys.path if os.path.abspath(folder) != _HERE])
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    sys.modules["sitecustomize"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if _IMPORTS:
    atexit.register(_write_list)
if _CHECKOUT:
    _put_checkout_first()
_run_next()
