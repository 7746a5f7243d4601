"""Latencies of a search space whose networks are rows of blocks: a table instead of a prediction for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn_meter.errors import InputError


class Answering(Protocol):
    """What predicts: ``nn_meter.Predictor`` is one."""

    def predict_many(self, models: Any, /, **options: Any) -> Sequence[Any]:
        """Milliseconds of each model, or an error in its place."""


@dataclass(frozen=True, eq=False)
class BlockTable:
    """The latency of a candidate is that of a reference plus, for each place, what its choice there changes.

    A candidate is a row of whole numbers, one for each place: which of the place's choices it takes. What two places
    cost together, beyond the sum of both, is not in the table: hold some candidates against ``predict_many`` to know
    how much that is in a space.

    Attributes:
        reference_ms: Of the reference.
        changes_ms: For each place float64 (choices,), relative to the reference.
    """

    reference_ms: float
    changes_ms: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(
        cls,
        predictor: Answering,
        build: Callable[[tuple[int, ...]], Any],
        choices: Sequence[int],
        reference: Sequence[int],
        **options: Any,
    ) -> Self:
        """The table of a space: as many predictions as there are choices at all places together.

        Args:
            predictor: What predicts the candidates.
            build: Makes a model of a candidate.
            choices: How many there are at each place.
            reference: The candidate that others are compared with; take a typical one.
            options: For ``predict_many``, such as ``workers``.

        Raises:
            InputError: the reference is no candidate of the space.
            NnMeterError: a candidate cannot be predicted; the error is its own.
        """
        base = tuple(reference)
        if len(base) != len(choices) or not all(0 <= c < n for c, n in zip(base, choices, strict=False)):
            raise InputError(f"the reference {base} is no candidate of a space with the choices {tuple(choices)}")
        asked = [(place, choice) for place, count in enumerate(choices) for choice in range(count)]
        models = (build((*base[:place], choice, *base[place + 1 :])) for place, choice in asked)
        found = predictor.predict_many(models, **options)
        for each in found:
            if isinstance(each, Exception):
                raise each
        latency_ms = dict(zip(asked, found, strict=True))
        reference_ms = float(latency_ms[0, base[0]]) if base else 0.0
        return cls(
            reference_ms,
            tuple(
                np.array([latency_ms[place, choice] - reference_ms for choice in range(count)], np.float64)
                for place, count in enumerate(choices)
            ),
        )

    def latencies_ms(self, candidates: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds, float64 (n,), of ``candidates``, whole numbers of shape (n, places).

        Raises:
            InputError: another shape, or a choice that there is not.
        """
        try:
            rows = np.asarray(candidates)
        except ValueError as error:
            raise InputError(f"candidates are rows of {len(self.changes_ms)} whole numbers each: {error}") from error
        if rows.ndim != 2 or rows.shape[1] != len(self.changes_ms) or rows.dtype.kind not in "iu":
            raise InputError(
                f"candidates are whole numbers of shape (n, {len(self.changes_ms)}), not {rows.dtype} of {rows.shape}"
            )
        counts = np.array([len(each) for each in self.changes_ms])
        if rows.size and (rows.min() < 0 or (rows.max(axis=0) >= counts).any()):
            raise InputError(f"a choice is none of the space's; places have {counts.tolist()} choices")
        total = np.full(len(rows), self.reference_ms)
        for place, changes_ms in enumerate(self.changes_ms):
            total += changes_ms.take(rows[:, place])
        return total
