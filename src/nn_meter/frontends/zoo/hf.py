"""Architectures of transformers from their configuration: ``hf:bert-base-uncased``.

A source is a name of ``ARCHITECTURES``, a ``config.json`` or a folder that holds one, or a configuration
object. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import ModelError, ModelFormatError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends._source import DEFAULT_SEQ_LEN
from nn_meter.frontends.zoo import Built, Zoo
from nn_meter.frontends.zoo.modules import imported, nearest, without_weights
from nn_meter.limits import TEXT_BYTES
from nn_meter.storage import read_bytes

_AUDIO_SECOND = 16000

_CACHES = ("cache", "past_key_values")
"""What models call their cache: transformers 5 has the newer name, and warns of the older one."""

_PADDING_CHECK = "warn_if_padding_and_no_attention_mask"
"""Method of transformers' models that asks whether tokens are padding."""


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
    "modernbert-base": _row("ModernBertConfig", "ModernBertModel"),
    "mobilebert-uncased": _row("MobileBertConfig", "MobileBertModel"),
    "squeezebert-uncased": _row("SqueezeBertConfig", "SqueezeBertModel"),
    "convbert-base": _row("ConvBertConfig", "ConvBertModel"),
    "camembert-base": _row("CamembertConfig", "CamembertModel", **{**_ROBERTA, "vocab_size": 32005}),
    "layoutlm-base-uncased": _row("LayoutLMConfig", "LayoutLMModel"),
    "longformer-base-4096": _row("LongformerConfig", "LongformerModel", attention_window=512),
    "xlnet-base-cased": _row("XLNetConfig", "XLNetModel", d_model=768, n_layer=12, n_head=12, d_inner=3072),
    "esm2-t12-35m": _row(
        "EsmConfig", "EsmModel", vocab_size=33, hidden_size=480, num_hidden_layers=12, num_attention_heads=20,
        intermediate_size=1920, position_embedding_type="rotary", pad_token_id=1, mask_token_id=32,
    ),
    "deberta-v3-base": _row(
        "DebertaV2Config", "DebertaV2Model", vocab_size=128100, relative_attention=True, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0,
        max_relative_positions=-1, position_biased_input=False, pad_token_id=None, **_BASE,
    ),
    "minilm-l6": _row(
        "BertConfig", "BertModel", hidden_size=384, num_hidden_layers=6, intermediate_size=1536,
    ),
    "gpt2": _row("GPT2Config", "GPT2LMHeadModel"),
    "distilgpt2": _row("GPT2Config", "GPT2LMHeadModel", n_layer=6),
    "gpt2-medium": _row("GPT2Config", "GPT2LMHeadModel", n_embd=1024, n_layer=24, n_head=16),
    "gpt-neo-125m": _row(
        "GPTNeoConfig", "GPTNeoForCausalLM", hidden_size=768, num_layers=12, num_heads=12,
        attention_types=[[["global", "local"], 6]],
    ),
    "gpt-j-6b": _row("GPTJConfig", "GPTJForCausalLM"),
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
    "smollm2-135m": _row(
        "LlamaConfig", "LlamaForCausalLM", vocab_size=49152, hidden_size=576, intermediate_size=1536,
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, bos_token_id=0,
        eos_token_id=0,
    ),
    "mistral-7b": _row("MistralConfig", "MistralForCausalLM"),
    "mixtral-8x7b": _row("MixtralConfig", "MixtralForCausalLM"),
    "qwen2-0.5b": _row(
        "Qwen2Config", "Qwen2ForCausalLM", vocab_size=151936, hidden_size=896, intermediate_size=4864,
        num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
    ),
    "qwen2-7b": _row(
        "Qwen2Config", "Qwen2ForCausalLM", vocab_size=152064, hidden_size=3584, intermediate_size=18944,
        num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    ),
    "qwen3-0.6b": _row(
        "Qwen3Config", "Qwen3ForCausalLM", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    ),
    "qwen3-8b": _row(
        "Qwen3Config", "Qwen3ForCausalLM", hidden_size=4096, intermediate_size=12288, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    ),
    "qwen1.5-moe-a2.7b": _row("Qwen2MoeConfig", "Qwen2MoeForCausalLM"),
    "qwen3-30b-a3b": _row("Qwen3MoeConfig", "Qwen3MoeForCausalLM", num_hidden_layers=48, head_dim=128),
    "olmo-2-1b": _row(
        "Olmo2Config", "Olmo2ForCausalLM", vocab_size=100352, hidden_size=2048, intermediate_size=8192,
        num_hidden_layers=16, num_attention_heads=16,
    ),
    "olmoe-1b-7b": _row("OlmoeConfig", "OlmoeForCausalLM", intermediate_size=1024),
    "gpt-oss-20b": _row("GptOssConfig", "GptOssForCausalLM", num_hidden_layers=24, num_local_experts=32),
    "deepseek-v3": _row("DeepseekV3Config", "DeepseekV3ForCausalLM"),
    "starcoder2-3b": _row("Starcoder2Config", "Starcoder2ForCausalLM"),
    "phi-3-mini": _row("Phi3Config", "Phi3ForCausalLM"),
    "phi-2": _row(
        "PhiConfig", "PhiForCausalLM", hidden_size=2560, intermediate_size=10240, num_hidden_layers=32,
    ),
    "gemma-2b": _row(
        "GemmaConfig", "GemmaForCausalLM", hidden_size=2048, intermediate_size=16384, num_hidden_layers=18,
        num_attention_heads=8, num_key_value_heads=1, head_dim=256,
    ),
    "gemma-2-2b": _row("Gemma2Config", "Gemma2ForCausalLM"),
    "gemma-3-1b": _row(
        "Gemma3TextConfig", "Gemma3ForCausalLM", vocab_size=262144, hidden_size=1152, intermediate_size=6912,
        num_hidden_layers=26, num_attention_heads=4, num_key_value_heads=1, head_dim=256,
    ),
    "t5-small": _row("T5Config", "T5Model"),
    "mt5-small": _row("MT5Config", "MT5Model"),
    "pegasus-large": _row(
        "PegasusConfig", "PegasusModel", vocab_size=96103, encoder_layers=16, decoder_layers=16,
    ),
    "opus-mt-en-de": _row(
        "MarianConfig", "MarianMTModel", vocab_size=58101, d_model=512, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
    ),
    "t5-base": _row("T5Config", "T5Model", d_model=768, d_ff=3072, num_layers=12, num_heads=12),
    "bart-base": _row(
        "BartConfig", "BartModel", d_model=768, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    ),
    "whisper-tiny": _row(
        "WhisperConfig", "WhisperModel", d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536,
    ),
    "whisper-base": _row("WhisperConfig", "WhisperModel", **_WHISPER),
    "whisper-base-encoder": _row("WhisperConfig", "WhisperModel", part="encoder", **_WHISPER),
    "wav2vec2-base": _row("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert-base": _row("HubertConfig", "HubertModel"),
    "wavlm-base": _row("WavLMConfig", "WavLMModel"),
    "ast-audioset": _row("ASTConfig", "ASTForAudioClassification", num_labels=527),
    "clip-vit-base-patch32": _row("CLIPConfig", "CLIPModel"),
    "clip-vit-base-patch32-vision": _row("CLIPVisionConfig", "CLIPVisionModel"),
    "siglip-base-patch16-224": _row("SiglipConfig", "SiglipModel"),
    "siglip-base-patch16-224-vision": _row("SiglipVisionConfig", "SiglipVisionModel"),
    "sam-vit-base-encoder": _row("SamVisionConfig", "SamVisionModel"),
    "vit-base-patch16-224": _row("ViTConfig", "ViTForImageClassification", num_labels=1000),
    "deit-base-patch16-224": _row("DeiTConfig", "DeiTForImageClassification", num_labels=1000),
    "beit-base-patch16-224": _row(
        "BeitConfig", "BeitForImageClassification", num_labels=1000, use_relative_position_bias=True,
    ),
    "dinov2-base": _row("Dinov2Config", "Dinov2Model", image_size=518, patch_size=14),
    "dinov3-vits16": _row("DINOv3ViTConfig", "DINOv3ViTModel"),
    "videomae-base": _row("VideoMAEConfig", "VideoMAEModel"),
    "timesformer-base": _row("TimesformerConfig", "TimesformerModel"),
    "pvt-v2-b0": _row("PvtV2Config", "PvtV2ForImageClassification", num_labels=1000),
    "cvt-13": _row("CvtConfig", "CvtForImageClassification", num_labels=1000),
    "swinv2-tiny-patch4-window8-256": _row(
        "Swinv2Config", "Swinv2ForImageClassification", num_labels=1000, image_size=256, window_size=8,
    ),
    "swin-tiny-patch4-window7-224": _row("SwinConfig", "SwinForImageClassification", num_labels=1000),
    "convnext-tiny-224": _row("ConvNextConfig", "ConvNextForImageClassification", num_labels=1000),
    "convnextv2-tiny-224": _row("ConvNextV2Config", "ConvNextV2ForImageClassification", num_labels=1000),
    "efficientnet-b7": _row("EfficientNetConfig", "EfficientNetForImageClassification", num_labels=1000),
    "detr-resnet-50": _row("DetrConfig", "DetrForObjectDetection"),
    "resnet-50": _row("ResNetConfig", "ResNetForImageClassification", num_labels=1000),
    "mobilevit-small": _row("MobileViTConfig", "MobileViTForImageClassification", num_labels=1000),
    "segformer-b0": _row("SegformerConfig", "SegformerForSemanticSegmentation", num_labels=150),
    "dpt-large": _row("DPTConfig", "DPTForDepthEstimation", **_LARGE),
})  # fmt: skip
"""Well-known names; ``part`` is the submodule that is read instead of the whole."""


