"""A program whose functions fail and warn, some in a file and some in a cell of a notebook."""

import linecache
import traceback
import warnings

from opero import opmap

CELL = """\
class Cell:
    def divide(self, value):
        return 1 // value  # a line of the cell

def in_a_cell(value):
    warnings.warn("odd in a cell")  # this line of the cell
    return Cell().divide(value)
"""


class File:
    """Fails in a method."""

    def divide(self, value):
        return 1 // value  # a line of the file


def in_a_file(value):
    warnings.warn("odd in a file", stacklevel=1)  # this line of the file
    return File().divide(value)


def nowhere(value):
    return eval("1 // value")


linecache.cache["<cell 1>"] = len(CELL), None, CELL.splitlines(keepends=True), "<cell 1>"
exec(compile(CELL, "<cell 1>", "exec"))
exec(compile("def typed(value):\n    return 1 // value", "<typed>", "exec"))
for function in (in_a_file, in_a_cell, typed, nowhere):  # noqa: F821 - those above have made them
    (error,) = opmap(workers=1, retries=1, progress=False)(function)([0])
    print("".join(traceback.format_exception(error)))
