"""Which part fails where the latent does not stand for the strategy: posterior, generation or router.

The strategies' labels are used here and nowhere in training. A strategy travels through three links, and each is held
against what chance alone would give:

1. *posterior*: z ~ q(z|x,y) tells which strategy wrote y (a linear probe);
2. *generation*: y' ~ p(y|x,z) under that z is written by the same strategy;
3. *router*: under z ~ p(z|x) the strategies come as often as in the given pairs, and z tells which one comes.

A later link can only be judged where the earlier ones hold, so the first that breaks is the one that is named.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.quality import Metrics
from trainer.probe import ProbeResult
from trainer.tasks import Attribution

MIN_INFORMATION = 0.5
"""The posterior fails below half of the way from chance to certainty."""

MIN_OBEDIENCE = 0.5
"""Generation fails below half of what an obedient generator with such a z would reach."""

MIN_ROUTER_INFORMATION = 0.5
"""The router fails where its z tells less than half of what the posterior's tells."""

MAX_MIX_DISTANCE = 0.25
"""The router fails where more than a quarter of its outputs would have to change to give the strategies' mix."""

SENSITIVE_ABOVE = 0.1
"""Below this share of inputs whose greedy output changes with z, the generator is said to ignore z."""


@dataclass(frozen=True)
class Evidence:
    """What the diagnosis is drawn from; all of N test pairs (x, y).

    Attributes:
        posterior_mean: probe from the posterior's parameters to the strategy of y.
        posterior: the same from the z that `rendered` was written with.
        posterior_control: the same from the router's parameters, which know x alone.
        router: probe from z ~ p(z|x) to the strategy of the y written with it.
        router_control: the same from the router's parameters.
        given: verdicts on y.
        rendered: verdicts on y' written with z from the posterior.
        routed: verdicts on outputs written with z from the router.
        sensitivity: share of inputs whose greedy output changes with z.
        merged: groups of strategies that the posterior puts on one value of a discrete z, with its name; see `merged`.
    """

    posterior_mean: ProbeResult
    posterior: ProbeResult
    posterior_control: ProbeResult
    router: ProbeResult
    router_control: ProbeResult
    given: Sequence[Attribution]
    rendered: Sequence[Attribution]
    routed: Sequence[Attribution]
    sensitivity: float
    merged: Mapping[str, Sequence[str]]


def above_chance(accuracy: float, chance: float) -> float:
    """Return how far an accuracy is on the way from chance (0) to certainty (1); 0 where chance is certain."""
    return (accuracy - chance) / (1 - chance) if chance < 1 else 0.0


def agreement(given: Sequence[Attribution], others: Sequence[Attribution]) -> float | None:
    """Return the share of pairs with one strategy whose other output has that very strategy; None without such pairs.

    An output that is invalid or ambiguous does not agree.
    """
    labelled = [(a.label, b.label) for a, b in zip(given, others, strict=True) if a.label is not None]
    return sum(a == b for a, b in labelled) / len(labelled) if labelled else None


def agreement_by_chance(given: Sequence[Attribution], others: Sequence[Attribution]) -> float:
    """Return the agreement of outputs that know nothing of the given ones: sum_s P(s given) P(s written)."""
    labelled = [(a.label, b.label) for a, b in zip(given, others, strict=True) if a.label is not None]
    left, right = Counter(a for a, _ in labelled), Counter(b for _, b in labelled)
    return sum(left[s] * right[s] for s in left) / max(len(labelled), 1) ** 2


