"""The vocabulary of models trained from scratch."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.tasks import TASKS, sample_records
from trainer.tokenizer import CHARACTERS, FILE_NAME, LATENTS, MARKUP, CharTokenizer

TOKENIZER = CharTokenizer()


def test_the_vocabulary_has_the_documented_order():
    markup = "<pad><bos><eos><x></x><y></y><z></z><z_empty><z1><z2><z3><z4><z5><z6><z7><z8>"
    assert "".join(TOKENIZER.tokens) == markup + "0123456789+-*/=,;:>|#xbrRDa" + "cdef"
    assert len(TOKENIZER) == 49
    assert TOKENIZER.pad == 0


def test_a_canonical_record_is_one_token_a_tag_and_one_a_character():
    t = TOKENIZER
    ids = t.encode("<bos><x>20>64</x><z><z3></z><y>R21#64</y><eos>")
    digit = {d: t.encode(d)[0] for d in "0123456789"}
    assert ids[:8] == [t.bos, t.x_open, digit["2"], digit["0"], t.encode(">")[0], digit["6"], digit["4"], t.x_close]
    assert ids[8:12] == [t.z_open, t.latent(3), t.z_close, t.y_open]
    assert ids[-2:] == [t.y_close, t.eos]
    assert t.encode("<z_empty><pad>") == [t.z_empty, t.pad]
    assert len(set(ids)) < len(ids) == 20


@given(st.lists(st.sampled_from([*MARKUP, *LATENTS, *CHARACTERS])))
def test_a_text_is_read_back_exactly(tokens: list[str]):
    ids = TOKENIZER.encode("".join(tokens))
    assert len(ids) == len(tokens)
    assert TOKENIZER.decode(ids) == "".join(tokens)


@pytest.mark.parametrize("name", TASKS)
def test_every_record_of_every_preset_can_be_written(name: str):
    for params in TASKS[name].presets.values():
        for record in sample_records(TASKS[name], params, 500, seed=0, split="train", purpose="tokens"):
            assert TOKENIZER.decode(TOKENIZER.encode(record.x + record.y)) == record.x + record.y


@pytest.mark.parametrize(
    ("text", "token", "place"), [("3 + 8", " ", 1), ("<z9>1", "<z9>", 0), ("1<", "<", 1), ("é", "é", 0)]
)
def test_an_unknown_token_is_named_with_its_place(text: str, token: str, place: int):
    with pytest.raises(ValueError, match=re.escape(f"no token for {token!r} at character {place} of {text!r}")):
        TOKENIZER.encode(text)


@pytest.mark.parametrize("bad", [-1, 49])
def test_an_id_outside_the_vocabulary_is_refused(bad: int):
    with pytest.raises(IndexError, match=f"no token has the id {bad}"):
        TOKENIZER.decode([0, bad])


def test_latents_are_numbered_from_one_to_eight():
    assert TOKENIZER.decode(TOKENIZER.latent(k) for k in range(1, 9)) == "".join(LATENTS)
    for k in (0, 9):
        with pytest.raises(ValueError, match=f"latent: expected 1 to 8, got {k}"):
            TOKENIZER.latent(k)


def test_a_saved_vocabulary_is_the_one_that_is_loaded(tmp_path: Path):
    other = CharTokenizer((*MARKUP, *LATENTS, *"z01"))
    other.save(tmp_path)
    assert CharTokenizer.load(tmp_path).tokens == other.tokens
    assert CharTokenizer.load(tmp_path).encode("10z") == [20, 19, 18]
    TOKENIZER.save(tmp_path)
    assert CharTokenizer.load(tmp_path).tokens == TOKENIZER.tokens
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ('{"schema": 1, "tok', "not JSON"),
        ("[]", "expected a vocabulary of schema 1"),
        ('{"schema": 2, "tokens": []}', "expected a vocabulary of schema 1"),
        ('{"schema": 1}', "expected a vocabulary of schema 1"),
        ('{"schema": 1, "tokens": ["<pad>"]}', "the vocabulary lacks <bos>"),
        (json.dumps({"schema": 1, "tokens": [*MARKUP, *LATENTS, "0", "0"]}), "holds a token twice"),
    ],
)
def test_a_broken_vocabulary_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=message):
        CharTokenizer.load(tmp_path)


def test_a_folder_without_a_vocabulary_is_told_by_its_path(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / FILE_NAME))):
        CharTokenizer.load(tmp_path)
