"""Words of the field in code and pages, in place of those that a reader would have to translate."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder, kinds in (("engine", ("py", "cc", "h")), ("docs", ("md",)))
    for kind in kinds
    for path in sorted((ROOT / folder).rglob(f"*.{kind}"))
] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
BETTER = {
    r"gone? on with(out)?|goes on with(out)?|taken up again": "resumed, continued",
    r"mishaps?": "failure",
    r"anew": "again, from scratch",
    r"(is|are|was|were|be|been) told": "is reported, is printed, is distinguished",
    r"(what )?(comes|came) back to": "the gradient with respect to",
    r"turned (kernel|window)": "flipped",
    r"asked for": "requested, used, if the config says so",
    r"nobody": "no one, or which caller",
    r"made fit": "resized, converted",
    r"(runs?|records?|files?) of before": "older",
    r"told (apart|of|that|what|how|about)|tells (of|that|what|whether|about)": "report, print, distinguish",
    r"(is|are|was|were|be|been|being) asked|shown to (the|a) (model|network)": "run, query, feed, request",
}
# Right English: of people, not of programs.
ALLOWED = (
    "nobody may",
    "nobody else",
    "from anybody",
    "Nobody",
    "that nobody",
    "nobody's",
    "where nobody",
    "if nobody",
)


def found_in(text: str, words: str) -> list[str]:
    lines = re.sub("|".join(ALLOWED), "", text).split("\n")
    return [line.strip() for line in lines if re.search(rf"\b({words})\b", line)]


@pytest.mark.parametrize("words", BETTER)
def test_odd_words_do_not_occur(words: str):
    found = {str(path.relative_to(ROOT)): found_in(path.read_text(encoding="utf-8"), words) for path in FILES}
    assert not {path: lines for path, lines in found.items() if lines}, f"better: {BETTER[words]}"


def test_an_odd_word_is_found():
    assert found_in("The run is gone on with.\nIt is resumed.", next(iter(BETTER))) == ["The run is gone on with."]
