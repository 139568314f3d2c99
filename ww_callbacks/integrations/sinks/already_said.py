"""What a log has already told its reader: alerts, reminders and the verdict share sentences."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.?!]) (?=[A-Z`])")
_NUMBER = re.compile(r"(`[^`]*`)|\d[\d.,]*")


def sentences(text: str) -> list[str]:
    """The sentences of ``text``.

    >>> sentences("The loss is 2.6, above 2.1. Keep epoch 4.")
    ['The loss is 2.6, above 2.1.', 'Keep epoch 4.']
    """
    return _END.split(text) if text else []


class AlreadySaid:
    """Remembers sentences, and when they were said.

    Examples:
        >>> said = AlreadySaid()
        >>> said.news("The loss is 2.6. It rests on 5 values.", "epoch 5")
        'The loss is 2.6. It rests on 5 values.'
        >>> said.news("The loss is 2.9. It rests on 6 values.", "epoch 6")
        'The loss is 2.9.'
        >>> said.news("The loss is 2.9.", "epoch 7"), said.when("The loss is 2.9.")
        ('', 'epoch 6')
    """

    def __init__(self) -> None:
        self._when: dict[str, str] = {}

    def news(self, text: str, when: str, *, numbers: bool = True) -> str:
        """The sentences of ``text`` that were not said before; they count as said now.

        Args:
            text: one or more sentences; the first one states the finding, the others explain it.
            when: the moment, in words.
            numbers: whether the first sentence is new if only its numbers changed. The others never are.
        """
        new = []
        for place, sentence in enumerate(sentences(text)):
            keys = (sentence, _without_numbers(sentence))
            known = keys[0] in self._when if numbers and not place else keys[1] in self._when
            if not known:
                new.append(sentence)
                self._when |= dict.fromkeys(keys, when)
        return " ".join(new)

    def advice(self, text: str, when: str) -> str:
        """The sentences of a recommendation that were not said before; a number that changed makes one new."""
        new = [sentence for sentence in sentences(text) if sentence not in self._when]
        self._when |= dict.fromkeys(new, when)
        return " ".join(new)

    def explained(self, text: str) -> bool:
        """Whether the finding that ``text`` begins with was said before, perhaps with other numbers."""
        return bool(text) and _without_numbers(sentences(text)[0]) in self._when

    def when(self, text: str) -> str:
        """When the first sentence of ``text`` was said; empty if it was not."""
        return self._when.get(sentences(text)[0], "") if text else ""


def _without_numbers(sentence: str) -> str:
    """``sentence`` with every number outside the names of layers replaced."""
    return _NUMBER.sub(lambda match: match[1] or "0", sentence.removeprefix("Note: "))
