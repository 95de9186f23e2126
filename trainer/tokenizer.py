"""One token a character, and one for each markup tag: the vocabulary of models trained from scratch."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from trainer.records import write_json

MAX_LATENTS = 8  # reserved always, so that one base model fits any number of latents
MARKUP = ("<pad>", "<bos>", "<eos>", "<x>", "</x>", "<y>", "</y>", "<z>", "</z>", "<z_empty>")
LATENTS = tuple(f"<z{k}>" for k in range(1, MAX_LATENTS + 1))
# The last four are digits of base 16.
CHARACTERS = "0123456789+-*/=,;:>|#xbrRDa" + "cdef"

FILE_NAME = "char_tokenizer.json"  # not tokenizer.json, which AutoTokenizer would take for its own
SCHEMA = 1
_TOKEN = re.compile(r"<[^<>]*>|.", re.DOTALL)


class CharTokenizer:
    """Texts to token ids and back; a text may hold markup, as in ``<bos><x>20>64</x>``.

    Attributes:
        tokens: the vocabulary; a token's id is its place here.
        pad, bos, eos, x_open, x_close, y_open, y_close, z_open, z_close, z_empty: ids of the markup.
    """

    def __init__(self, tokens: Sequence[str] = (*MARKUP, *LATENTS, *CHARACTERS)) -> None:
        self.tokens = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        missing = [token for token in (*MARKUP, *LATENTS) if token not in self._ids]
        if missing or len(self._ids) != len(self.tokens):
            what = f"lacks {' '.join(missing)}" if missing else "holds a token twice"
            raise ValueError(f"tokenizer: the vocabulary {what}, got {list(tokens)}. Use the one that was saved.")
        self.pad, self.bos, self.eos = (self._ids[token] for token in MARKUP[:3])
        self.x_open, self.x_close = self._ids["<x>"], self._ids["</x>"]
        self.y_open, self.y_close = self._ids["<y>"], self._ids["</y>"]
        self.z_open, self.z_close, self.z_empty = (self._ids[token] for token in ("<z>", "</z>", "<z_empty>"))

    def __len__(self) -> int:
        return len(self.tokens)

    def latent(self, k: int) -> int:
        """Return the id of ``<zk>``, k from 1 on.

        Raises:
            ValueError: there is no such latent.
        """
        if not 1 <= k <= MAX_LATENTS:
            raise ValueError(f"latent: expected 1 to {MAX_LATENTS}, got {k}. Use fewer latents.")
        return self._ids[LATENTS[k - 1]]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            ValueError: a character or a tag outside the vocabulary.
        """
        try:
            return [self._ids[token] for token in _TOKEN.findall(text)]
        except KeyError as error:
            token = error.args[0]
            raise ValueError(
                f"tokenizer: no token for {token!r} at character {text.index(token)} of {text!r}. "
                "Write tasks' inputs and outputs only, without blanks."
            ) from error

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, markup included.

        Raises:
            IndexError: an id outside the vocabulary.
        """
        texts = []
        for i in ids:
            if not 0 <= i < len(self.tokens):
                raise IndexError(f"tokenizer: no token has the id {i}. Ids are 0 to {len(self.tokens) - 1}.")
            texts.append(self.tokens[i])
        return "".join(texts)

    def save(self, folder: Path | str) -> None:
        """Write the vocabulary into a folder that exists; a reader sees the old file or the new, never a part."""
        write_json(Path(folder) / FILE_NAME, {"schema": SCHEMA, "tokens": self.tokens})

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read the vocabulary that `save` wrote.

        Raises:
            FileNotFoundError: the folder has none.
            ValueError: the file is not one of `save`'s.
        """
        path = Path(folder) / FILE_NAME
        try:
            record = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}. Save the vocabulary again.") from error
        match record:
            case {"schema": int(schema), "tokens": [*tokens]} if schema == SCHEMA:
                return cls(tokens)
        raise ValueError(f"{path}: expected a vocabulary of schema {SCHEMA}, got {str(record)[:80]}. Save it again.")
