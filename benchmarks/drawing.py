"""How pictures are opened and saved: the same figures give the same file, on any day."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any


def pyplot(size: int) -> Any:
    """Prepares matplotlib.

    Args:
        size: Of the letters, in points.

    Returns:
        Its module `pyplot`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    matplotlib = import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "opero", "svg.fonttype": "none", "font.size": size})
    return import_module("matplotlib.pyplot")


def save(figure: Any, caption: str, size: int, out: Path) -> None:
    """Saves a picture, and lets go of it.

    Args:
        figure: The picture.
        caption: What stands below it.
        size: Of the caption's letters, in points.
        out: The file; its suffix says which kind.
    """
    figure.supxlabel(caption, fontsize=size, color="#555555")
    figure.patch.set_facecolor("white")
    # without these the file would tell of the day on which it was drawn
    metadata = {"Date": None, "Creator": None} if out.suffix == ".svg" else None
    figure.savefig(out, metadata=metadata)
    import_module("matplotlib.pyplot").close(figure)
