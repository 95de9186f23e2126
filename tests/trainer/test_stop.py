"""Signals at single moments of a run: which break it off, which end it, and that none is lost."""

import signal
from collections.abc import Iterator

import pytest

from trainer.stop import TRY_AGAIN_EXIT_CODE, StoppedError, StopRequest


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    """Return a request that listens to real signals while the test runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    request = StopRequest()
    request.install()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_a_flag_and_what_may_be_broken_off_does_not_begin_after_it(stop: StopRequest) -> None:
    seen = []

    def train() -> None:
        with stop.deferred():
            signal.raise_signal(signal.SIGUSR2)
            seen.append(stop.asked)
            with stop.interruptible():
                seen.append("began")

    with pytest.raises(StoppedError):
        train()
    assert seen == [True]


def test_a_second_signal_does_not_break_off_what_the_first_began(stop: StopRequest) -> None:
    """As a scheduler sends them: a warning, then the end."""
    seen = []

    def train() -> None:
        with stop.deferred(), stop.interruptible():
            try:
                signal.raise_signal(signal.SIGUSR2)
            finally:
                signal.raise_signal(signal.SIGTERM)
                seen.append("cleaned up")

    with pytest.raises(StoppedError):
        train()
    assert seen == ["cleaned up"]


def test_a_signal_after_the_last_look_ends_the_run_where_all_is_saved(stop: StopRequest) -> None:
    """While the last checkpoint is written: the evaluation behind it would take minutes that nobody grants."""
    seen = []

    def train() -> None:
        with stop.deferred():
            seen.append(stop.asked)
            signal.raise_signal(signal.SIGTERM)
            seen.append("saved")

    with pytest.raises(SystemExit) as end:
        train()
    assert end.value.code == TRY_AGAIN_EXIT_CODE
    assert seen == [False, "saved"]