def merged(latent_given_strategy: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Return, by the name of a value of a discrete z, the strategies whose most probable value it is, if several.

    Args:
        latent_given_strategy: for each strategy the K shares of its pairs that the posterior gives to the values.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for strategy, shares in latent_given_strategy.items():
        groups[f"z{shares.index(max(shares)) + 1}"].append(strategy)
    return {value: strategies for value, strategies in groups.items() if len(strategies) > 1}


def mix_distance(given: Sequence[Attribution], routed: Sequence[Attribution]) -> float:
    """Return the total variation distance of the mixes of strategies, 0 to 1; ambiguous and invalid are kinds too."""
    left, right = Counter(map(_kind, given)), Counter(map(_kind, routed))
    kinds = left.keys() | right.keys()
    return sum(abs(left[kind] / len(given) - right[kind] / len(routed)) for kind in kinds) / 2


def diagnose(evidence: Evidence) -> Metrics:
    """Name the part that fails, in ``diagnosis/failing_part``, with the numbers it is drawn from.

    With P the posterior's information, an obedient generator's obedience is between P^2 (z confuses each strategy
    with all others alike) and P (z confuses whole groups): it fails below half of P^2.
    """
    values = _measure(evidence)
    metrics: Metrics = {}
    for name, value in values.items():
        metrics[f"diagnosis/{name}"] = value
        if value is None:
            metrics[f"diagnosis/{name}__reason"] = _reason(name, evidence)
    information, obedience = values["posterior_sampled_information"], values["generator_obedience"]
    if information is None or obedience is None:
        reason = metrics["diagnosis/posterior_sampled_information__reason"]
        return metrics | {"diagnosis/failing_part": None, "diagnosis/failing_part__reason": reason}
    part, why = _first_broken_link(values, information, obedience, evidence.merged)
    return metrics | {"diagnosis/failing_part": part, "diagnosis/explanation": why}


def _measure(evidence: Evidence) -> dict[str, float | None]:
    """Return the links' scores, 0 at chance and 1 at best, and the mix distance and sensitivity."""
    same = agreement(evidence.given, evidence.rendered)
    # Chance is what is reached without y: by the shares of the strategies alone, or by knowing x.
    chance = max(
        agreement_by_chance(evidence.given, evidence.rendered), agreement(evidence.given, evidence.routed) or 0.0
    )
    return {
        "posterior_information": _information(evidence.posterior_mean, evidence.posterior_control),
        "posterior_sampled_information": _information(evidence.posterior, evidence.posterior_control),
        "generator_obedience": None if same is None else above_chance(same, chance),
        "generator_sensitivity": evidence.sensitivity,
        "router_information": _information(evidence.router, evidence.router_control),
        "router_mix_distance": mix_distance(evidence.given, evidence.routed),
    }


def _information(probe: ProbeResult, control: ProbeResult) -> float | None:
    """Return what a probe adds to the most frequent strategy, and to what x alone tells."""
    if probe.accuracy is None:
        return None
    return above_chance(probe.accuracy, max(probe.majority, control.accuracy or 0.0))


def _reason(name: str, evidence: Evidence) -> str | None:
    probes = {
        "posterior_information": evidence.posterior_mean,
        "posterior_sampled_information": evidence.posterior,
        "router_information": evidence.router,
    }
    return probes[name].reason if name in probes else "no pair with a unique strategy"


def _first_broken_link(
    values: dict[str, float | None], information: float, obedience: float, merged: Mapping[str, Sequence[str]]
) -> tuple[str, str]:
    """Return the failing part, or ``none``, and a sentence with the evidence."""
    router, mix, sensitivity = (
        values["router_information"],
        values["router_mix_distance"],
        values["generator_sensitivity"],
    )
    assert mix is not None
    assert sensitivity is not None
    if information < MIN_INFORMATION:
        return "posterior", (
            f"z from the posterior tells too little of the strategy of y ({information:.2f} of 1): "
            f"{_why_uninformative(values['posterior_information'], sensitivity, merged)}"
        )
    if obedience < MIN_OBEDIENCE * information**2:
        return "generation", (
            f"z from the posterior tells the strategy ({information:.2f}), but what the generator writes under it has "
            f"that strategy too seldom ({obedience:.2f}; an obedient one reaches {information**2:.2f} or more)"
        )
    if mix > MAX_MIX_DISTANCE:
        return "router", (
            f"posterior ({information:.2f}) and generation ({obedience:.2f}) hold, but under the router's z the "
            f"strategies come in another mix than in the pairs (distance {mix:.2f})"
        )
    if router is None or router < MIN_ROUTER_INFORMATION * information:
        told = "cannot be probed" if router is None else f"tells {router:.2f}"
        return "router", (
            f"posterior ({information:.2f}) and generation ({obedience:.2f}) hold, but the router's own z hardly "
            f"decides which strategy comes ({told})"
        )
    return "none", (
        f"posterior {information:.2f}, generation {obedience:.2f} and router {router:.2f} hold, each from 0 at chance "
        f"to 1; the router's mix is {mix:.2f} from the pairs'"
    )


def _why_uninformative(mean: float | None, sensitivity: float, merged: Mapping[str, Sequence[str]]) -> str:
    if sensitivity < SENSITIVE_ABOVE:
        return f"the generator writes the same whatever z is ({sensitivity:.2f} of outputs change), so z is unused"
    if merged:
        groups = "; ".join(f"{' and '.join(strategies)} share {value}" for value, strategies in merged.items())
        return f"{groups}; the generator does react to z ({sensitivity:.2f} of outputs change)"
    if mean is not None and mean >= MIN_INFORMATION:
        return f"its parameters tell more ({mean:.2f}), which is lost in the noise of z"
    return f"the generator does react to z ({sensitivity:.2f} of outputs change)"


def _kind(verdict: Attribution) -> str:
    return verdict.label or ("ambiguous" if verdict.ambiguous else "invalid")
