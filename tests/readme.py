"""Reads README.md: the recipes that it gives for each kind of cluster, for tests to run them."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def recipe(cluster: str, **values: str) -> list[str]:
    """The commands that README.md gives for a kind of cluster, word for word, one string each.

    They are the first indented block after the paragraph that begins with the kind in bold. Lines
    that end with a backslash are joined with the next.

    Args:
        cluster: `Ray`, `Slurm` or `Kubernetes`.
        values: what to write for the words in capitals that readers fill in, by word.

    Raises:
        ValueError: there is no such recipe, or it has no such word.
    """
    section = README.read_text().partition("\n## On a cluster\n")[2].partition("\n## ")[0]
    found = re.search(
        rf"^\*\*{re.escape(cluster)}\*\*(?:.+\n)+\n(?P<block>(?: {{4}}.*\n)+)",
        section,
        re.MULTILINE,
    )
    if not found:
        raise ValueError(f"README.md has no recipe for {cluster}")
    text = re.sub(r"^ {4}", "", found["block"], flags=re.MULTILINE)
    for word, value in values.items():
        text, times = re.subn(rf"\b{word}\b", lambda _, value=value: value, text)
        if not times:
            raise ValueError(f"the recipe for {cluster} has no {word}")
    return re.sub(r" *\\\n *", " ", text).splitlines()
