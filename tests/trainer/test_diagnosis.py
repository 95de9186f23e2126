"""Which part is named where one link of the chain is cut by hand: posterior, generation or router."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.evaluation.diagnosis import (
    Evidence,
    agreement,
    agreement_by_chance,
    diagnose,
    merged,
    mix_distance,
)
from trainer.evaluation.probing import probe_strategy
from trainer.evaluation.quality import Metrics
from trainer.tasks import Attribution

STRATEGIES = ("a", "b", "c")
N = 1200
XS = [[i] for i in range(N)]


def verdicts(strategies: Tensor) -> list[Attribution]:
    """Return what is said of outputs of strategies by number; -1 is an invalid output."""
    sets = [frozenset({STRATEGIES[s]}) if s >= 0 else frozenset() for s in strategies.tolist()]
    return [Attribution(parse_ok=bool(s), answer_ok=bool(s), strategies=s) for s in sets]


def drawn(seed: int) -> Tensor:
    return torch.randint(3, (N,), generator=torch.Generator().manual_seed(seed))


def one_hot(strategies: Tensor) -> Tensor:
    return functional.one_hot(strategies, 3).float()


def diagnosed(
    *,
    z: Tensor | None = None,
    rendered: Tensor | None = None,
    router_z: Tensor | None = None,
    routed: Tensor | None = None,
    mean: Tensor | None = None,
    sensitivity: float = 1.0,
    given: Tensor | None = None,
    shared: dict[str, list[str]] | None = None,
) -> Metrics:
    """Diagnose a factorisation that is perfect but for what is given: z is the strategy, and everything obeys."""
    y = drawn(0) if given is None else given
    z = one_hot(y) if z is None else z
    router_y = drawn(1) if routed is None else routed
    router_z = one_hot(router_y.clamp(min=0)) if router_z is None else router_z
    nothing = torch.zeros(N, 1)
    judged, judged_routed = verdicts(y), verdicts(router_y)
    return diagnose(
        Evidence(
            posterior_mean=probe_strategy(z if mean is None else mean, judged, XS),
            posterior=probe_strategy(z, judged, XS),
            posterior_control=probe_strategy(nothing, judged, XS),
            router=probe_strategy(router_z, judged_routed, XS),
            router_control=probe_strategy(nothing, judged_routed, XS),
            given=judged,
            rendered=verdicts(y if rendered is None else rendered),
            routed=judged_routed,
            sensitivity=sensitivity,
            merged={} if shared is None else shared,
        )
    )


def explanation(metrics: Metrics) -> str:
    return str(metrics["diagnosis/explanation"])


def test_nothing_fails_where_z_is_the_strategy_and_everything_obeys():
    metrics = diagnosed()
    assert metrics["diagnosis/failing_part"] == "none"
    for link in ("posterior_information", "posterior_sampled_information", "generator_obedience", "router_information"):
        assert metrics[f"diagnosis/{link}"] == pytest.approx(1)
    assert metrics["diagnosis/router_mix_distance"] < 0.05


def test_a_collapse_is_the_posterior_and_the_sentence_says_that_z_is_unused():
    metrics = diagnosed(z=torch.zeros(N, 3), rendered=drawn(2), router_z=torch.zeros(N, 3), sensitivity=0.0)
    assert metrics["diagnosis/failing_part"] == "posterior"
    assert "z is unused" in explanation(metrics)
    assert metrics["diagnosis/posterior_information"] == pytest.approx(0, abs=0.15)  # -0.088, 0.003 an example
    assert metrics["diagnosis/generator_obedience"] == pytest.approx(0, abs=0.06)


def test_a_posterior_whose_samples_drown_its_mean_fails_for_its_noise():
    noise = torch.randn(N, 3, generator=torch.Generator().manual_seed(5))
    metrics = diagnosed(z=one_hot(drawn(0)) + 4 * noise, mean=one_hot(drawn(0)), rendered=drawn(2))
    assert metrics["diagnosis/failing_part"] == "posterior"
    assert "noise" in explanation(metrics)


def test_strategies_that_share_a_latent_are_named():
    """Two of three strategies on one value of z: P is 1/2 at best, and what is missing is told."""
    assert merged({"a": [0.9, 0.1], "b": [0.6, 0.4], "c": [0.2, 0.8]}) == {"z1": ["a", "b"]}
    assert merged({"a": [0.9, 0.1], "c": [0.2, 0.8]}) == {}
    seen = drawn(0).clamp(max=1)
    seen[:200] = 0  # a little less than could be told
    rendered = torch.where(seen == 1, 1 + drawn(4) % 2, 0)
    metrics = diagnosed(z=one_hot(seen), rendered=rendered, shared={"z2": ["b", "c"]})
    assert metrics["diagnosis/posterior_sampled_information"] == pytest.approx(0.37, abs=0.1)
    assert metrics["diagnosis/failing_part"] == "posterior"
    assert "b and c share z2" in explanation(metrics)


def test_a_posterior_without_information_beside_a_generator_that_reacts():
    metrics = diagnosed(z=one_hot(drawn(3)), rendered=drawn(3))
    assert metrics["diagnosis/failing_part"] == "posterior"
    assert "does react to z (1.00" in explanation(metrics)


@pytest.mark.parametrize("rendered", [drawn(2), (drawn(0) + 1) % 3, torch.full((N,), -1)])
def test_a_generator_that_ignores_swaps_or_breaks_what_z_says_is_generation(rendered: Tensor):
    metrics = diagnosed(rendered=rendered)
    assert metrics["diagnosis/failing_part"] == "generation"
    assert metrics["diagnosis/posterior_information"] == pytest.approx(1)


def test_a_router_that_draws_one_strategy_only_is_the_router():
    routed = torch.zeros(N, dtype=torch.long)
    metrics = diagnosed(routed=routed)
    assert metrics["diagnosis/failing_part"] == "router"
    assert metrics["diagnosis/router_mix_distance"] == pytest.approx(2 / 3, abs=0.03)
    assert metrics["diagnosis/router_information"] is None
    assert "1, 2 are needed" in str(metrics["diagnosis/router_information__reason"])


def test_a_router_whose_z_decides_nothing_is_the_router():
    metrics = diagnosed(router_z=torch.randn(N, 3, generator=torch.Generator().manual_seed(6)))
    assert metrics["diagnosis/failing_part"] == "router"
    assert "hardly decides" in explanation(metrics)


def test_a_router_under_whose_z_traces_break_is_the_router():
    routed = drawn(1)
    routed[: N // 2] = -1
    metrics = diagnosed(routed=routed)
    assert metrics["diagnosis/failing_part"] == "router"
    assert metrics["diagnosis/router_mix_distance"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_an_obedient_generator_under_a_noisy_z_is_not_blamed(seed: int):
    """z names the strategy of y with probability 0.75, else any of three; y' is drawn as z allows: P is 0.75."""
    rng = torch.Generator().manual_seed(seed)

    def noisy(strategies: Tensor) -> Tensor:
        return torch.where(torch.rand(N, generator=rng) < 0.75, strategies, torch.randint(3, (N,), generator=rng))

    named, router_named = noisy(drawn(0)), drawn(9)
    metrics = diagnosed(
        z=one_hot(named), rendered=noisy(named), router_z=one_hot(router_named), routed=noisy(router_named)
    )
    assert metrics["diagnosis/posterior_information"] == pytest.approx(0.75, abs=0.05)
    assert metrics["diagnosis/generator_obedience"] == pytest.approx(0.75**2, abs=0.06)
    assert metrics["diagnosis/failing_part"] == "none"


