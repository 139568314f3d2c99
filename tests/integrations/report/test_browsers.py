"""The page uses only what browsers have had since the date that the docs promise."""

from __future__ import annotations

import re

import pytest

from ww_callbacks.integrations.report.page import MODULES, STATIC

NEWER = [
    *("toSorted(", "toReversed(", "toSpliced("),  # July 2023
    ":has(",  # December 2023
    *(".intersection(", ".union(", ".difference(", ".isSubsetOf(", ".symmetricDifference("),  # 2024, as all in the next
    *("Object.groupBy", "Map.groupBy", "Promise.withResolvers", "Array.fromAsync", "/v;"),
    *("light-dark(", "@starting-style", "text-wrap", "field-sizing"),
    *("Iterator.from", "Promise.try", "RegExp.escape", ".toHex(", "fromBase64"),  # 2025
    *("popover", "anchor-name", "startViewTransition"),
]
"""What came after May 2023 (Chrome 111, Firefox 113, Safari 16.4), by when the last of the three browsers had it."""

TEXTS = {
    path.relative_to(STATIC).as_posix(): path.read_text("utf-8")
    for path in sorted(STATIC.rglob("*.[jc]s*"))
    if path.suffix in (".js", ".css")
}


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_newer_than_the_browsers_that_are_promised(name):
    found = {call for call in NEWER if call in TEXTS[name]}
    assert not found, f"{name} uses {found}"


def test_styles_are_not_nested():
    open_rules: list[str] = []
    for before, brace in re.findall(r"([^{}]*)([{}])", TEXTS["style.css"]):
        if brace == "}":
            open_rules.pop()
            continue
        assert all(rule.startswith("@media") for rule in open_rules), f"`{before.strip()}` stands in `{open_rules[-1]}`"
        open_rules.append(before.strip())


def test_every_module_is_served_and_names_are_its_own():
    modules = {name.removesuffix(".js") for name in TEXTS if name.endswith(".js")} - {"report"}
    assert modules == set(MODULES)
    # The report joins the modules to one, so that no two may declare the same name.
    declared = [
        found
        for text in TEXTS.values()
        for found in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    ]
    assert len(declared) == len(set(declared)), sorted(name for name in declared if declared.count(name) > 1)
