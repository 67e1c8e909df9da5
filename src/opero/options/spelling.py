"""Which word was meant by one that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, words: Iterable[str], least: float = 0.6) -> str | None:
    """Return the word that is spelt most like `word`, or None if none is.

    Args:
        word: What was written.
        words: What may have been meant.
        least: How much alike they must be, from 0 to 1.
    """
    found = get_close_matches(word.lower(), list(words), n=1, cutoff=least)
    return found[0] if found else None
