"""Architectures of transformers from their configuration, without weights: ``hf:bert-base-uncased``.

A source is a name of ``ARCHITECTURES``, a ``config.json`` or a folder that holds one, or a configuration
object.
Nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import MissingDependencyError, ModelError, ModelFormatError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends._torch_build import without_weights
from nn_meter.frontends.torchvision import importable, nearest
from nn_meter.ir import Graph

name = "hf"
suffixes: tuple[str, ...] = ()
PREFIX = "hf:"

DEFAULT_SEQ_LEN = 128
_AUDIO_SECOND = 16000


@dataclass(frozen=True, slots=True)
class Architecture:
    """Configuration class, model class, what differs from the defaults, and the part that is read."""

    config: str
    model: str
    values: Mapping[str, Any]
    part: str = ""


def _row(config: str, model: str, **values: Any) -> Architecture:
    part = values.pop("part", "")
    return Architecture(config, model, MappingProxyType(values), part)


_BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "intermediate_size": 4096}
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
_WHISPER = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048}  # fmt: skip

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({
    "bert-base-uncased": _row("BertConfig", "BertModel"),
    "bert-large-uncased": _row("BertConfig", "BertModel", **_LARGE),
    "roberta-base": _row("RobertaConfig", "RobertaModel", **_ROBERTA),
    "xlm-roberta-base": _row("XLMRobertaConfig", "XLMRobertaModel", **{**_ROBERTA, "vocab_size": 250002}),
    "distilbert-base-uncased": _row("DistilBertConfig", "DistilBertModel"),
    "albert-base-v2": _row("AlbertConfig", "AlbertModel", **_BASE),
    "electra-base-discriminator": _row("ElectraConfig", "ElectraModel", embedding_size=768, **_BASE),
    "mpnet-base": _row("MPNetConfig", "MPNetModel"),
    "deberta-v3-base": _row(
        "DebertaV2Config", "DebertaV2Model", vocab_size=128100, relative_attention=True, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0,
        max_relative_positions=-1, position_biased_input=False, pad_token_id=None, **_BASE,
    ),
    "minilm-l6": _row(
        "BertConfig", "BertModel", hidden_size=384, num_hidden_layers=6, intermediate_size=1536,
    ),
    "gpt2": _row("GPT2Config", "GPT2LMHeadModel"),
    "gpt2-medium": _row("GPT2Config", "GPT2LMHeadModel", n_embd=1024, n_layer=24, n_head=16),
    "opt-125m": _row("OPTConfig", "OPTForCausalLM"),
    "bloom-560m": _row("BloomConfig", "BloomForCausalLM", hidden_size=1024, n_layer=24, n_head=16),
    "pythia-160m": _row("GPTNeoXConfig", "GPTNeoXForCausalLM", vocab_size=50304, **_BASE),
    "falcon-7b": _row("FalconConfig", "FalconForCausalLM"),
    "llama-7b": _row("LlamaConfig", "LlamaForCausalLM"),
    "llama-3-8b": _row(
        "LlamaConfig", "LlamaForCausalLM", vocab_size=128256, intermediate_size=14336, num_key_value_heads=8,
    ),
    "tinyllama-1.1b": _row(
        "LlamaConfig", "LlamaForCausalLM", hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_key_value_heads=4,
    ),
    "mistral-7b": _row("MistralConfig", "MistralForCausalLM"),
    "qwen2-0.5b": _row(
        "Qwen2Config", "Qwen2ForCausalLM", vocab_size=151936, hidden_size=896, intermediate_size=4864,
        num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
    ),
    "qwen2-7b": _row(
        "Qwen2Config", "Qwen2ForCausalLM", vocab_size=152064, hidden_size=3584, intermediate_size=18944,
        num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    ),
    "phi-2": _row(
        "PhiConfig", "PhiForCausalLM", hidden_size=2560, intermediate_size=10240, num_hidden_layers=32,
    ),
    "gemma-2b": _row(
        "GemmaConfig", "GemmaForCausalLM", hidden_size=2048, intermediate_size=16384, num_hidden_layers=18,
        num_attention_heads=8, num_key_value_heads=1, head_dim=256,
    ),
    "t5-small": _row("T5Config", "T5Model"),
    "t5-base": _row("T5Config", "T5Model", d_model=768, d_ff=3072, num_layers=12, num_heads=12),
    "bart-base": _row(
        "BartConfig", "BartModel", d_model=768, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    ),
    "whisper-base": _row("WhisperConfig", "WhisperModel", **_WHISPER),
    "whisper-base-encoder": _row("WhisperConfig", "WhisperModel", part="encoder", **_WHISPER),
    "wav2vec2-base": _row("Wav2Vec2Config", "Wav2Vec2Model"),
    "clip-vit-base-patch32": _row("CLIPConfig", "CLIPModel"),
    "clip-vit-base-patch32-vision": _row("CLIPVisionConfig", "CLIPVisionModel"),
    "siglip-base-patch16-224-vision": _row("SiglipVisionConfig", "SiglipVisionModel"),
    "sam-vit-base-encoder": _row("SamVisionConfig", "SamVisionModel"),
    "vit-base-patch16-224": _row("ViTConfig", "ViTForImageClassification", num_labels=1000),
    "deit-base-patch16-224": _row("DeiTConfig", "DeiTForImageClassification", num_labels=1000),
    "beit-base-patch16-224": _row(
        "BeitConfig", "BeitForImageClassification", num_labels=1000, use_relative_position_bias=True,
    ),
    "dinov2-base": _row("Dinov2Config", "Dinov2Model", image_size=518, patch_size=14),
    "swin-tiny-patch4-window7-224": _row("SwinConfig", "SwinForImageClassification", num_labels=1000),
    "convnext-tiny-224": _row("ConvNextConfig", "ConvNextForImageClassification", num_labels=1000),
    "resnet-50": _row("ResNetConfig", "ResNetForImageClassification", num_labels=1000),
    "mobilevit-small": _row("MobileViTConfig", "MobileViTForImageClassification", num_labels=1000),
    "segformer-b0": _row("SegformerConfig", "SegformerForSemanticSegmentation", num_labels=150),
    "dpt-large": _row("DPTConfig", "DPTForDepthEstimation", **_LARGE),
})  # fmt: skip
"""Well-known names; ``part`` is the submodule that is read instead of the whole."""


def sniff(source: Any) -> bool:
    """Whether ``source`` is a name with the prefix ``hf:``, a configuration object or a ``config.json``."""
    if isinstance(source, str) and source.startswith(PREFIX):
        return True
    if isinstance(source, str | Path):
        return _config_file(source) is not None
    return any(kind.__name__.lower() == "pretrainedconfig" for kind in type(source).__mro__)


def read(
    source: Any,
    *,
    input_shapes: Any = None,
    name: str | None = None,
    seq_len: int = DEFAULT_SEQ_LEN,
    batch_size: int = 1,
) -> Graph:
    """The graph of the architecture ``source``.

    Args:
        source: A name of ``ARCHITECTURES`` with or without the prefix, the path of a ``config.json`` or of
        a folder
            that holds one, or a configuration object.
        input_shapes: As of the PyTorch front end; what the model takes, by ``seq_len`` and ``batch_size``,
        where
            left out.
        name: Name of the graph.
        seq_len: Tokens of a text, where the model reads one.
        batch_size: Texts, images or recordings at once.

    Raises:
        ModelError: an unknown name (near ones are listed), or a configuration that makes no model.
        ModelFormatError: a ``config.json`` that is none.
        MissingDependencyError: transformers is not installed.
    """
    title, module = build(source)
    if input_shapes is None:
        input_shapes = inputs(module, seq_len, batch_size)
    return pytorch.read(module, input_shapes=input_shapes, name=name or title)


def names() -> list[str]:
    """Every architecture that can be read by name."""
    return list(ARCHITECTURES)


def build(source: Any) -> tuple[str, Any]:
    """Name and module of ``source``, on the device ``meta``."""
    transformers = _transformers()
    if not isinstance(source, str | Path):
        return type(source).__name__, _module(transformers, source)
    file = _config_file(source)
    if file is not None:
        return file.parent.name, _module(transformers, _read_config(transformers, file))
    title = str(source).removeprefix(PREFIX)
    row = ARCHITECTURES.get(title.rpartition("/")[2]) or ARCHITECTURES.get(title)
    if row is None:
        near = nearest(title.rpartition("/")[2], list(ARCHITECTURES))
        raise ModelError(
            f"no architecture {title!r} without a download; {near} Or give the path of its config.json"
        )
    config = getattr(transformers, row.config)(**row.values)
    config.architectures = [row.model]
    module = _module(transformers, config)
    return title, getattr(module, row.part) if row.part else module


def inputs(module: Any, seq_len: int, batch_size: int) -> dict[str, Any]:
    """What ``module`` takes, by the names of its inputs."""
    config = module.config
    if hasattr(config, "text_config"):
        seq_len = min(seq_len, getattr(config.text_config, "max_position_embeddings", seq_len))
    text = ((batch_size, seq_len), "int64")
    shapes: dict[str, Any] = {}
    main = module.main_input_name
    if main == "input_ids":
        shapes["input_ids"] = text
    if main == "pixel_values" or hasattr(config, "vision_config"):
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shapes["pixel_values"] = (batch_size, getattr(vision, "num_channels", 3), height, width)
    if main == "input_features":
        shapes["input_features"] = (batch_size, config.num_mel_bins, 2 * config.max_source_positions)
    if main == "input_values":
        shapes["input_values"] = (batch_size, _AUDIO_SECOND)
    if config.is_encoder_decoder and hasattr(module, "decoder"):
        shapes["decoder_input_ids"] = text
    return shapes


def _module(transformers: Any, config: Any) -> Any:
    """The model of ``config``: the class that it names, or the bare one of its kind."""
    kind = next((getattr(transformers, n, None) for n in getattr(config, "architectures", None) or ()), None)
    config = copy.deepcopy(config)
    config.use_cache = False
    try:
        if kind is not None:
            return without_weights(lambda: kind(config))
        return without_weights(lambda: transformers.AutoModel.from_config(config))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{type(config).__name__} makes no model: {error}; check its values") from error


def _config_file(source: str | Path) -> Path | None:
    path = Path(source)
    if path.is_dir():
        path = path / "config.json"
    return (
        path
        if path.name.endswith(".json") and path.is_file() and b'"model_type"' in path.read_bytes()
        else None
    )


def _read_config(transformers: Any, file: Path) -> Any:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFormatError(f"{file}: no configuration of transformers: {error}") from error


def _transformers() -> Any:
    pytorch._torch()
    try:
        importable()
        import transformers
    except ImportError:
        raise MissingDependencyError("transformers", "hf", "reading a transformers model") from None
    return transformers
