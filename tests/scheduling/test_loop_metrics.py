import pickle

from ww_callbacks.scheduling.loop_metrics import LoopMetrics, mean_over_processes


def reported(loss, parts):
    metrics = LoopMetrics(train_loss=loss)
    metrics.epoch_losses = parts
    return pickle.loads(pickle.dumps(metrics))  # as one process sends it to another


def test_the_losses_of_an_epochs_parts_are_averaged_over_the_processes():
    both = mean_over_processes([reported(1.0, (1.0, 3.0)), reported(2.0, (3.0, 5.0))])
    assert both == {"train_loss": 1.5} and both.epoch_losses == (2.0, 4.0)


def test_they_are_left_out_where_a_process_does_not_know_them():
    assert mean_over_processes([reported(1.0, (1.0, 3.0)), reported(2.0, ())]).epoch_losses == ()
    assert mean_over_processes([{"train_loss": 1.0}]).epoch_losses == ()
