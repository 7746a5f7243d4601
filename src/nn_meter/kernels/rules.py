"""Fusion rules: nn-Meter's JSON, with additive extensions.

``BF_a_b`` with ``"obey": true`` says that the runtime fuses ``b`` into the kernel that ``a`` started;
``BF_a_b_c`` that the chain is one operator; ``MON`` what happens to a producer with several consumers (not
fused, unless obeyed: then into the first that a rule admits); ``null`` means undecided, which prediction takes
as *no*. ``FN``, ``RT``, ``RBC`` and ``CBC`` are read and have no effect, as in nn-Meter 2.0.

Extensions, at the top level: ``"runtime"`` names the runtime that obeys the rules (one of ``nn_meter.runtimes``),
``"block"`` the channels to a block of its layout; ``"evidence"`` inside a rule says
what the verdict rests on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import RuleError
from nn_meter.kernels.blocks import BLOCKS, Pattern, chain
from nn_meter.kernels.operators import BLOCK_NAMES, KNOWN_RULE_NAMES
from nn_meter.storage import read_json

_LOG = logging.getLogger(__name__)
_SPECIAL = frozenset({"MON", "FN", "RT", "RBC", "CBC"})
_EXTENSIONS = frozenset({"runtime", "block", "comment"})


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules ready for use.

    ``pairs`` maps ``(producer, consumer)`` to the verdict, ``None`` where undecided. ``blocks`` lists named
    patterns in the order in which they are applied. ``shares`` is ``MON`` obeyed. ``runtime`` is empty for
    nn-Meter's own semantics; ``block`` is the channels to a block where the runtime has a blocked layout, else 0.
    ``chains`` are the verdicts of rules over more than two operators.
    """

    pairs: Mapping[tuple[str, str], bool | None]
    blocks: tuple[tuple[str, tuple[Pattern, ...]], ...]
    shares: bool
    runtime: str
    block: int
    source: str
    warnings: tuple[str, ...]
    chains: Mapping[tuple[str, ...], bool | None]

    def fuses(self, producer: str, consumer: str) -> bool:
        """Whether a rule admits ``consumer`` into a kernel that starts with ``producer``."""
        return bool(self.pairs.get((producer, consumer)))

    def why_not(self, producer: str, consumer: str) -> str:
        """The reason in words, for a pair that does not fuse."""
        name = f"BF_{producer}_{consumer}"
        if (producer, consumer) not in self.pairs:
            return f"no rule {name}"
        return (
            f"rule {name} says no"
            if self.pairs[producer, consumer] is not None
            else f"rule {name} is undecided"
        )


def read_rules(rules: Mapping[str, Any], source: str = "fusion rules") -> RuleSet:
    """Rules from the parsed JSON.

    Raises:
        RuleError: not an object of rules, a rule without ``obey``, or an ``obey`` that is no truth value.
    """
    if not isinstance(rules, Mapping):
        raise RuleError(f"{source}: expected an object of rules, found {type(rules).__name__}")
    pairs: dict[tuple[str, str], bool | None] = {}
    blocks: list[tuple[str, tuple[Pattern, ...]]] = []
    chains: dict[tuple[str, ...], bool | None] = {}
    warnings: list[str] = []
    shares = False
    runtime = rules.get("runtime", "")
    if not isinstance(runtime, str):
        raise RuleError(f"{source}: 'runtime' must be a text, found {runtime!r}")
    block = rules.get("block", 16)
    if not isinstance(block, int) or block < 0:
        raise RuleError(f"{source}: 'block' must be a number of channels, found {block!r}")
    for name, rule in rules.items():
        if name in _EXTENSIONS:
            continue
        if not isinstance(rule, Mapping) or "obey" not in rule:
            raise RuleError(
                f'{source}: rule {name!r} needs the form {{"obey": true, false or null}}, found {rule!r:.80}'
            )
        obey = rule["obey"]
        if obey not in (None, True, False):
            raise RuleError(f"{source}: rule {name!r}: 'obey' must be true, false or null, found {obey!r}")
        if name == "MON":
            shares = bool(obey)
        if name in _SPECIAL:
            continue
        prefix, *operators = name.split("_")
        if prefix != "BF" or len(operators) < 2:
            warnings.append(f"{source}: rule {name!r} is of no known form and has no effect")
            continue
        unknown = [
            op for op in dict.fromkeys(operators) if op not in KNOWN_RULE_NAMES and not op[:1].isupper()
        ]
        if unknown:
            warnings.append(
                f"{source}: rule {name!r} names the unknown operator {', '.join(unknown)} and has no effect"
            )
        if len(operators) == 2:
            pairs[operators[0], operators[1]] = obey
            continue
        chains[tuple(operators)] = obey
        if obey:
            blocks.append(("-".join(operators), (chain(operators),)))
    blocks += [(block, BLOCKS[block]) for block in BLOCK_NAMES]
    for text in warnings:
        _LOG.info(text)
    return RuleSet(
        MappingProxyType(pairs),
        tuple(blocks),
        shares,
        runtime,
        block,
        source,
        tuple(warnings),
        MappingProxyType(chains),
    )


def load_rules(path: str | Path) -> RuleSet:
    """Rules from a JSON file.

    Raises:
        RuleError: the file cannot be read, is no JSON, or holds no rules.
    """
    return read_rules(read_json(path, "the fusion rules", RuleError), str(path))
