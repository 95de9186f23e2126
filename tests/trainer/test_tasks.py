"""The six tasks: what strategies write, what is read back, and which strategy an output is attributed to."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.tasks import TASKS, Attribution, TaskError, attribute, sample_records

SETTINGS = [(name, preset) for name, task in TASKS.items() for preset in task.presets]

EXAMPLES = {
    "list_summation": (
        "3,8,5,6",
        {
            "left-to-right": "3+8=11;11+5=16;16+6=22#22",
            "right-to-left": "6+5=11;11+8=19;19+3=22#22",
            "pairwise": "3+8=11;5+6=11;11+11=22#22",
        },
    ),
    "sorting_algorithms": (
        "54783",
        {
            "bubble-sort": "45738>45378>43578>34578#34578",
            "selection-sort": "34785>34785>34587>34578#34578",
            "insertion-sort": "45783>45783>45783>34578#34578",
            "merge-sort": "45|78|3>4578|3>34578#34578",
            "heap-sort": "85743>75348>54378>43578>34578#34578",
        },
    ),
    "grid_pathfinding": (
        "20>64",
        {
            "right-first": "R21R22R23R24D34D44D54D64#64",
            "down-first": "D30D40D50D60R61R62R63R64#64",
            "alternating": "R21D31R32D42R43D53R54D64#64",
        },
    ),
    "linear_equation_solving": (
        "4x+12=40",
        {
            "subtract-then-divide": "4x=40-12;4x=28;x=28/4;x=7#7",
            "divide-then-subtract": "x+12/4=40/4;x+3=10;x=10-3;x=7#7",
            "inverse-ops": "40-12=28;28/4=7#7",
        },
    ),
    "base_conversion": (
        "129b8",
        {
            "repeated-division": "129/8=16r1;16/8=2r0;2/8=0r2#201",
            "via-binary": "10000001;010=2,000=0,001=1#201",
            "decomposition": "129-2*64=1;1-0*8=1;1-1*1=0#201",
        },
    ),
    "multidigit_addition": (
        "83+80",
        {
            "right-to-left-carry": "3+0+0=3;8+8+0=16#163",
            "left-to-right-partials": "80+80=160;3+0=3;160+3=163#163",
            "rounding-decomposition": "90+80=170;170-7=163#163",
        },
    ),
}

# What the ranges beyond the examples ask for: an odd element, a negative b and solution, base 16, unequal lengths.
FURTHER_EXAMPLES = [
    ("list_summation", "1,2,3,4,5", "pairwise", "1+2=3;3+4=7;3+7=10;10+5=15#15"),
    ("sorting_algorithms", "12345", "bubble-sort", "12345#12345"),
    ("sorting_algorithms", "12345", "insertion-sort", "12345>12345>12345>12345#12345"),
    ("grid_pathfinding", "00>31", "alternating", "R01D11D21D31#31"),
    ("grid_pathfinding", "00>13", "alternating", "R01D11R12R13#13"),
    ("linear_equation_solving", "4x-12=16", "subtract-then-divide", "4x=16+12;4x=28;x=28/4;x=7#7"),
    ("linear_equation_solving", "4x-12=16", "divide-then-subtract", "x-12/4=16/4;x-3=4;x=4+3;x=7#7"),
    ("linear_equation_solving", "4x+12=-8", "inverse-ops", "-8-12=-20;-20/4=-5#-5"),
    ("linear_equation_solving", "2x+4=4", "subtract-then-divide", "2x=4-4;2x=0;x=0/2;x=0#0"),
    ("base_conversion", "2748b16", "via-binary", "101010111100;1010=a,1011=b,1100=c#abc"),
    ("base_conversion", "2748b16", "repeated-division", "2748/16=171r12;171/16=10r11;10/16=0r10#abc"),
    ("base_conversion", "18b4", "via-binary", "10010;01=1,00=0,10=2#102"),
    ("multidigit_addition", "95+987", "right-to-left-carry", "5+7+0=12;9+8+1=18;0+9+1=10#1082"),
    (
        "multidigit_addition",
        "123+45",
        "left-to-right-partials",
        "100+0=100;20+40=60;3+5=8;100+60=160;160+8=168#168",
    ),
    ("multidigit_addition", "80+83", "rounding-decomposition", "80+83=163;163-0=163#163"),
]


@st.composite
def problems(draw: st.DrawFn, presets: tuple[str, ...] = ("demo", "full", "mar19")):
    """Draw a task, one of its problems, and one of its strategies."""
    name, preset = draw(st.sampled_from([setting for setting in SETTINGS if setting[1] in presets]))
    task = TASKS[name]
    problem = task.sample(random.Random(draw(st.integers(0, 2**32))), task.presets[preset])
    return task, problem, draw(st.sampled_from(task.strategies))


@pytest.mark.parametrize("name", TASKS)
def test_each_strategy_writes_the_documented_example(name: str):
    x, expected = EXAMPLES[name]
    task = TASKS[name]
    assert {strategy: task.render(task.parse_x(x), strategy) for strategy in task.strategies} == expected
    for strategy, y in expected.items():
        assert attribute(task, x, y).label == strategy


@pytest.mark.parametrize(("name", "x", "strategy", "y"), FURTHER_EXAMPLES)
def test_corners_of_the_ranges_are_written_like_this(name: str, x: str, strategy: str, y: str):
    task = TASKS[name]
    assert task.render(task.parse_x(x), strategy) == y
    assert task.parse_ok(y)


@given(problems())
def test_an_output_is_attributed_to_the_strategy_that_wrote_it(case):
    task, problem, strategy = case
    attribution = attribute(task, task.render_x(problem), task.render(problem, strategy))
    assert attribution.parse_ok
    assert attribution.answer_ok
    assert strategy in attribution.strategies
    assert attribution.ambiguous == (len(attribution.strategies) > 1)
    assert attribution.label == (None if attribution.ambiguous else strategy)


@given(problems())
def test_an_input_is_read_back_exactly_and_rendering_depends_on_nothing_else(case):
    task, problem, strategy = case
    again = task.parse_x(task.render_x(problem))
    assert again == problem
    assert task.render(again, strategy) == task.render(problem, strategy)


@given(problems())
def test_every_step_of_an_arithmetic_trace_is_true(case):
    task, problem, strategy = case
    y = task.render(problem, strategy)
    trace, answer = y.split("#")
    if task.name in ("list_summation", "multidigit_addition") or strategy in ("inverse-ops", "decomposition"):
        for step in trace.split(";"):
            left, right = step.split("=")
            assert eval(left.replace("/", "//"), {}) == int(right)  # digits and operators, written by the task
    if task.name == "base_conversion":
        assert int(answer, problem.base) == problem.value


@given(problems(), st.data())
def test_a_changed_digit_in_the_trace_leaves_no_strategy(case, data: st.DataObject):
    task, problem, strategy = case
    y = task.render(problem, strategy)
    place = data.draw(st.sampled_from([m.start() for m in re.finditer("[0-9]", y.partition("#")[0])]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != y[place]]))
    corrupted = y[:place] + digit + y[place + 1 :]
    assert attribute(task, task.render_x(problem), corrupted).strategies == frozenset()


@given(problems(), st.data())
def test_a_changed_digit_in_the_answer_is_a_wrong_answer(case, data: st.DataObject):
    task, problem, strategy = case
    y = task.render(problem, strategy)
    place = data.draw(st.integers(y.index("#") + 1, len(y) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != y[place]]))
    attribution = attribute(task, task.render_x(problem), y[:place] + digit + y[place + 1 :])
    assert not attribution.answer_ok
    assert attribution.strategies == frozenset()


@given(problems())
def test_a_truncated_output_is_neither_answered_nor_attributed(case):
    task, problem, strategy = case
    x, y = task.render_x(problem), task.render(problem, strategy)
    for end in range(len(y)):
        attribution = attribute(task, x, y[:end])
        assert not attribution.answer_ok
        assert attribution.strategies == frozenset()
        assert attribution.parse_ok == (end > y.index("#") + 1 and task.parse_ok(y[:end]))


@given(problems())
def test_a_second_answer_mark_does_not_parse(case):
    task, problem, strategy = case
    x, y = task.render_x(problem), task.render(problem, strategy)
    for place in range(len(y) + 1):
        attribution = attribute(task, x, y[:place] + "#" + y[place:])
        assert not attribution.parse_ok
        assert not attribution.answer_ok
        assert attribution.strategies == frozenset()


@given(problems(), st.text(alphabet="0123456789+-*/=,;:>|#xbrRDa\n ", max_size=40))
def test_any_text_can_be_judged(case, y: str):
    task, problem, _ = case
    attribution = attribute(task, task.render_x(problem), y)
    assert attribution.parse_ok or not (attribution.answer_ok or attribution.strategies)


def test_a_trailing_newline_or_a_foreign_digit_does_not_parse():
    x, outputs = EXAMPLES["list_summation"]
    y = outputs["pairwise"]
    assert not attribute(TASKS["list_summation"], x, y + "\n").parse_ok
    assert not attribute(TASKS["list_summation"], x, y.replace("3", "\N{ARABIC-INDIC DIGIT THREE}")).parse_ok


def test_a_path_counts_only_if_its_moves_lead_to_the_goal():
    task, (x, outputs) = TASKS["grid_pathfinding"], EXAMPLES["grid_pathfinding"]
    y = outputs["right-first"]
    one_move_changed = attribute(task, x, y.replace("R24", "D24"))
    assert one_move_changed.parse_ok
    assert not one_move_changed.answer_ok
    misprinted_cell = attribute(task, x, y.replace("R24", "R99"))
    assert misprinted_cell.answer_ok
    assert misprinted_cell.strategies == frozenset()
    another_path = attribute(task, x, "D30R31R32R33R34D44D54D64#64")
    assert another_path.answer_ok
    assert another_path.strategies == frozenset()
    assert not attribute(task, x, "#64").answer_ok


def test_states_of_a_sort_have_as_many_digits_as_its_answer():
    task = TASKS["sorting_algorithms"]
    assert task.parse_ok("45|78|3>4578|3>34578#34578")
    assert not task.parse_ok("45|78>4578|3>34578#34578")
    assert not task.parse_ok("4573>45378#34578")


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("list_summation", "1,2,3"),
        ("list_summation", "1,2,3,04"),
        ("list_summation", ""),
        ("sorting_algorithms", "11234"),
        ("sorting_algorithms", "12"),
        ("grid_pathfinding", "20>24"),
        ("grid_pathfinding", "64>20"),
        ("linear_equation_solving", "4x+11=40"),
        ("linear_equation_solving", "4x+12=41"),
        ("linear_equation_solving", "4x+0=40"),
        ("linear_equation_solving", "1x+12=40"),
        ("base_conversion", "129b7"),
        ("base_conversion", "0b8"),
        ("base_conversion", "129b08"),
        ("multidigit_addition", "8+80"),
        ("multidigit_addition", "083+80"),
        ("multidigit_addition", "83+80\n"),
    ],
)
def test_a_text_that_no_problem_writes_is_refused_with_an_example(name: str, x: str):
    with pytest.raises(TaskError, match=re.escape(f"{name}: {x!r} is no input")) as error:
        TASKS[name].parse_x(x)
    assert repr(TASKS[name].example) in str(error.value)


# Share of ambiguous inputs, and which strategies then write the same.
AMBIGUITY = [
    ("list_summation", "demo", Fraction(81, 9**4), {("left-to-right", "right-to-left")}),  # palindromes
    ("sorting_algorithms", "demo", Fraction(16, 120), {("insertion-sort", "selection-sort")}),
    ("grid_pathfinding", "demo", Fraction(0), set()),
    ("grid_pathfinding", "mar19", Fraction(1, 3), {("alternating", "right-first")}),
    ("linear_equation_solving", "demo", Fraction(0), set()),
    ("base_conversion", "demo", Fraction(0), set()),
    ("multidigit_addition", "demo", Fraction(0), set()),
]


@pytest.mark.parametrize(("name", "preset", "share", "pairs"), AMBIGUITY)
def test_ten_thousand_inputs_are_read_as_their_strategies_and_are_as_ambiguous_as_documented(
    name: str, preset: str, share: Fraction, pairs: set
):
    """Every strategy's trace of every input: it alone is named, or all that write the very same, never another."""
    task = TASKS[name]
    rng = random.Random(19)
    ambiguous: Counter[tuple[str, ...]] = Counter()
    for _ in range(10_000):
        problem = task.sample(rng, task.presets[preset])
        x, written = task.render_x(problem), {s: task.render(problem, s) for s in task.strategies}
        writers = {y: frozenset(s for s in written if written[s] == y) for y in written.values()}
        for y, strategies in writers.items():
            attribution = attribute(task, x, y)
            assert attribution == Attribution(parse_ok=True, answer_ok=True, strategies=strategies)
            assert attribution.label == (min(strategies) if len(strategies) == 1 else None)
        ambiguous.update(tuple(sorted(strategies)) for strategies in writers.values() if len(strategies) > 1)
    standard_error = float(share * (1 - share) / 10_000) ** 0.5
    assert set(ambiguous) == pairs
    assert ambiguous.total() / 10_000 == pytest.approx(float(share), abs=4 * standard_error)


