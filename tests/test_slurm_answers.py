"""What sbatch's answer, kept in a file, says of a submission."""

from pathlib import Path

import pytest

from slurmkit.schedulers.slurm.submission import Fate, read_answer


@pytest.mark.parametrize(
    ("text", "fate", "job"),
    [
        ("4711\n", Fate.TAKEN, "4711"),
        ("4711;cluster\n", Fate.TAKEN, "4711"),
        ("Welcome to the cluster. Maintenance on Monday.\n4711\n", Fate.TAKEN, "4711"),
        ("sbatch: error: Batch job submission failed: Invalid account\n", Fate.REFUSED, ""),
        ("sbatch: fatal: cannot read the script\n", Fate.REFUSED, ""),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", Fate.UNCLEAR, ""),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n", Fate.UNCLEAR, ""),
        ("Welcome to the cluster. Maintenance on Monday.\n", Fate.UNCLEAR, ""),
        ("", Fate.UNCLEAR, ""),
    ],
)
def test_an_answer_is_a_refusal_only_if_sbatch_says_so(tmp_path: Path, text: str, fate: Fate, job: str) -> None:
    path = tmp_path / "token.answer"
    path.write_text(text)
    answer = read_answer(path)
    assert (answer.fate, answer.job) == (fate, job)


def test_without_an_answer_sbatch_was_never_called(tmp_path: Path) -> None:
    assert read_answer(tmp_path / "token.answer").fate is Fate.NEVER_CALLED
