"""Has the tree compile what was edited when opero is imported from it.

`_backend.build_editable` puts a copy beside an editable install, as `_opero_editable.py`; nothing
in the tree imports it. It runs whenever Python starts: it imports nothing itself, and does nothing
for any import but opero's.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Finder:
    """Has the tree compile what was edited, before the first import of opero from it."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find opero where Python would, and see to its extension modules first."""
        if name != "opero":
            return None
        import os
        from importlib.machinery import PathFinder, SourceFileLoader

        spec = PathFinder.find_spec(name, path, target)
        home = os.path.join(self.root, "src", "opero", "__init__.py")
        if spec is None or spec.origin is None or os.path.realpath(spec.origin) != home:
            return None  # this opero lives elsewhere
        backend = os.path.join(self.root, "build_backend")
        if not os.path.exists(os.path.join(backend, "_stamp.py")):
            raise ImportError(
                f"{self.root} is older than its editable install: run "
                f"`{sys.executable} -m pip install -e {self.root}`",
                name=name,
            )
        stamp = type(sys)("_opero_editable_stamp")
        SourceFileLoader(stamp.__name__, os.path.join(backend, "_stamp.py")).exec_module(stamp)
        if not stamp.is_current(self.root):
            self._catch_up()
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # what is loaded cannot be replaced: once is enough
        return spec

    def _catch_up(self) -> None:
        """Have the build backend of the tree see to it, and leave no module of it behind."""
        others = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_backend(name)}
        sys.path.insert(0, self.root)
        try:
            from build_backend import _editable

            _editable.catch_up(self.root)
        finally:
            sys.path.remove(self.root)
            for name in list(sys.modules):
                if _is_backend(name):
                    del sys.modules[name]
            sys.modules.update(others)


def _is_backend(name: str) -> bool:
    """Tell whether this is the name of a build backend's module, be it opero's or another's."""
    return name.partition(".")[0] == "build_backend"


def watch(root: str) -> None:
    """See to the tree at `root` when opero is imported; called from `_opero_editable.pth`."""
    sys.meta_path.insert(0, _Finder(root))
