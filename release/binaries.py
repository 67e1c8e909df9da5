"""What the library of compiled modules is linked with and shows, read from the file.

Only ELF, the format of Linux, is judged in full; in other formats paths are looked for, no more.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from typing import Any

from elftools.elf.elffile import ELFFile

LIBRARIES = re.compile(
    r"libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libc\.musl-\w+\.so\.1|ld-linux[\w.-]+"
)
"""What the library may be linked with: the C library, and Python's symbols unlinked."""

PYTHON = re.compile(r"_?Py\w+")
PRIVATE = re.compile(r"_Py\w+")
"""Python's own names, and those of them that it does not promise to keep."""

COMPILERS = frozenset(
    {"__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"}
)
"""What every shared library asks for, whether there is such a thing or not."""

PATHS = re.compile(
    rb"(?<![\w./-])/(?:build|builds|home|host|opt|private|project|root|tmp|Users|var)/[\w./+-]+"
    rb"|[A-Z]:\\[\w\\.-]{4,}"
)
"""What looks like a path of the machine that built the file."""

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


def private_names(content: bytes) -> set[str]:
    """Return the names a library takes from Python that are not part of its public API."""
    if not is_elf(content):
        return set()
    wanted, _ = _symbols(ELFFile(io.BytesIO(content)))
    return {name for name in wanted if PRIVATE.fullmatch(name)}


def is_elf(content: bytes) -> bool:
    """Return whether this is a file in the format of Linux."""
    return content.startswith(b"\x7fELF")


def faults(modules: Collection[str], content: bytes, platform: str) -> list[str]:
    """Say what is wrong with a library; an empty list if nothing is.

    Args:
        modules: The names of the modules in it, without the package.
        content: The file.
        platform: The platform tag of its wheel.
    """
    found = [f"holds the path {path.decode()}" for path in sorted(set(PATHS.findall(content)))]
    if is_elf(content):
        elf = ELFFile(io.BytesIO(content))
        found += _linking_faults(elf, platform)
        inits = {f"PyInit_{module}" for module in modules}
        found += _symbol_faults(elf, inits, musl="musl" in platform)
    elif "linux" in platform:
        found.append("is no ELF file")
    return found


def _linking_faults(elf: Any, platform: str) -> list[str]:
    """Look at the machine, the libraries and where they are sought, and what debuggers read."""
    found = []
    machine = MACHINES.get(elf["e_machine"], elf["e_machine"])
    if not platform.endswith(machine):
        found.append(f"is for {machine}")
    for tag in elf.get_section_by_name(".dynamic").iter_tags():
        if tag.entry.d_tag == "DT_NEEDED" and not LIBRARIES.fullmatch(tag.needed):
            found.append(f"needs {tag.needed}")
        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            found.append(f"looks for libraries in {getattr(tag, 'runpath', None) or tag.rpath}")
    names = [section.name for section in elf.iter_sections()]
    found += [f"has {name}" for name in names if name.startswith((".debug", ".symtab"))]
    return found


def _symbol_faults(elf: Any, inits: set[str], *, musl: bool) -> list[str]:
    """Look at what the file shows to others, and what it wants from them."""
    _, shown = _symbols(elf)
    found = [f"shows {name}" for name in sorted(shown - inits - {"_init", "_fini"})]
    found += [f"does not show {name}" for name in sorted(inits - shown)]
    versions = elf.get_section_by_name(".gnu.version")
    table = elf.get_section_by_name(".dynsym")
    for index, symbol in enumerate(table.iter_symbols()):
        name = symbol.name
        if (
            symbol["st_shndx"] != "SHN_UNDEF"
            or not name
            or name in COMPILERS
            or PYTHON.fullmatch(name)
        ):
            continue
        versioned = versions is not None and versions.get_symbol(index)["ndx"] not in (
            "VER_NDX_LOCAL",
            "VER_NDX_GLOBAL",
        )
        if not versioned and not musl:
            found.append(f"wants {name}, which belongs to no version of the C library")
    return found


def _symbols(elf: Any) -> tuple[set[str], set[str]]:
    """Return the names that a file wants from others, and those that it shows to them."""
    wanted: set[str] = set()
    shown: set[str] = set()
    for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
        if symbol.name and symbol["st_info"]["bind"] != "STB_LOCAL":
            (wanted if symbol["st_shndx"] == "SHN_UNDEF" else shown).add(symbol.name)
    return wanted, shown
