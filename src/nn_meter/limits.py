"""How much of anything is taken before it is refused: generous for what people have, a bound for what they are sent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nn_meter.errors import NnMeterError


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` of ``what``."""

    most: int
    what: str

    def check(self, found: int, where: str, error: type[NnMeterError]) -> None:
        """Raise ``error`` where ``found`` is more; the message says of what and how much would do."""
        if found > self.most:
            raise error(f"{where}: {found:,} {self.what}; at most {self.most:,} are read")


TEXT_BYTES = Limit(64 << 20, "bytes of JSON")
JSON_VALUES = Limit(6_000_000, "values of JSON, texts' commas and brackets counted in")
YAML_BYTES = Limit(1 << 20, "bytes of YAML")
YAML_NODES = Limit(20_000, "values of YAML, aliases followed")
YAML_NESTING = Limit(64, "values of YAML within each other")
YAML_NUMBER = Limit(4_300, "letters of a number of YAML")
FILE_BYTES = Limit(256 << 20, "bytes in one file")
ARCHIVE_MEMBERS = Limit(10_000, "files in one archive")
ARCHIVE_BYTES = Limit(512 << 20, "bytes in one archive")
UNPACKED_BYTES = Limit(1 << 30, "bytes that one archive unpacks to")
BUNDLE_KINDS = Limit(1_000, "kinds in one bundle")
KINDS_BYTES = Limit(256 << 20, "bytes in the kinds of one bundle, unpacked")
PRINTED_BYTES = Limit(64 << 20, "bytes printed by a program")
DOWNLOAD_BYTES = Limit(512 << 20, "bytes to fetch")
TABLE_ROWS = Limit(1_000_000, "measurements in one table")

NODES = Limit(1_000_000, "nodes, those of functions, branches and loops written out")
BODIES = Limit(1_250_000, "functions, branches and steps of loops written out")
TENSORS = Limit(4_000_000, "tensors, those of functions, branches and loops written out")
LETTERS = Limit(1 << 28, "letters of names, those of functions, branches and loops written out")
ELEMENTS = Limit(20_000_000, "elements in sequences, those of every step of a loop")
NESTING = Limit(64, "functions and branches within each other")
RANK = Limit(64, "dimensions of one tensor")
DIMENSION = Limit(1 << 40, "elements along one dimension")

WRITTEN_NODES, NODE_BYTES = 100_000, 10
"""A file becomes at most so many nodes where its functions, branches and loops are written out, or one for each so many
of its bytes, which is less than a node takes in a file; of bodies and tensors to the share that goes with it."""


def written_out(size: int) -> tuple[Limit, Limit, Limit]:
    """The nodes, bodies and tensors that a file of ``size`` bytes may become."""
    nodes = min(NODES.most, max(WRITTEN_NODES, size // NODE_BYTES))
    bodies, tensors = (replace(each, most=each.most * nodes // NODES.most) for each in (BODIES, TENSORS))
    return replace(NODES, most=nodes), bodies, tensors


DOWNLOAD_S = 7200.0
DOWNLOAD_START_S, DOWNLOAD_BYTES_PER_S = 60.0, 4096
"""A download may last ``DOWNLOAD_S`` in all, and, as an upload, ``DOWNLOAD_START_S`` more than its bytes would at the
slowest rate."""

UNPACKED_RATIO, UNPACKED_SMALL_BYTES = 200, 16 << 20
"""An archive may unpack to so many times its size, or to what is small anyway."""

SHOWN_LETTERS = 200
"""Of a longer name the beginning is shown."""
