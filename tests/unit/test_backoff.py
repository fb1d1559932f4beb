"""Pauses between starts grow, are bounded, and end with the first answer."""

from itertools import pairwise

from derma_serving.backoff import MOST, BackOff


def starts(pauses, clock, seconds):
    """When a part that dies at once would be started, looked after four times a second."""
    found = []
    for tick in range(4 * seconds):
        clock[0] = tick / 4
        if pauses.due():
            found.append(clock[0])
    return found


def test_pauses_grow_up_to_a_bound():
    clock = [0.0]
    times = starts(BackOff(lambda: clock[0]), clock, 200)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert gaps == sorted(gaps) and gaps[0] < 2
    assert MOST <= gaps[-1] <= MOST + 0.25
    assert len(times) < 15


def test_what_answers_starts_at_once_the_next_time():
    clock = [0.0]
    pauses = BackOff(lambda: clock[0])
    starts(pauses, clock, 20)
    assert not pauses.due()
    pauses.recovered()
    assert pauses.due()
    assert not pauses.due()
