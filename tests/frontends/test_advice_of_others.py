"""What the other front ends' errors advise works as it stands there: at the command line, and in Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_tensorflow import node, placeholder
from test_tflite import File

from nn_meter import frontends
from nn_meter.cli.main import main
from nn_meter.errors import NnMeterError


def _tensorflow(*shapes: tuple[int, ...] | None) -> Callable[[Path], Path]:
    """A frozen graph that adds inputs of such shapes; without one an input states none."""

    def write(folder: Path) -> Path:
        names = [f"x{index}" for index in range(len(shapes))]
        nodes = [
            node(name, "Placeholder", dtype=1) if shape is None else placeholder(name, shape)
            for name, shape in zip(names, shapes, strict=True)
        ]
        path = folder / "m.pb"
        path.write_bytes(b"".join((*nodes, node("y", "AddV2", names[0], names[-1], T=1))))
        return path

    return write


def _tflite(*shapes: tuple[int, ...]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = File()
        inputs = [file.tensor(f"x{i}", *(1,) * len(shape), signature=shape) for i, shape in enumerate(shapes)]
        y = file.tensor("y", *(1,) * len(shapes[0]))
        file.op("ADD", [inputs[0], inputs[-1]], [y])
        path = folder / "m.tflite"
        path.write_bytes(file.write(inputs, [y]))
        return path

    return write


def _keras(folder: Path) -> Path:
    if find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    import tensorflow

    layers = tensorflow.keras.layers
    x, z = (layers.Input(shape=(None, 8), name=name) for name in "xz")
    tensorflow.keras.Model([x, z], layers.Add()([x, z])).save(folder / "m.keras")
    return folder / "m.keras"


def _exported(folder: Path) -> Path:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    import torch

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return x + z

    size = torch.export.Dim("n", min=2, max=64)
    program = torch.export.export(
        Sum(), (torch.zeros(3, 8),), {"z": torch.zeros(3, 8)}, dynamic_shapes={"x": {0: size}, "z": {0: size}}
    )
    torch.export.save(program, folder / "m.pt2")
    return folder / "m.pt2"


NAMED = {"input_shapes": (6, 8)}, ("--input-shape", "6,8")
NOTHING: tuple[dict[str, object], tuple[str, ...]] = {}, ()
heavy = pytest.mark.heavy


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("write", "given", "words"),
    [
        (_tensorflow((-1, -1)), NOTHING, "the shape (?, ?); give its shape: --input-shape x0=N,N (in"),
        (_tensorflow((-1, -1, -1, 1)), NOTHING, "--input-shape x0=N,N,N,1 (in"),
        (_tensorflow(None), NOTHING, "--input-shape x0=N,N,N,N (in"),
        (_tensorflow((-1, 8), (-1, 8)), NAMED, "name each: --input-shape x0=N,8 --input-shape x1=N,8 (in"),
        (_tflite((-1, -1)), NOTHING, "the shape (?, ?); give its shape: --input-shape x0=N,N (in"),
        (_tflite((-1, 8), (-1, 8)), NAMED, "name each: --input-shape x0=N,8 --input-shape x1=N,8 (in"),
        pytest.param(_keras, NAMED, "name each: --input-shape x=N,N,8 --input-shape z=N,N,8 (in", marks=heavy),
        pytest.param(_exported, NOTHING, "has free dimensions; give the shapes of all: --input-shape x=S", marks=heavy),
    ],
)
def test_what_is_advised_works(
    write: Callable[[Path], Path],
    given: tuple[dict[str, object], tuple[str, ...]],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path)
    options, flags = given
    assert main(["predict", str(path), *flags]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert words in said
    said = re.sub(r"\b(N|S\d+)\b", "6", said)
    followed = [part for pair in re.findall(r"(--[a-z-]+) (\S+=\S+)", said) for part in pair]
    assert main(["predict", str(path), *followed]) == 0
    with pytest.raises(NnMeterError) as refused:
        frontends.read(path, **options)
    said = re.sub(r"\b(N|S\d+)\b", "6", str(refused.value))
    (literal,) = re.findall(r"\(in Python input_shapes=(\{.*\})\)", said)
    assert frontends.read(path, input_shapes=ast.literal_eval(literal)).inputs


def test_what_a_front_end_does_not_take_is_told_with_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _tflite((-1, 8))(tmp_path)
    assert main(["predict", str(path), "--seq-len", "8"]) == 2
    assert "take no seq_len; what they take is input_shapes (--input-shape)" in capsys.readouterr().err
    assert main(["predict", str(path), "--input-shape", "6,8"]) == 0


_SMALL = {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 2}
_ENCODER = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@heavy
@pytest.mark.parametrize(
    ("config", "flags", "words", "followed"),
    [
        ({"model_type": "gpt2", **_SMALL}, "--past -1", "past is -1; give 0 or more", "--past 0"),
        ({"model_type": "gpt2", **_SMALL}, "--seq-len 0", "seq_len is 0; give 1 or more", "--seq-len 1"),
        (
            {"model_type": "bert", **_ENCODER},
            "--past 4",
            "it is for language models that decode with a cache, of so many tokens (seq_len) in a batch (batch_size)",
            "",
        ),
        (
            {"model_type": "gpt2", **_SMALL},
            "--past 4 --input-shape input_ids=1,8",
            "takes no past beside input_shapes",
            "--past 4 --seq-len 2 --batch-size 3",
        ),
    ],
)
def test_what_configurations_of_transformers_are_advised_works(
    config: dict[str, object],
    flags: str,
    words: str,
    followed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert main(["predict", str(path), *flags.split()]) == 2
    assert words in capsys.readouterr().err
    assert main(["predict", str(path), *followed.split()]) == 0
    assert main(["predict", "hf:nothing-like-it"]) == 2
    assert "Or give the path of its config.json" in capsys.readouterr().err