def takes(source: Any) -> bool:
    """Whether ``source`` is a configuration object, a ``config.json`` or a folder that holds one."""
    if isinstance(source, str | Path):
        return _config_file(source) is not None
    return any(kind.__name__.lower() == "pretrainedconfig" for kind in type(source).__mro__)


def names() -> list[str]:
    """Every architecture that can be read by name."""
    return list(ARCHITECTURES)


def build(source: Any) -> Built:
    """The architecture of ``source``.

    Raises:
        ModelError: an unknown name (near ones are listed), or a configuration that makes no model.
        ModelFormatError: a ``config.json`` that is none.
        MissingDependencyError: transformers is not installed.
    """
    transformers = imported("transformers", "hf")
    if not isinstance(source, str | Path):
        return _built(type(source).__name__, _module(transformers, source))
    file = _config_file(source)
    if file is not None:
        return _built(file.parent.name, _module(transformers, _read_config(transformers, file)))
    title = str(source)
    row = ARCHITECTURES.get(title.rpartition("/")[2]) or ARCHITECTURES.get(title)
    if row is None:
        near = nearest(title.rpartition("/")[2], list(ARCHITECTURES))
        raise ModelError(f"no architecture {title!r} without a download; {near} Or give the path of its config.json")
    config = getattr(transformers, row.config)(**row.values)
    config.architectures = [row.model]
    module = _module(transformers, config)
    return _built(title, getattr(module, row.part) if row.part else module)


