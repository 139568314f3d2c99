"""Provides the value for ``metric_for_best_model``, under the name and in the direction that the Trainer reads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import transformers
from transformers.trainer_utils import default_compute_objective

PREFIX = "spectral/"

LOWER_IS_BETTER = ("overtraining/keep", "overtraining/score", "alerts", "overhead")
"""Values whose lowest is the best by definition; for all others the user chooses the direction."""


@dataclass(frozen=True)
class BestModelMetric:
    """The published value by which the Trainer chooses the best model and stops early.

    Attributes:
        key: the key that the Trainer reads in the metrics of an evaluation.
        name: the value's tag.
        sign: -1 if the Trainer takes the highest value although the lowest is the best by definition, otherwise 1.
    """

    key: str
    name: str
    sign: int

    @classmethod
    def asked(cls, args: transformers.TrainingArguments, known: Collection[str]) -> BestModelMetric | None:
        """The published value that ``metric_for_best_model`` names, or None.

        Args:
            args: the Trainer's arguments.
            known: the tags of the published values.

        Raises:
            ValueError: if the name is similar to a published one.
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
        """Raise for a search whose objective would include our value.

        Raises:
            ValueError: if ``hyperparameter_search`` runs with its default objective.
        """
        searching = getattr(trainer, "hp_search_backend", None) is not None
        if searching and getattr(trainer, "compute_objective", None) is default_compute_objective:
            raise ValueError(
                "Give `hyperparameter_search` a `compute_objective`: its default sums all metrics of the evaluation, "
                f"and {self.name} would be one of them, since `metric_for_best_model` names it."
            )

    def metrics(self, values: Mapping[str, float], prefix: str) -> dict[str, float]:
        """The value added to an evaluation with this ``metric_key_prefix``; NaN, which is never best, without a
        value.
        """
        key = self.key if prefix.startswith("eval") else f"{prefix}_{self.name}"
        return {key: self.sign * values.get(self.name, math.nan)}
