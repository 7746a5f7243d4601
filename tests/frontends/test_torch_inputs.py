"""What goes into PyTorch modules: dictionaries, lists, whole numbers, and the cache of a language model."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nn_meter.errors import InputError, ModelError, UnsupportedOperatorError
from nn_meter.frontends import front_end, onnx
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends.zoo.modules import imported

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

for package in ("torch", "torchvision", "transformers"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

import torch  # noqa: E402

hf, torchvision = front_end("hf"), front_end("torchvision")
nn = torch.nn

# Inputs that are dictionaries and lists


class OfDictionaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, batch: Any) -> Any:
        return {"logits": self.head(batch["features"]), "aux": [batch["features"] * 2]}


class OfLists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, xs: Any) -> Any:
        return [self.head(x) for x in xs]


@pytest.mark.parametrize(
    ("module", "options", "inputs"),
    [
        (OfDictionaries, {"input_shapes": {"batch": {"features": (2, 16)}}}, {"batch.features": (2, 16)}),
        (OfDictionaries, {"input_shapes": [{"features": torch.zeros(2, 16)}]}, {"batch.features": (2, 16)}),
        (
            OfDictionaries,
            {"input_shapes": {}, "kwargs": {"batch": {"features": torch.zeros(2, 16)}}},
            {"batch.features": (2, 16)},
        ),
        (OfLists, {"input_shapes": [[(1, 16), (2, 16)]]}, {"xs.0": (1, 16), "xs.1": (2, 16)}),
    ],
)
def test_dictionaries_and_lists_are_inputs(module: Any, options: Any, inputs: dict[str, tuple[int, ...]]) -> None:
    graph = pytorch.read(module(), **options)
    assert {name.removesuffix("_0"): graph.tensors[name].shape for name in graph.inputs} == inputs
    assert "Gemm" in {node.op_type for node in graph.nodes}


def test_the_advice_for_an_embedding_that_gets_floats_works() -> None:
    with pytest.raises(ModelError, match=r"input_shapes=\[\(\(1, 10\), 'int64'\)\]"):
        pytorch.read(nn.Embedding(100, 8), input_shapes=(1, 10))
    graph = pytorch.read(nn.Embedding(100, 8), input_shapes=[((1, 10), "int64")])
    assert graph.tensors[graph.outputs[0]].shape == (1, 10, 8)


class OfItems(nn.Module):
    """An embedding beside features, which come first."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.rest = nn.Embedding(50, 8), nn.Linear(3, 8)

    def forward(self, features: Any, items: Any) -> Any:
        return self.items(items) + self.rest(features)


@pytest.mark.parametrize("named", [False, True])
def test_the_advice_names_all_inputs_and_the_one_that_holds_whole_numbers(named: bool) -> None:
    shapes: list[Any] = [(4, 3), (4,)]
    given = dict(zip(("features", "items"), shapes, strict=True)) if named else shapes
    with pytest.raises(ModelError) as caught:
        pytorch.read(OfItems(), input_shapes=given)
    listed, by_name = re.search(r"input_shapes=(\[.*\]), or by name as in (\{.*\})$", str(caught.value)).groups()  # type: ignore[union-attr]
    for advised in (listed, by_name):
        graph = pytorch.read(OfItems(), input_shapes=ast.literal_eval(advised))
        assert [graph.tensors[name].dtype for name in graph.inputs] == ["float32", "int64"]


class OfSpectra(nn.Module):
    """Windowed spectra, whose window is made as they are."""

    def forward(self, x: Any) -> Any:
        window = torch.hann_window(16)
        return torch.stft(x, n_fft=16, hop_length=4, window=window, return_complex=True).abs()


class OfFrequencies(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.fft.rfft(x).abs()


@pytest.mark.parametrize("module", [OfSpectra, OfFrequencies])
def test_the_advice_for_fourier_transforms_works(module: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises((ModelError, UnsupportedOperatorError), match="dynamo=True, opset_version=18"):
        pytorch.read(module(), input_shapes=(1, 64))
    file = tmp_path / "model.onnx"
    torch.onnx.export(module(), (torch.rand(1, 64),), file, dynamo=True, opset_version=18, verbose=False)
    assert {"STFT", "DFT"} & {node.op_type for node in onnx.read(file).nodes}


# A cache


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Mistral"])
def test_a_step_of_a_language_model_reads_and_gives_back_its_cache(family: str) -> None:
    transformers = imported("transformers", "hf")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    sizes["vocab_size"] = 99
    options = {
        "Llama": sizes | {"num_key_value_heads": 2},
        "Mistral": sizes | {"num_key_value_heads": 2, "sliding_window": 11},
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99},
    }[family]
    config = getattr(transformers, f"{family}Config")(**options)
    config.architectures = [f"{family}{'LMHeadModel' if family == 'GPT2' else 'ForCausalLM'}"]
    graph = hf.read(config, past=20)
    heads, kept = 4 if family == "GPT2" else 2, 10 if family == "Mistral" else 20
    shapes = [graph.tensors[name].shape for name in graph.inputs]
    assert shapes == [(1, 1), *[(1, heads, kept, 8)] * 4]
    scores = [node for node in graph.nodes if node.op_type == "Softmax"]
    # scores of four heads, those that share keys beside each other
    assert [graph.tensors[each.outputs[0]].size for each in scores] == [4 * (kept + 1)] * 2
    assert (1, heads, 10 if family == "Mistral" else 21, 8) in [graph.tensors[name].shape for name in graph.outputs]
    assert len(hf.read(config, past=0, seq_len=5).inputs) == 1


@pytest.mark.parametrize("family", ["T5", "Bart", "Whisper"])
def test_a_step_of_a_decoder_reads_what_its_encoder_left(family: str) -> None:
    transformers = imported("transformers", "hf")
    sides = {"encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sides |= {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99}
    options = {
        "T5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4},
        "Bart": sides,
        "Whisper": sides | {"max_source_positions": 50, "num_mel_bins": 8, "pad_token_id": 0},
    }[family]
    config = getattr(transformers, f"{family}Config")(**options)
    graph = hf.read(config, past=20)
    length = 50 if family == "Whisper" else 128
    shapes = [graph.tensors[name].shape for name in graph.inputs]
    assert shapes == [(1, 1), (1, length, 32), *[(1, 4, 20, 8)] * 4, *[(1, 4, length, 8)] * 4]
    scores = [graph.tensors[node.outputs[0]].size for node in graph.nodes if node.op_type == "Softmax"]
    assert scores == [4 * 21, 4 * length] * 2  # of its own tokens and of the encoder's, and no encoder
    assert (1, 4, 21, 8) in [graph.tensors[name].shape for name in graph.outputs]


def test_a_text_longer_than_a_model_has_positions_for_is_said_to_be_cut() -> None:
    transformers = imported("transformers", "hf")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = sizes | {"max_position_embeddings": 77, "vocab_size": 99}
    config = transformers.CLIPConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 16})
    graph = hf.read(config)
    assert graph.tensors["input_ids"].shape == (1, 77)
    assert "the text is 77 tokens long, not 128: CLIPConfig has no more positions" in graph.notes
    assert not any("positions" in note for note in hf.read(config, seq_len=40).notes)


def test_what_has_no_cache_takes_no_past() -> None:
    transformers = imported("transformers", "hf")
    encoder = transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    with pytest.raises(InputError, match=r"BertConfig takes no past; it is for language models"):
        hf.read(encoder, past=4)
    with pytest.raises(InputError, match=r"torchvision models take no past"):
        torchvision.read("torchvision:resnet18", past=4)
