"""Small real trainings of many kinds, on which the judgement of overtraining is fitted and tested."""
