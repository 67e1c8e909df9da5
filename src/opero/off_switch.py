"""Whether opero is switched off, so that decorated functions behave as if undecorated.

`opero.testing` sets the switch. Maps and retried blocks read it. Calls do not, because that would
slow each call down: they are swapped for others meanwhile (`bypass` in `core.call`).
"""

from __future__ import annotations

is_off: bool = False
"""Whether opero is off."""


def switch(off: bool) -> None:
    """Switch opero off or on, for `opero.testing`."""
    global is_off  # noqa: PLW0603 - the switch is for the whole process
    is_off = off
