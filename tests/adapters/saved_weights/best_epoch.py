"""A diagnosis whose best step is given, whatever the run."""

from ww_callbacks.diagnosis.diagnosis import Diagnosis


def best_at(monkeypatch, step):
    """From ``step`` on, every diagnosis has it as its best and only step to keep."""
    judge = Diagnosis.judge

    def judged(self, observation):
        found = judge(self, observation)
        if observation.step >= step:
            self.best_step, self.steps_to_keep = step, frozenset({step})
        return found

    monkeypatch.setattr(Diagnosis, "judge", judged)
