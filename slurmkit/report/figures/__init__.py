"""The figures of a report: what each one shows, from the tables and series of a collection."""

from collections.abc import Callable, Mapping

from slurmkit.aggregate.history import read_history
from slurmkit.report.choice import Choice, auxiliary_keys, series_keys
from slurmkit.report.figures.completion import completion_figure
from slurmkit.report.figures.final import final_figure
from slurmkit.report.figures.folds import folds_figure
from slurmkit.report.figures.interaction import interaction_figure
from slurmkit.report.figures.series import Series, lay_out_series, series_figure
from slurmkit.report.figures.standardised import standardised_figure
from slurmkit.report.figures.tradeoff import tradeoff_figure
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Figure, Sentence, Tone

_TITLES = {
    "completion": "Completion",
    "series": "Validation over steps",
    "objective": "Terms of the objective",
    "auxiliary": "Weighted auxiliary terms",
    "folds": "Fold changes",
    "standardised": "Standardised objective against auxiliary terms",
    "final": "Final metrics",
    "interaction": "Interaction",
    "trade-off": "Trade-off",
}


def figures(material: Material, layout: Layout, choice: Choice) -> list[Block]:
    """Return the figures of a report, and a sentence for each that is left out, with the reason."""
    source = _Sources(material, layout, choice)
    makers: Mapping[str, Callable[[], Figure | str]] = {
        "completion": lambda: completion_figure(material, layout),
        "series": source.validation,
        "objective": source.objective_terms,
        "auxiliary": source.weighted_terms,
        "folds": lambda: folds_figure(material, layout, choice, source.term_names),
        "standardised": source.standardised,
        "final": lambda: final_figure(material, layout, choice),
        "interaction": lambda: interaction_figure(material, layout, choice),
        "trade-off": lambda: tradeoff_figure(material, layout, choice),
    }
    blocks: list[Block] = []
    left_out: list[Block] = []
    for name in choice.figures:
        made = makers[name]()
        if isinstance(made, Figure):
            blocks.append(made)
        else:
            left_out.append(Sentence(f"Left out: {_TITLES[name]}: {made}.", Tone.NOTE))
    return [*blocks, *left_out]


_RAW_TERMS = ("loss/train/*", "loss/val/*")
"""Where auxiliary terms are logged without their weights."""


class _Sources:
    """The series of a collection, read once and only if they are drawn, and the figures of them."""

    def __init__(self, material: Material, layout: Layout, choice: Choice) -> None:
        self._choice = choice
        self.why_not = layout.too_many
        self._series: Series | None = None
        self._auxiliary: list[str] = []
        self._objective: list[str] = []
        wanted = {"series", "objective", "auxiliary", "folds", "standardised"} & set(choice.figures)
        if self.why_not or not wanted:
            return
        globs = (*choice.series, *choice.objective, *choice.auxiliary)
        history, _ = read_history(material.statuses, material.header["axes"], (*globs, *_RAW_TERMS))
        self._series = lay_out_series(
            history, layout, [status.id for status in material.statuses], material.definition.get("metrics") or {}
        )
        metrics = self._series.metrics
        is_default = choice.is_default
        self._objective = series_keys(metrics, choice.objective, is_default="objective" in is_default)
        self._auxiliary = self._not_zero(
            auxiliary_keys(metrics, choice.auxiliary, is_default="auxiliary" in is_default)
        )

    def _not_zero(self, keys: list[str]) -> list[str]:
        """Return the terms that have a value somewhere: one whose weight is 0 everywhere was not swept."""
        assert self._series is not None
        runs = self._series.runs
        return [key for key in keys if bool((runs.loc[runs["metric"] == key, "value"] != 0).any())]

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the auxiliary terms, without where they were logged."""
        return tuple(key.rpartition("/")[2] for key in self._auxiliary)

    def validation(self) -> Figure | str:
        """Return the figure of validation series, or why there is none."""
        if self._series is None:
            return self.why_not
        keys = series_keys(self._series.metrics, self._choice.series, is_default=False)
        return series_figure(self._series, "series", _TITLES["series"], keys, "", log=False)

    def objective_terms(self) -> Figure | str:
        """Return the figure of the objective's terms, or why there is none."""
        if self._series is None:
            return self.why_not
        note = self._series.layout.each_setting(
            "The objective itself has other terms in each setting: compare it within a setting, not across."
        )
        return series_figure(self._series, "objective", _TITLES["objective"], self._objective, note, log=True)

    def weighted_terms(self) -> Figure | str:
        """Return the figure of weighted auxiliary terms, or why there is none."""
        if self._series is None:
            return self.why_not
        note = (
            f"A term times its weight{self._series.layout.each_setting('; a setting whose weight is 0 has no line')}."
        )
        return series_figure(self._series, "auxiliary", _TITLES["auxiliary"], self._auxiliary, note, log=True)

    def standardised(self) -> Figure | str:
        """Return the figure of paths, or why there is none."""
        if self._series is None:
            return self.why_not
        metrics = self._series.metrics
        raw = [key.replace("weighted/", "") for key in self._auxiliary]
        terms = [plain if plain in metrics else key for plain, key in zip(raw, self._auxiliary, strict=True)]
        total = next((key for key in self._objective if "total" in key), next(iter(self._objective), None))
        return standardised_figure(self._series, total, terms)
