"""Which tasks are in flight: a few a worker, suspects alone, late ones twice; nothing is lost or counted twice."""

from synth_pipeline.scale.window import LATE, LATE_S, PER_WORKER, Window


def test_a_few_a_worker_are_in_flight_and_workers_that_join_are_used():
    window = Window(100)
    assert window.wanted(2, 0.0) == list(range(2 * PER_WORKER))
    assert window.wanted(2, 1.0) == []
    assert window.ended(1, 1.0)
    assert window.wanted(2, 2.0) == [4]
    assert window.wanted(5, 3.0) == [5, 6, 7, 8, 9, 10]
    assert window.wanted(1, 4.0) == []  # four have gone
    assert window.left == 99


def test_no_worker_gets_nothing():
    window = Window(3)
    assert window.wanted(0, 0.0) == []
    assert window.wanted(1, 1.0) == [0, 1]


def test_what_was_lost_is_submitted_again_in_order():
    window = Window(6)
    window.wanted(2, 0.0)
    window.ended(2, 1.0)
    window.lost()
    assert window.wanted(2, 5.0) == [0, 1, 3, 4]
    assert window.left == 5


def test_a_suspect_runs_alone_and_only_then_is_to_blame():
    window = Window(5)
    assert window.wanted(2, 0.0) == [0, 1, 2, 3]
    assert not window.killed(0)
    assert not window.killed(1)
    assert window.wanted(2, 1.0) == []  # those that are under way end first
    window.ended(2, 1.0)
    window.ended(3, 1.0)
    assert window.wanted(2, 2.0) == [0]
    assert window.wanted(2, 2.0) == []
    assert window.ended(0, 1.0)
    assert window.wanted(2, 3.0) == [1]
    assert window.killed(1)


def at_the_end(seconds=20.0, workers=3):
    """Three tasks, of which the first two have ended; the third began at 0."""
    window = Window(3)
    window.wanted(workers, 0.0)
    window.ended(0, seconds)
    window.ended(1, seconds)
    assert window.wanted(workers, seconds) == []
    return window


def test_a_late_task_gets_one_second_copy_and_the_first_result_counts():
    window = at_the_end()
    limit = LATE * 20.0
    assert limit > LATE_S
    assert window.wanted(3, 20.0 + limit) == []
    assert window.wanted(3, 20.1 + limit) == [2]
    assert window.wanted(3, 500.0) == []
    assert window.ended(2, 1.0)
    assert window.left == 0
    assert not window.ended(2, 9.0)
    assert window.left == 0


def test_short_tasks_are_not_doubted_within_half_a_minute():
    window = at_the_end(seconds=0.1)
    assert window.wanted(3, LATE_S) == []
    assert window.wanted(3, 0.2 + LATE_S) == [2]


def test_nothing_runs_twice_while_no_worker_idles_or_tasks_wait():
    window = Window(2)
    window.wanted(1, 0.0)
    window.ended(0, 1.0)
    assert window.wanted(1, 1e6) == []
    waiting = Window(9)
    waiting.wanted(2, 0.0)
    waiting.ended(0, 1.0)
    assert waiting.wanted(2, 1e6) == [4]
    assert waiting.wanted(2, 2e6) == []


def test_waiting_in_a_queue_is_not_being_late():
    window = Window(4)
    window.wanted(2, 0.0)
    for index in (0, 1):
        window.ended(index, 100.0)
    assert window.wanted(4, 100.0) == []  # from here on each has a worker of its own
    assert window.wanted(4, 390.0) == []
    assert window.wanted(4, 401.0) == [2, 3]
