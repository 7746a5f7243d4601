"""Architectures of a library by name, without weights: ``torchvision:resnet18``, ``timm:...``, ``hf:...``.

A zoo is a library with a list of names and a way to build one. All are read alike: the module is built on the
device ``meta`` and goes through the PyTorch front end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nn_meter.errors import InputError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends._source import DEFAULT_SEQ_LEN
from nn_meter.ir import Graph


@dataclass(frozen=True, slots=True)
class Built:
    """An architecture: a ``torch.nn.Module`` on ``meta``, and what it takes for a batch and a sequence length. Where it
    has a cache, ``behind`` puts so many tokens into it, and says what the module takes then. Its texts are of at most
    so many ``positions``."""

    title: str
    module: Any
    inputs: Callable[[int, int], pytorch.InputSpec]
    behind: Callable[[int, int, int], pytorch.InputSpec] | None = None
    positions: int | None = None


@dataclass(frozen=True, slots=True)
class Zoo:
    """The front end of one library.

    ``build`` takes a name without its prefix, or what ``takes`` says yes to; ``texts`` says whether some of its
    models read texts.
    """

    name: str
    names: Callable[[], Sequence[str]]
    build: Callable[[Any], Built]
    takes: Callable[[Any], bool] = lambda source: False
    texts: bool = False
    suffixes: tuple[str, ...] = ()

    def sniff(self, source: Any) -> bool:
        """Whether ``source`` is a name with this zoo's prefix, or something else that it takes."""
        return (isinstance(source, str) and source.startswith(f"{self.name}:")) or self.takes(source)

    def read(
        self,
        source: Any,
        *,
        input_shapes: Any = None,
        name: str | None = None,
        batch_size: int = 1,
        seq_len: int | None = None,
        past: int | None = None,
    ) -> Graph:
        """The graph of the architecture ``source``.

        Args:
            source: One of ``names()``, with or without the prefix, or what else the zoo takes.
            input_shapes: As of the PyTorch front end; what the model takes where left out.
            name: Name of the graph; the architecture where left out.
            batch_size: Images, texts or recordings at once.
            seq_len: Tokens of a text; with a past 1, else 128 where left out.
            past: Tokens before them whose keys and values are in the cache of a language model; an encoder before it
                has run.

        Raises:
            ModelError: no such architecture (near names are listed), or one whose inputs have to be given.
            InputError: a length of text, or of its past, for what has none.
            MissingDependencyError: the library is not installed.
        """
        for option, value, least in (("seq_len", seq_len, 1), ("past", past, 0)):
            if value is not None and not self.texts:
                raise InputError(f"{self.name} models take no {option}; state the input's shape instead")
            if value is not None and value < least:
                raise InputError(f"{option} is {value}; give {least} or more")
        built = self.build(source.removeprefix(f"{self.name}:") if isinstance(source, str) else source)
        if past:
            if built.behind is None or input_shapes is not None:
                raise InputError(
                    f"{built.title} takes no past{' beside input_shapes' if built.behind else ''}; it is for language "
                    "models that decode with a cache, of so many tokens (seq_len) in a batch (batch_size)"
                )
            input_shapes = built.behind(batch_size, 1 if seq_len is None else seq_len, past)
        notes: tuple[str, ...] = ()
        if input_shapes is None:
            asked = DEFAULT_SEQ_LEN if seq_len is None else seq_len
            length = min(asked, built.positions or asked)
            input_shapes = built.inputs(batch_size, length)
            if length < asked:
                notes = (f"the text is {length} tokens long, not {asked}: {built.title} has no more positions",)
        graph = pytorch.read(built.module, input_shapes=input_shapes, name=name or built.title)
        return replace(graph, notes=(*graph.notes, *notes))


def images(*shapes: Sequence[int]) -> Callable[[int, int], pytorch.InputSpec]:
    """Inputs of these shapes of one sample each."""
    return lambda batch_size, _: tuple((batch_size, *shape) for shape in shapes)
