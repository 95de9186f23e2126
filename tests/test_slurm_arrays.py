"""How requests become job arrays: few, each behind what it waits for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.records import WorkOrder
from slurmkit.resources import Resources
from slurmkit.schedulers import JobRequest
from slurmkit.schedulers.slurm import arrays


def request(*, after: tuple[str, ...] = (), index: tuple[int, ...] = (), **resources: int) -> JobRequest:
    order = WorkOrder("c", "id", "name", "/run", 1, ["true"], {}, "0", {}, "/checkout", "0", {})
    return JobRequest(order, Resources(**resources), after, index)


def test_equal_resources_are_one_array_and_others_one_each() -> None:
    asked = [request(mem_mb=1), request(mem_mb=2), request(mem_mb=1)]
    assert arrays.split(asked, 1001) == [[0, 2], [1]]


def test_arrays_are_cut_to_the_largest_that_the_cluster_takes() -> None:
    assert [len(one) for one in arrays.split([request() for _ in range(25)], 10)] == [10, 10, 5]
    assert [len(one) for one in arrays.split([request(pack=4) for _ in range(25)], 3)] == [12, 12, 1]


def test_stages_of_a_submission_follow_each_other_task_by_task() -> None:
    chain = [request() for _ in range(3)] + [request(index=(place,)) for place in range(3)]
    assert arrays.split(chain, 1001) == [[0, 1, 2], [3, 4, 5]]
    second = arrays.shape([request(after=(f"7_{place}",)) for place in range(3)])
    assert second.dependency == "aftercorr:7"
    assert second.tasks == {0: [0], 1: [1], 2: [2]}


def test_many_runs_on_few_bases_take_the_fewer_arrays() -> None:
    four_on_each_of_six = [request(after=(f"9_{number % 6}",)) for number in range(24)]
    split = arrays.split(four_on_each_of_six, 1001)
    assert [len(one) for one in split] == [6, 6, 6, 6]
    assert arrays.shape([four_on_each_of_six[position] for position in split[0]]).dependency == "aftercorr:9"
    twelve_on_each_of_two = [request(after=(f"9_{number % 2}",)) for number in range(24)]
    split = arrays.split(twelve_on_each_of_two, 1001)
    assert [len(one) for one in split] == [12, 12]
    assert arrays.shape([twelve_on_each_of_two[position] for position in split[1]]).dependency == "afterok:9_1"


def test_runs_behind_canaries_and_their_own_bases_wait_for_both() -> None:
    shape = arrays.shape([request(after=("3_0", "3_1", f"9_{place}")) for place in (4, 7)])
    assert shape.dependency == "afterok:3_0:3_1,aftercorr:9"
    assert shape.indices(None) == "4,7"


def test_packed_runs_share_tasks_and_wait_for_whole_packs() -> None:
    shape = arrays.shape([request(pack=4) for _ in range(6)])
    assert shape.tasks == {0: [0, 1, 2, 3], 1: [4, 5]}
    assert arrays.shape([request(after=("5_1+2",))]).dependency == "afterok:5_1"


def test_the_throttle_stands_behind_the_tasks() -> None:
    assert arrays.shape([request(parallel=8) for _ in range(20)]).indices(8) == "0-19%8"


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1, 2], "0-2"), ([5, 3, 4, 9], "3-5,9"), ([0, 2, 4], "0,2,4")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert arrays.ranges(numbers) == text


@given(st.data())
def test_every_request_is_in_one_array_behind_those_that_it_waits_for(data: st.DataObject) -> None:
    asked: list[JobRequest] = []
    for place in range(data.draw(st.integers(1, 16))):
        before = data.draw(st.sets(st.integers(0, place - 1), max_size=2)) if place else set[int]()
        outside = data.draw(st.sets(st.sampled_from(["1_0", "1_1", "2_0", "3_5+1"]), max_size=2))
        asked.append(request(after=tuple(outside), index=tuple(before), cpus=data.draw(st.integers(1, 2))))
    largest = data.draw(st.integers(1, 8))
    split = arrays.split(asked, largest)
    assert sorted(position for one in split for position in one) == list(range(len(asked)))
    ids: dict[int, str] = {}
    for number, one in enumerate(split):
        ready = [
            request(after=(*asked[p].after, *(ids[other] for other in asked[p].after_index))) for p in one
        ]  # a KeyError: it does not stand behind what it waits for
        shape = arrays.shape(ready)
        assert sorted(position for places in shape.tasks.values() for position in places) == list(range(len(one)))
        assert len(shape.tasks) <= largest
        for task, places in shape.tasks.items():
            ids.update({one[place]: f"{100 + number}_{task}" for place in places})
            for place in places:
                waits = {job.partition("+")[0] for job in ready[place].after}
                assert waits == _said(shape.dependency, task)


def _said(dependency: str, task: int) -> set[str]:
    """Return what one task of an array waits for, as Slurm reads it."""
    waits: set[str] = set()
    for condition in filter(None, dependency.split(",")):
        kind, _, jobs = condition.partition(":")
        waits |= {f"{jobs}_{task}"} if kind == "aftercorr" else set(jobs.split(":"))
    return waits
