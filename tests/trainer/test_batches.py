"""Layout of records, and which rows make up a batch."""

import pytest
import torch

from trainer.batches import BatchOrder, entangled_rows, generator_rows
from trainer.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer()
X, Y = ["20>64", "4x"], ["R21#21", "1"]


def encoded(texts: list[str]) -> list[list[int]]:
    return [TOKENIZER.encode(text) for text in texts]


def text(ids: torch.Tensor) -> str:
    return TOKENIZER.decode(ids.tolist())


def test_entangled_record_reads_as_the_canonical_text() -> None:
    rows = entangled_rows(encoded(X), encoded(Y), TOKENIZER)
    assert text(rows.ids[0]) == "<bos><x>20>64</x><y>R21#21</y><eos>"
    assert text(rows.ids[1, : rows.lengths[1]]) == "<bos><x>4x</x><y>1</y><eos>"
    assert text(rows.ids[0][rows.is_target[0]]) == "R21#21</y><eos>"
    assert text(rows.ids[1][rows.is_target[1]]) == "1</y><eos>"


@pytest.mark.parametrize("neutral", [True, False])
def test_generator_record_has_a_slot_whose_positions_may_be_neutral(neutral: bool) -> None:
    rows = generator_rows(encoded(X), encoded(Y), TOKENIZER, position_neutral=neutral)
    assert text(rows.ids[0]) == "<bos><x>20>64</x><z><z_empty></z><y>R21#21</y><eos>"
    assert text(rows.ids[0, rows.slot[0]][None]) == "<z>"
    assert text(rows.ids[1, rows.slot[1]][None]) == "<z>"
    length = int(rows.lengths[1])
    expected = [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8] if neutral else list(range(12))
    assert rows.positions[1, :length].tolist() == expected


def test_neutral_positions_of_y_are_those_of_the_entangled_record() -> None:
    entangled = entangled_rows(encoded(X), encoded(Y), TOKENIZER)
    generator = generator_rows(encoded(X), encoded(Y), TOKENIZER, position_neutral=True)
    assert generator.positions[generator.is_target].tolist() == entangled.positions[entangled.is_target].tolist()


def test_take_cuts_to_the_longest_row() -> None:
    rows = entangled_rows(encoded(X), encoded(Y), TOKENIZER)
    assert rows.take(torch.tensor([1])).ids.shape == (1, rows.lengths[1])


def test_an_epoch_uses_every_row_once_and_the_next_another_order() -> None:
    lengths = torch.randint(5, 40, (64,), generator=torch.Generator().manual_seed(0))
    order = BatchOrder(lengths, 8, seed=3)
    first = torch.cat([order[i] for i in range(8)])
    second = torch.cat([order[i] for i in range(8, 16)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(64))
    assert first.tolist() != second.tolist()


def test_order_is_a_function_of_seed_and_number() -> None:
    lengths = torch.arange(50)
    straight = [BatchOrder(lengths, 8, seed=3)[i].tolist() for i in range(20)]
    once = BatchOrder(lengths, 8, seed=3)
    assert [once[i].tolist() for i in range(20)] == straight
    assert BatchOrder(lengths, 8, seed=4)[0].tolist() != straight[0]


def test_an_epoch_may_be_cut_short() -> None:
    assert BatchOrder(torch.ones(100, dtype=torch.long), 10, seed=0, epoch_rows=30).batches_per_epoch == 3


def test_sorting_within_windows_leaves_little_padding() -> None:
    lengths = torch.randint(10, 45, (512,), generator=torch.Generator().manual_seed(1))
    order = BatchOrder(lengths, 32, seed=0)
    padded = sum(32 * int(lengths[order[i]].max()) for i in range(16))
    assert int(lengths.sum()) / padded > 0.9
