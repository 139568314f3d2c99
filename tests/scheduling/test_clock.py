"""The run's own clock: what the frameworks' counters do, and what is due."""

import json

import pytest

from ww_callbacks.scheduling.cadence import Cadence
from ww_callbacks.scheduling.clock import Clock


def due_steps(counters, cadence, per_step=1):
    """The steps at which a full snapshot falls due while the framework's counter goes through ``counters``."""
    clock, found = Clock(), []
    for counter in counters:
        clock.saw_batches(counter=counter, per_step=per_step)
        if clock.due(cadence) == "full":
            found.append(clock.steps)
    return found


@pytest.mark.parametrize(
    "counters",
    [
        range(1, 61),  # one optimiser
        range(2, 122, 2),  # two
        range(3, 183, 3),  # three
        [5 * (i // 2 + 1) for i in range(60)],  # moves every other batch, by much
        [0] * 60,  # raw optimisers: it stands still
        [None] * 60,  # there is none
        [i % 7 for i in range(60)],  # starts over
        [*range(1, 31), *[0] * 30],  # a new optimiser that is not counted
    ],
)
def test_every_ten_steps_is_every_ten_steps(counters):
    assert due_steps(counters, Cadence(every_n_steps=10)) == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("counters", [[(i + 1) // 4 for i in range(40)], [0] * 40, [None] * 40])
def test_accumulated_gradients_count_updates(counters):
    assert due_steps(counters, Cadence(every_n_steps=3), per_step=4) == [3, 6, 9]


def test_the_last_batch_of_an_epoch_may_step_early():
    clock = Clock()
    for counter in (0, 0, 1, 1, 2, 2, 2, 3, 3, 4):  # five batches an epoch, three accumulated
        clock.saw_batches(counter=counter, per_step=3)
        assert clock.steps == counter


def test_what_the_caller_knows_is_believed():
    clock = Clock()
    assert [clock.saw_batches(counter=0, stepped=s) for s in (False, False, True, False)] == [False, False, True, False]
    assert (clock.steps, clock.batches) == (1, 4)


def test_several_batches_in_one_hook_skip_and_double_nothing():
    clock, cadence = Clock(), Cadence(every_n_steps=10, cheap_every_n_steps=4)
    kinds = []
    for counter in range(7, 43, 7):
        clock.saw_batches(7, counter=counter)
        kinds.append((clock.steps, clock.due(cadence), clock.due(cadence)))
    assert kinds == [
        (7, "cheap", None),
        (14, "full", None),
        (21, "full", None),
        (28, "cheap", None),
        (35, "full", None),
        (42, "full", None),
    ]


def test_epochs_fall_due_at_their_end_and_never_go_back():
    clock, cadence = Clock(), Cadence(every_n_epochs=2)
    epochs, told = [], []
    for completed in (1, 2, None, 1, 9):
        for fraction in (0.5, 1.0):
            clock.saw_batches(fraction=fraction)
            epochs.append(clock.epoch)
            assert clock.due(cadence) is None
        clock.saw_epoch(completed)
        epochs.append(clock.epoch)
        told.append(clock.due(cadence))
    assert epochs == sorted(epochs) and clock.epochs == 9
    assert told == [None, "full", None, "full", "full"]


def test_the_length_of_an_epoch_is_learnt_from_the_one_before():
    clock, epochs = Clock(), []
    for batches in (4, 5, 3):
        for _ in range(batches):
            clock.saw_batches()
            epochs.append(clock.epoch)
            clock = restored(clock)
        clock.saw_epoch()
    assert epochs == [0, 0, 0, 0, 1.25, 1.5, 1.75, 1.875, 1.875, 2.2, 2.4, 2.6] and clock.epoch == 3


def restored(clock):
    again = Clock()
    again.restore(json.loads(json.dumps(clock.state())))
    return again


def test_a_restored_clock_goes_on_as_an_undisturbed_one():
    whole, broken, cadence = Clock(), Clock(), Cadence(every_n_steps=5)
    seen: dict[str, list[object]] = {"whole": [], "broken": []}
    for batch in range(1, 40):
        for name, clock in (("whole", whole), ("broken", broken)):
            clock.saw_batches(counter=batch // 3, per_step=3, fraction=batch / 40)
            seen[name].append((clock.steps, clock.due(cadence), clock.epoch))
        if batch == 20:
            saved = json.loads(json.dumps(broken.state()))
            broken = Clock(999, 7)
            broken.restore(saved)
    assert seen["whole"] == seen["broken"]
    with pytest.raises(KeyError):
        broken.restore({})
    assert broken.state() == whole.state()
