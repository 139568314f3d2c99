from pathlib import Path

from ww_callbacks.spectral.measuring.registry import all_quantities

PAGE = Path(__file__).parents[3] / "docs" / "quantities.md"


def test_the_page_names_every_quantity():
    page = PAGE.read_text()
    missing = [
        q.name
        for q in all_quantities()
        # `rand_x` is described with `x`, and the `…_bulk` half of a pair with its `…_tail` half.
        if not any(
            f"`{name}`" in page for name in (q.name, q.name.removeprefix("rand_"), q.name.replace("_bulk", "_tail"))
        )
    ]
    assert missing == []


def test_the_page_marks_the_defaults_in_bold():
    page = PAGE.read_text()
    for q in all_quantities():
        if f"**`{q.name}`**" in page:
            assert q.default, q.name
        assert not q.default or f"**`{q.name}`**" in page, q.name