def _built(title: str, module: Any) -> Built:
    config = module.config
    cache = next((name for name in _CACHES if name in signature(module.forward).parameters), "")
    causal = any(getattr(part, "is_causal", False) for part in module.modules())
    step = behind if causal and not config.is_encoder_decoder else None
    if config.is_encoder_decoder and "decoder_input_ids" in signature(module.forward).parameters:
        step = behind_an_encoder
    positions = getattr(getattr(config, "text_config", None), "max_position_embeddings", None)
    return Built(
        title, module, partial(inputs, module), partial(step, module, cache) if cache and step else None, positions
    )


def inputs(module: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """What ``module`` takes, by the names of its inputs.

    Raises:
        ModelError: its shape is not known.
    """
    config = module.config
    text = ((batch_size, seq_len), "int64")
    shapes: dict[str, Any] = {}
    main = module.main_input_name
    if main == "input_ids":
        shapes["input_ids"] = text
    if main == "pixel_values" or hasattr(config, "vision_config"):
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        frames = (vision.num_frames,) if hasattr(vision, "num_frames") else ()
        shapes["pixel_values"] = (batch_size, *frames, getattr(vision, "num_channels", 3), height, width)
    if main == "input_features" and hasattr(config, "max_source_positions"):
        shapes["input_features"] = (batch_size, config.num_mel_bins, 2 * config.max_source_positions)
    if main == "input_values":
        spectrogram = (config.max_length, config.num_mel_bins) if hasattr(config, "num_mel_bins") else None
        shapes["input_values"] = (batch_size, *(spectrogram or (_AUDIO_SECOND,)))
    if not shapes:
        raise ModelError(f"{type(module).__name__} takes {main!r}, whose shape is not known; give input_shapes")
    if config.is_encoder_decoder and "decoder_input_ids" in signature(module.forward).parameters:
        shapes["decoder_input_ids"] = text
    return shapes


def behind(module: Any, name: str, batch_size: int, seq_len: int, past: int) -> dict[str, Any]:
    """What ``module`` takes for ``seq_len`` tokens behind ``past``: token ids, and of each layer keys and values.

    A run of one token says what the layers keep; from then on the module's forward reads it from its inputs, and hands
    it on under the ``name`` that it has for a cache.

    Raises:
        ModelError: it has no cache, or one that holds more than keys and values.
    """
    cached = imported("transformers", "hf").DynamicCache
    probe, forward, config = cached(config=module.config), module.forward, module.config
    one = {"input_ids": ((batch_size, 1), "int64")}
    pytorch.read(module, input_shapes=one, kwargs={name: probe, "use_cache": True})
    shapes: dict[str, Any] = {"input_ids": ((batch_size, seq_len), "int64")}
    for index, layer in enumerate(probe.layers):
        if getattr(layer, "keys", None) is None:
            raise ModelError(
                f"{type(module).__name__} keeps no keys and values in its layer {index}, so that it takes no past; ask "
                "for its tokens alone"
            )
        kept = min(past, getattr(layer, "sliding_window", past + 1) - 1)
        shapes |= _kept(layer, f"past_key_values.{index}", kept)

    def step(input_ids: Any, **states: Any) -> Any:
        cache = cached(config=config)
        for index, layer in enumerate(cache.layers):
            _fill(layer, f"past_key_values.{index}", states)
            if hasattr(layer, "cumulative_length"):
                layer.cumulative_length = past
        result = forward(input_ids=input_ids, use_cache=True, **{name: cache})
        return result, [(layer.keys, layer.values) for layer in cache.layers]

    module.forward = step
    return shapes


def behind_an_encoder(module: Any, name: str, batch_size: int, seq_len: int, past: int) -> dict[str, Any]:
    """What a decoder takes for ``seq_len`` tokens behind ``past``, once its encoder has run: token ids, the encoder's
    result, and of each layer keys and values of the past and of that result.

    The encoder's input was as long as it is without a past.
    """
    transformers = imported("transformers", "hf")
    pair, cached = transformers.EncoderDecoderCache, transformers.DynamicCache
    probe, forward = pair(cached(), cached()), module.forward
    first = {**inputs(module, batch_size, DEFAULT_SEQ_LEN), "decoder_input_ids": ((batch_size, 1), "int64")}
    pytorch.read(module, input_shapes=first, kwargs={name: probe, "use_cache": True})
    sides = {"decoder": probe.self_attention_cache.layers, "encoder": probe.cross_attention_cache.layers}
    length = sides["encoder"][0].keys.shape[-2]
    shapes: dict[str, Any] = {
        "decoder_input_ids": ((batch_size, seq_len), "int64"),
        "encoder_hidden_states": (batch_size, length, module.config.hidden_size),
    }
    for side, layers in sides.items():
        for index, layer in enumerate(layers):
            shapes |= _kept(layer, f"past_key_values.{index}.{side}", past if side == "decoder" else length)

    def step(decoder_input_ids: Any, encoder_hidden_states: Any, **states: Any) -> Any:
        caches = []
        for side, layers in sides.items():
            cache = cached()
            cache.layers = [type(layer)() for layer in layers]
            for index, layer in enumerate(cache.layers):
                _fill(layer, f"past_key_values.{index}.{side}", states)
            caches.append(cache)
        given = {"decoder_input_ids": decoder_input_ids, "encoder_outputs": (encoder_hidden_states,)}
        result = forward(**given, use_cache=True, **{name: pair(*caches)})
        return result[0], [(layer.keys, layer.values) for layer in caches[0].layers]

    module.forward = step
    return shapes


def _kept(layer: Any, stem: str, tokens: int) -> dict[str, Any]:
    """Keys and values of so many tokens, as ``layer`` of a cache holds them, by the names of inputs."""
    return {
        f"{stem}.{part}": ((*held.shape[:-2], tokens, held.shape[-1]), str(held.dtype).removeprefix("torch."))
        for part, held in (("key", layer.keys), ("value", layer.values))
    }


def _fill(layer: Any, stem: str, states: Mapping[str, Any]) -> None:
    layer.keys, layer.values = states[f"{stem}.key"], states[f"{stem}.value"]
    layer.dtype, layer.device, layer.is_initialized = layer.keys.dtype, layer.keys.device, True


def _module(transformers: Any, config: Any) -> Any:
    """The model of ``config``: the class that it names, or the bare one of its kind."""
    kind = next((getattr(transformers, n, None) for n in getattr(config, "architectures", None) or ()), None)
    config = copy.deepcopy(config)
    config.use_cache = False
    try:
        if kind is not None:
            module = without_weights(lambda: kind(config))
        else:
            module = without_weights(lambda: transformers.AutoModel.from_config(config))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{type(config).__name__} makes no model: {error}; check its values") from error
    for part in module.modules():
        if hasattr(part, _PADDING_CHECK):
            setattr(part, _PADDING_CHECK, _unchecked)
    return module


def _unchecked(*_: Any) -> None:
    """In place of a check that looks at the values of tokens."""


def _config_file(source: str | Path) -> Path | None:
    path = Path(source)
    if os.path.isdir(path):
        path = path / "config.json"
    if not (path.name.endswith(".json") and os.path.isfile(path)):
        return None
    try:
        found = read_bytes(path, "the configuration", ModelFormatError, limit=TEXT_BYTES)
    except ModelFormatError:
        return None
    return path if b'"model_type"' in found else None


def _read_config(transformers: Any, file: Path) -> Any:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{file}: no configuration of transformers: {error}") from error


ZOO = Zoo("hf", names, build, takes, texts=True)
