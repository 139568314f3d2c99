"""What ``metric_for_best_model`` asks of us: one value, under the name and in the direction that the Trainer reads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import transformers
from transformers.trainer_utils import default_compute_objective

PREFIX = "spectral/"

LOWER_IS_BETTER = ("overtraining/keep", "overtraining/score", "alerts", "overhead")
"""Values whose best is the lowest by their definition; of all others the user says which end is the best."""


@dataclass(frozen=True)
class BestModelMetric:
    """One of our values, by which the Trainer chooses the best model and stops early.

    Attributes:
        key: the key that the Trainer looks for in the metrics of an evaluation.
        name: the value's tag.
        sign: -1 where the Trainer takes the highest value and the lowest is the best by definition, else 1.
    """

    key: str
    name: str
    sign: int

    @classmethod
    def asked(cls, args: transformers.TrainingArguments, known: Collection[str]) -> BestModelMetric | None:
        """The one that ``metric_for_best_model`` names; None where it names none of ours.

        Args:
            args: of the Trainer.
            known: the tags of our values.

        Raises:
            ValueError: for a name that is nearly one of ours.
        """
        asked = args.metric_for_best_model
        if asked is None or args.eval_strategy == "no":
            return None
        head, found, rest = asked.partition(PREFIX)
        name = found + rest if found else asked.removeprefix("eval_")
        if name not in known:
            if not found and not get_close_matches(name, known, n=1, cutoff=0.85):
                return None
            near = ", ".join(get_close_matches(name, known, n=3)) or "spectral/effective_rank/median"
            raise ValueError(
                f"`metric_for_best_model` is {asked!r}, which is not among the values published. Near it: {near}."
            )
        lower = name.removeprefix(PREFIX) in LOWER_IS_BETTER
        key = asked if head.startswith("eval_") else f"eval_{asked}"
        return cls(key, name, -1 if lower and args.greater_is_better else 1)

    def check_search(self, trainer: transformers.Trainer | None) -> None:
        """Refuse a search whose objective would be our value beside, or instead of, the user's loss.

        Raises:
            ValueError: where ``hyperparameter_search`` runs with its default objective.
        """
        searching = getattr(trainer, "hp_search_backend", None) is not None
        if searching and getattr(trainer, "compute_objective", None) is default_compute_objective:
            raise ValueError(
                "Give `hyperparameter_search` a `compute_objective`: its default sums all metrics of the evaluation, "
                f"and {self.name} would be one of them, since `metric_for_best_model` names it."
            )

    def metrics(self, values: Mapping[str, float], prefix: str) -> dict[str, float]:
        """What an evaluation with this ``metric_key_prefix`` is to get; NaN, which is never best, without a value."""
        key = self.key if prefix.startswith("eval") else f"{prefix}_{self.name}"
        return {key: self.sign * values.get(self.name, math.nan)}
