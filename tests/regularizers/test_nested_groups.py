import numpy as np
import pytest

from tfconvbias.regularizers.nested_groups import increments, live_size, memberships, num_groups


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_half_ring_groups_have_the_cardinality_of_the_paper(size):
    member = memberships(size, 2, "half_ring")
    expected = [size**2 - (size - n) ** 2 for n in range(1, size + 1)]
    assert member.sum(axis=1).tolist() == expected
    assert (member[1:] >= member[:-1]).all()
    assert member[-1].all()


def test_half_rings_take_turns_from_the_top_left():
    assert increments(5, 2, "half_ring").tolist() == [
        [0, 0, 0, 0, 0],
        [0, 2, 2, 2, 1],
        [0, 2, 4, 3, 1],
        [0, 2, 3, 3, 1],
        [0, 1, 1, 1, 1],
    ]


def test_rings_take_both_sides_at_once():
    assert increments(5, 2, "ring").tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 2, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 2), (4, 2), (5, 3), (7, 4)])
def test_number_of_rings(size, count):
    assert num_groups(size, "ring") == count
    assert memberships(size, 2, "ring").shape == (count, size**2)


@pytest.mark.parametrize("groups", ["half_ring", "ring"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_size_is_the_edge_of_what_the_zeroed_groups_leave(size, rank, groups):
    first = increments(size, rank, groups)
    for dead in range(num_groups(size, groups) + 1):
        left = first >= dead
        edge = round(float(left.sum()) ** (1 / rank))
        live = num_groups(size, groups) - dead
        assert live_size(np.array([live]), size, groups)[0] == edge