CLASSES = {"digits": "0123456789", "letters": "xrRDabcdef", "operators": "+-*/=", "separators": ",;:>|", "marks": "#"}


def corruptions(y: str, place: int, rng: random.Random) -> dict[str, str]:
    """Return y with the character at a place changed within its class, and into another, doubled, and left out."""
    of = next(characters for characters in CLASSES.values() if y[place] in characters)
    others = "".join(characters for characters in CLASSES.values() if characters != of)
    changed = {"into another class": rng.choice(others), "doubled": 2 * y[place], "left out": ""}
    if len(of) > 1:
        changed["within its class"] = rng.choice(of.replace(y[place], ""))
    return {how: y[:place] + text + y[place + 1 :] for how, text in changed.items()}


@pytest.mark.parametrize("name", TASKS)
def test_a_trace_corrupted_in_a_character_of_any_class_is_no_strategys(name: str):
    """One character of each class in turn; no other strategy of the input writes what then stands there either."""
    task, rng, seen = TASKS[name], random.Random(23), Counter[tuple[str, str]]()
    for record in sample_records(task, {}, 1000, seed=2, split="train", purpose="corrupted", policy="overlap"):
        end = record.y.index("#")
        for kind, characters in CLASSES.items():
            places = [place for place in range(end + 1) if record.y[place] in characters]
            if not places:
                continue
            for how, corrupted in corruptions(record.y, rng.choice(places), rng).items():
                if corrupted == record.y:
                    continue
                assert attribute(task, record.x, corrupted).strategies == frozenset(), (record, how, corrupted)
                seen[kind, how] += 1
    assert {kind for kind, _ in seen} >= {"digits", "marks"}
    assert min(seen.values()) > 10
    assert {how for _, how in seen} == {"into another class", "doubled", "left out", "within its class"}


