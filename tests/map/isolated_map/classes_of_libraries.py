"""A program with models of pydantic, attrs and msgspec: a line for each check that fails."""

import attrs
import msgspec
import pydantic

from opero import opmap


class Model(pydantic.BaseModel):
    """Refers to itself, and checks what it is given."""

    size: int
    parts: list["Model"] = []

    @pydantic.field_validator("size")
    @classmethod
    def positive(cls, size):
        if size < 0:
            raise ValueError("negative")
        return size

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return 2 * self.size


class Special(Model):
    name: str = "special"


@attrs.define
class Row:
    number: int
    more: list = attrs.field(factory=list)

    def kind(self):
        return __class__


@attrs.frozen
class Fixed(Row):
    unit: str = "m"


class Point(msgspec.Struct, frozen=True, order=True, tag="point"):
    left: int
    right: int = 2

    def sum(self):
        return self.left + self.right


class Track(msgspec.Struct, rename="camel", kw_only=True):
    first_point: Point
    others: list[Point] = []
    names: dict[str, int] = msgspec.field(default_factory=dict)


def refused():
    try:
        Model(size=-1)
    except pydantic.ValidationError as error:
        return error.error_count()
    return None


CHECKS = {
    "a model": (lambda: Model(size=1, parts=[{"size": 2}]), Model(size=1, parts=[Model(size=2)])),
    "what it refuses": (refused, 1),
    "what it computes": (lambda: Special(size=2).model_dump()["twice"], 4),
    "inherited": (lambda: Special(size=2), Special(size=2)),
    "attrs": (lambda: Row(1, [2]), Row(1, [2])),
    "attrs, frozen": (lambda: Fixed(1), Fixed(1)),
    "the class in a method": (lambda: Row(1).kind(), Row),
    "msgspec": (lambda: Point(1), Point(1)),
    "its methods": (lambda: Point(1).sum(), 3),
    "its order": (lambda: Point(1) < Point(2), True),
    "its fields": (lambda: Track(first_point=Point(1)), Track(first_point=Point(1))),
    "its JSON": (
        lambda: msgspec.json.encode(Track(first_point=Point(1))),
        msgspec.json.encode(Track(first_point=Point(1))),
    ),
    "from JSON": (
        lambda: msgspec.json.decode(b'{"firstPoint": {"type": "point", "left": 5}}', type=Track),
        Track(first_point=Point(5)),
    ),
}


@opmap(workers=1, retries=1, progress=False)
def run(name):
    return CHECKS[name][0]()


@opmap(workers=1, retries=1, progress=False)
def same(item):
    return item


for name, result in zip(CHECKS, run(CHECKS), strict=True):
    expected = CHECKS[name][1]
    if result != expected or type(result) is not type(expected):
        print(name, repr(result))
items = [Model(size=1), Special(size=2), Row(1), Fixed(2), Point(3), Track(first_point=Point(1))]
if same(items) != items:
    print("items", same(items))
print("that is all")
