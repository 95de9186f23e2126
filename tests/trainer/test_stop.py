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


def test_a_signal_breaks_off_what_may_be_and_only_raises_a_flag_elsewhere(stop: StopRequest) -> None:
    with pytest.raises(SystemExit), stop.deferred():
        signal.raise_signal(signal.SIGUSR2)
        assert stop.asked
        with pytest.raises(StoppedError), stop.interruptible():
            pytest.fail("it was asked to stop before")


def test_a_second_signal_does_not_break_off_what_the_first_began(stop: StopRequest) -> None:
    """As a scheduler sends them: a warning, then the end."""
    cleaned_up = []
    with pytest.raises(SystemExit), stop.deferred(), pytest.raises(StoppedError), stop.interruptible():
        try:
            signal.raise_signal(signal.SIGUSR2)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned_up.append("whole")
    assert cleaned_up == ["whole"]


def test_a_signal_after_the_last_look_ends_the_run_where_all_is_saved(stop: StopRequest) -> None:
    """While the last checkpoint is written: the evaluation behind it would take minutes that nobody grants."""
    with pytest.raises(SystemExit) as end, stop.deferred():
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == TRY_AGAIN_EXIT_CODE