@pytest.mark.parametrize(("n", "share"), [(4, 8 / 24), (5, 16 / 120), (6, 32 / 720)])
def test_a_sort_of_few_digits_is_ambiguous_as_often_as_documented(n: int, share: float):
    """Only the order of the digits counts, so the n! orders are all inputs there are."""
    task = TASKS["sorting_algorithms"]
    ambiguous = [
        task.render(problem, "selection-sort") == task.render(problem, "insertion-sort")
        for problem in (task.parse_x("".join(order)) for order in permutations("0123456789"[:n]))
    ]
    assert sum(ambiguous) / len(ambiguous) == share


LENGTHS = [  # of x; of y: least, most, mean
    ("list_summation", {7}, 19, 25, 23.6),
    ("sorting_algorithms", {5}, 11, 35, 28.9),
    ("grid_pathfinding", {5}, 15, 33, 24.0),
    ("linear_equation_solving", {6, 7, 8, 9}, 13, 32, 23.7),
    ("base_conversion", {4, 5}, 19, 44, 29.5),
    ("multidigit_addition", {5}, 18, 31, 23.1),
]


@pytest.mark.parametrize(("name", "x_lengths", "least", "most", "mean"), LENGTHS)
def test_texts_are_as_long_as_documented(name: str, x_lengths: set, least: int, most: int, mean: float):
    records = sample_records(TASKS[name], {}, 10_000, seed=0, split="train", purpose="lengths", policy="overlap")
    lengths = [len(record.y) for record in records]
    assert {len(record.x) for record in records} == x_lengths
    assert (min(lengths), max(lengths)) == (least, most)
    assert sum(lengths) / len(lengths) == pytest.approx(mean, abs=0.3)


