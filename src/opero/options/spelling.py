"""The known word nearest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, words: Iterable[str], least: float = 0.6) -> str | None:
    """Return the known word whose spelling is nearest to `word`; None if none is near enough.

    Args:
        word: What was written.
        words: The known words.
        least: How similar they must be, from 0 to 1.
    """
    found = get_close_matches(word.lower(), list(words), n=1, cutoff=least)
    return found[0] if found else None
