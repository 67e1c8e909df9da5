"""Whether opero is switched off, so that decorated functions do what they would do undecorated.

`opero.testing` switches. A call does not look here: it is another one meanwhile (`bypass` in
`core.call`). What is not begun often does: a map, or a block that is retried.
"""

from __future__ import annotations

is_off: bool = False
"""Whether it is."""


def switch(off: bool) -> None:
    """Switch it off, or on; `opero.testing` does so."""
    global is_off  # noqa: PLW0603 - there is one process
    is_off = off