def test_knowing_x_alone_is_no_information():
    """Each strategy has inputs of its own: router and posterior both know it from x, and neither adds anything."""
    y = drawn(0)
    judged, probe = verdicts(y), probe_strategy(one_hot(y), verdicts(y), XS)
    metrics = diagnose(Evidence(probe, probe, probe, probe, probe, judged, judged, judged, 0.0, {}))
    assert metrics["diagnosis/posterior_information"] == 0
    assert metrics["diagnosis/generator_obedience"] == 0
    assert metrics["diagnosis/failing_part"] == "posterior"


def test_too_few_labels_give_null_with_a_reason_and_no_verdict():
    invalid = torch.full((N,), -1)
    metrics = diagnosed(given=invalid, z=torch.zeros(N, 3), rendered=invalid)
    assert metrics["diagnosis/failing_part"] is None
    assert "0 examples, 200 are needed" in str(metrics["diagnosis/failing_part__reason"])
    for key, value in metrics.items():
        assert value is not None or metrics[f"{key}__reason"]


def by_name(names: Sequence[str | None]) -> list[Attribution]:
    return [
        Attribution(parse_ok=True, answer_ok=True, strategies=frozenset({name} if name else {"a", "b"}))
        for name in names
    ]


def test_agreement_and_mix_by_hand():
    given, others = by_name(["a", "a", "b", None]), by_name(["a", None, "a", "a"])
    assert agreement(given, others) == pytest.approx(1 / 3)
    assert agreement_by_chance(given, others) == pytest.approx(2 / 3 * 2 / 3)
    assert mix_distance(given, others) == pytest.approx(1 / 4)  # a 2 of 4 against 3, b 1 against 0, ambiguous 1 and 1
    assert agreement(by_name([None]), by_name(["a"])) is None