@pytest.mark.parametrize(("name", "preset"), SETTINGS)
def test_presets_are_valid_as_written_and_as_json(name: str, preset: str):
    task = TASKS[name]
    assert task.presets["demo"] == task.defaults
    params = task.validate(task.presets[preset])
    assert params.model_dump() == task.presets[preset]
    assert task.validate(json.loads(json.dumps(task.presets[preset]))) == params
    assert task.validate(params) is params


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("list_summation", {"n_min": 3}, "task.params.n_min: should be greater than or equal to 4, got 3."),
        ("list_summation", {"n_min": 5}, "task.params: n_min 5 is above n_max 4."),
        (
            "list_summation",
            {"n_mn": 5},
            "task.params.n_mn: list_summation has no such parameter, got 5. Did you mean n_m",
        ),
        ("sorting_algorithms", {"n_max": 11}, "task.params.n_max: should be less than or equal to 10, got 11."),
        ("grid_pathfinding", {"offset_min": "2"}, "task.params.offset_min: should be a valid integer, got '2'."),
        ("grid_pathfinding", {"offset_min": True}, "task.params.offset_min: should be a valid integer, got True."),
        ("grid_pathfinding", {"offset_max": 5.0}, "got 5.0. Change it, or leave it out for the default 5."),
        ("base_conversion", {"bases": [2]}, "task.params.bases.0: should be 4, 8 or 16, got 2."),
        ("base_conversion", {"bases": []}, "task.params.bases: should name at least one base"),
        ("base_conversion", {"bases": [4, 4]}, "and none twice"),
        ("multidigit_addition", {"digits_min": 1}, "task.params.digits_min: should be greater than or equal to 2"),
        ("linear_equation_solving", {"a_min": 1}, "task.params.a_min: should be greater than or equal to 2, got 1."),
    ],
)
def test_a_bad_parameter_is_named_with_its_value_and_what_to_do(name: str, params: dict, message: str):
    with pytest.raises(TaskError, match=re.escape(message)):
        TASKS[name].validate(params)


def test_all_bad_parameters_are_told_at_once():
    with pytest.raises(TaskError) as error:
        TASKS["list_summation"].validate({"n_min": 3, "values": 9, "value_max": None})
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "task.params.n_min",
        "task.params.value_max",
        "task.params.values",
    ]


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    task = TASKS["sorting_algorithms"]
    with pytest.raises(TaskError, match=r"no strategy 'buble-sort'. Did you mean bubble-sort\?"):
        task.render(task.parse_x("54783"), "buble-sort")


def test_tasks_and_tokenizer_come_without_torch():
    code = "import sys, trainer.tasks, trainer.tokenizer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
