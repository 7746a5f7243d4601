"""nn-Meter's columns, against figures worked out by hand from its published formulas."""

from __future__ import annotations

import pytest

from nn_meter.predictors.nnmeter_columns import ENCODERS, SCHEMAS, kernel_name

CONV = {
    "attr": {"kernel_shape": [3, 3], "strides": [2, 2], "group": 1},
    "input_shape": [[1, 56, 56, 64]],
    "output_shape": [[1, 28, 28, 128]],
}
PARAMS = 128 * (3 * 3 * 64 + 1)


@pytest.mark.parametrize(
    ("ops", "name"),
    [
        (("conv", "bn", "relu"), "conv-bn-relu"),
        (("conv-bn-relu",), "conv-bn-relu"),
        (("convtrans",), "conv-bn-relu"),
        (("concat", "conv"), "conv-bn-relu"),
        (("conv", "dwconv"), "dwconv-bn-relu"),
        (("gap",), "global-avgpool"),
        (("bn", "relu"), "bnrelu"),
        (("fc", "relu"), "fc"),
        (("reshape", "fc"), None),
        (("Softmax",), None),
    ],
)
def test_which_predictor_answers_for_a_kernel(ops: tuple[str, ...], name: str | None) -> None:
    assert kernel_name(ops) == name


@pytest.mark.parametrize(
    ("name", "facts", "row"),
    [
        ("conv-bn-relu", CONV, (56, 64, 128, 3, 2, 2 * 28 * 28 * PARAMS / 2e6, PARAMS / 1e6)),
        (
            "fc",
            {"attr": {}, "input_shape": [[1, 512]], "output_shape": [[1, 10]]},
            (512, 10, 10250 / 2e6, 10250 / 1e6),
        ),
        (
            "global-avgpool",
            {"attr": {}, "input_shape": [[1, 7, 7, 32]], "output_shape": [[1, 1, 1, 32]]},
            (1, 32),
        ),
        (
            "add",
            {"attr": {}, "input_shape": [[], [1, 7, 7, 32]], "output_shape": [[1, 7, 7, 32]]},
            (7, 32, 32),
        ),
        (
            "concat",
            {"attr": {}, "input_shape": [[1, 7, 7, 3], [1, 7, 7, 5]], "output_shape": []},
            (7, 2, 3, 5, 0, 0),
        ),
        ("concat", {"attr": {}, "input_shape": [[1, 7, 7, 1]] * 5, "output_shape": []}, (7, 6, 1, 1, 1, 1)),
    ],
)
def test_rows(name: str, facts: dict[str, object], row: tuple[float, ...]) -> None:
    assert ENCODERS["nn-meter-1"][name](facts) == row


def test_builders_concat_has_no_count_of_branches() -> None:
    facts = {"attr": {}, "input_shape": [[1, 7, 7, 3], [1, 7, 7, 5]], "output_shape": []}
    assert ENCODERS["nn-meter-builder-1"]["concat"](facts) == (7, 3, 5, 0, 0)


def test_every_schema_encodes_every_kernel_that_it_names() -> None:
    assert {schema: set(kinds) for schema, kinds in SCHEMAS.items()} == {
        s: set(e) for s, e in ENCODERS.items()
    }
