"""Where the time went."""

import pytest

from trainer.records.goodput import PHASES, Attempt, Stopwatch, goodput


class Clock:
    """Shows what it was last set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def test_each_second_counts_once_for_the_innermost_phase() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    clock.pass_(1)
    with stopwatch.measure("train"):
        clock.pass_(2)
        with stopwatch.measure("evaluate"):
            clock.pass_(4)
            with stopwatch.measure("checkpoint"):
                clock.pass_(8)
        clock.pass_(16)
    clock.pass_(32)
    with stopwatch.measure("train"):
        clock.pass_(64)
    assert stopwatch.seconds() == {
        "startup": 0,
        "features": 0,
        "compile": 0,
        "input_wait": 0,
        "train": 2 + 16 + 64,
        "evaluate": 4,
        "checkpoint": 8,
        "export": 0,
        "total": 127,
    }


def test_the_same_phase_within_itself_counts_once() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.measure("export"):
        clock.pass_(1)
        with stopwatch.measure("export"):
            clock.pass_(2)
        clock.pass_(4)
    assert stopwatch.seconds()["export"] == stopwatch.seconds()["total"] == 7


def test_a_running_phase_is_counted_up_to_now_and_not_again() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.measure("compile"):
        clock.pass_(3)
        assert stopwatch.seconds()["compile"] == 3
        clock.pass_(1)
    assert stopwatch.seconds()["compile"] == 4


def test_an_exception_ends_the_phase() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with pytest.raises(RuntimeError), stopwatch.measure("train"), stopwatch.measure("evaluate"):
        clock.pass_(2)
        raise RuntimeError
    clock.pass_(5)
    seconds = stopwatch.seconds()
    assert (seconds["evaluate"], seconds["train"], seconds["total"]) == (2, 0, 7)


def test_the_parts_never_exceed_the_total_of_a_real_clock() -> None:
    stopwatch = Stopwatch()
    for phase in PHASES:
        with stopwatch.measure(phase):
            pass
    seconds = stopwatch.seconds()
    total = seconds.pop("total")
    assert 0 < sum(seconds.values()) <= total


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="no phase 'lunch': one of startup"), Stopwatch().measure("lunch"):  # type: ignore[arg-type]
        pass


def test_seconds_can_be_booked_for_another_phase() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.measure("train"):
        clock.pass_(10)
        stopwatch.move(3.0, "train", "input_wait")
        clock.pass_(1)
    seconds = stopwatch.seconds()
    assert (seconds["train"], seconds["input_wait"], seconds["total"]) == (8, 3, 11)


def attempt(from_step: int, to_step: int, train: float, total: float) -> Attempt:
    return Attempt("2026-11-22T10:00:00+00:00", from_step, to_step, {"train": train, "total": total})


@pytest.mark.parametrize(
    ("resumed", "lost"),
    [(100, 0.0), (75, 10.0), (20, 32.0), (0, 40.0), (130, 0.0)],
    ids=["all was saved", "25 steps again", "all but those before", "all of it again", "it told less than it saved"],
)
def test_steps_that_are_done_again_are_lost(resumed: int, lost: float) -> None:
    one = attempt(0, 100, train=40.0, total=60.0)
    one.lose(resumed)
    assert one.lost_seconds == pytest.approx(lost)
    assert goodput([one])["train"] == pytest.approx(40.0 - lost)


def test_goodput_adds_up_over_all_starts() -> None:
    one, two = attempt(0, 100, 40.0, 60.0), attempt(75, 200, 50.0, 90.0)
    one.lose(75)
    found = goodput([one, two])
    assert (found["starts"], found["lost"], found["train"], found["total"]) == (2, 10.0, 80.0, 150.0)
    assert found["share"] == pytest.approx(80 / 150)
    assert goodput([])["share"] == 0.0
    assert Attempt.from_json({**vars(one)}) == one
