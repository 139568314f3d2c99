import pytest

from ww_callbacks.scheduling.cadence import Cadence, Plan


def resolve(plan, **asked):
    return Cadence.resolve(asked.get("epochs"), asked.get("steps"), asked.get("cheap"), plan)


def test_each_epoch_by_default():
    assert resolve(Plan(epochs=10, steps_per_epoch=100)) == Cadence(every_n_epochs=1)


@pytest.mark.parametrize(
    ("plan", "every"),
    [
        (Plan(epochs=1, steps_per_epoch=1000), 50),  # one pass over a corpus
        (Plan(steps=400), 20),  # max_steps with an iterable dataset
        (Plan(epochs=100, steps=200, steps_per_epoch=1000), 10),  # max_steps ends the run inside the first epoch
        (Plan(steps=5), 1),
    ],
)
def test_about_twenty_times_where_there_are_few_epochs(plan, every):
    assert resolve(plan) == Cadence(every_n_steps=every)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(), Cadence(None, 500)),
        (Plan(steps_per_epoch=80), Cadence(1)),  # until somebody stops it
        (Plan(epochs=1000.0), Cadence(1, 500)),  # a stream, whose first epoch may never end
        (Plan(epochs=1.0), Cadence(1, 500)),
        (Plan(epochs=100.0, steps=100_000), Cadence(1, 5000)),
        (Plan(epochs=3.0, steps_per_epoch=100), Cadence(1, 15)),
    ],
)
def test_data_of_unknown_length(plan, expected):
    assert resolve(plan) == expected


def test_what_is_asked_for_wins():
    assert resolve(Plan(epochs=1, steps_per_epoch=1000), epochs=1, cheap=10) == Cadence(1, None, 10)


def test_due():
    cadence = Cadence(every_n_epochs=2, every_n_steps=10, cheap_every_n_steps=4)
    assert [cadence.due_at_step(s) for s in (4, 8, 10, 20, 21)] == ["cheap", "cheap", "full", "full", None]
    assert [cadence.due_at_epoch(e) for e in (1, 2, 3, 4)] == [None, "full", None, "full"]


def test_due_between_two_looks():
    cadence = Cadence(every_n_steps=100, cheap_every_n_steps=10)
    assert cadence.due_between((0, 0.0), (469, 1.0)) == "full"
    assert cadence.due_between((469, 1.0), (475, 1.1)) == "cheap"
    assert cadence.due_between((471, 1.0), (475, 1.1)) is None
    assert Cadence(every_n_epochs=1).due_between((0, 0.5), (9, 1.0)) == "full"
    assert Cadence(every_n_epochs=1).due_between((0, 1.0), (9, 1.5)) is None
