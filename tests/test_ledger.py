"""The journal's replay."""

from slurmkit.ledger import Observation, replay
from slurmkit.states import State


def intent(token: str, **attempts: int) -> dict:
    return {"event": "intent", "token": token, "backend": "local@here", "attempts": attempts}


def observed(run: str, attempt: int, state: str, reason: str | None = None) -> dict:
    return {"event": "observed", "runs": {run: [attempt, state, reason, "why", 1.0, 2.0, None]}}


def test_an_intent_without_job_ids_stays_open():
    """Whoever reads next knows that the scheduler has to be asked."""
    ledger = replay([intent("t1", a=1, b=1)])
    assert ledger.open_intents == {"t1": ["a", "b"]}
    assert ledger.attempts["a"].job_id == ""


def test_job_ids_come_in_the_order_of_the_intent():
    ledger = replay([intent("t1", a=1, b=1), {"event": "submitted", "token": "t1", "jobs": ["7", "8"]}])
    assert (ledger.attempts["a"].job_id, ledger.attempts["b"].job_id) == ("7", "8")
    assert not ledger.open_intents


def test_an_abandoned_first_attempt_leaves_no_trace():
    ledger = replay([intent("t1", a=1), {"event": "abandoned", "token": "t1", "why": "refused"}])
    assert ledger.attempts == {}


def test_an_abandoned_retry_leaves_the_failure_before_it():
    events = [
        intent("t1", a=1),
        {"event": "submitted", "token": "t1", "jobs": ["7"]},
        observed("a", 1, "failed", "oom_host"),
        intent("t2", a=2),
        {"event": "abandoned", "token": "t2", "why": "refused"},
    ]
    attempt = replay(events).attempts["a"]
    assert (attempt.number, attempt.state, attempt.reason) == (1, State.FAILED, "oom_host")


def test_an_observation_of_an_old_attempt_does_not_end_the_new_one():
    """Two shells may race: one resubmits while the other records the old end."""
    events = [
        intent("t1", a=1),
        {"event": "submitted", "token": "t1", "jobs": ["7"]},
        intent("t2", a=2),
        observed("a", 1, "failed", "error"),
    ]
    assert replay(events).attempts["a"].end is None


def test_a_run_cancelled_before_its_first_attempt_has_number_0():
    attempt = replay([{"event": "cancelled", "runs": ["a"]}]).attempts["a"]
    assert (attempt.number, attempt.state) == (0, State.CANCELLED)


def test_an_observation_is_its_json_list():
    end = Observation(2, "failed", "timeout", "limit 1m", 60.0, 12.5, None)
    assert Observation._make(list(end)) == end


def test_unknown_events_of_a_later_version_are_passed_over():
    assert replay([{"event": "celebrated"}]).attempts == {}
