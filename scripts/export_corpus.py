"""Exports the corpus of models that the tests carry: small members of published families, without weights.

Each is built with random weights by its own library (torchvision, timm, transformers) or here, and exported as a
user of PyTorch would, by the TorchScript exporter or the current one. Names, order and spellings stay the
exporter's; its notes for debugging go, and large weights refer to a file that does not exist:

    python scripts/export_corpus.py tests/corpus/models [NAME ...]
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from export_models import forget_weights
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  its usual name

from nn_meter.frontends.zoo.modules import importable

OPSET = {"torchscript": 17, "dynamo": 20}

KEPT_BYTES = 64
"""Numbers that decide what operators do, such as epsilons and scales, are no larger."""

Exporter = Literal["torchscript", "dynamo"]
Made = tuple[nn.Module, Mapping[str, Tensor]]


def image(size: int = 224) -> dict[str, Tensor]:
    """One input of random pixels."""
    return {"x": torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0))}


def resnet() -> Made:
    """Convolutions with residual sums."""
    from torchvision.models import resnet as family

    return family.ResNet(family.BasicBlock, [1, 1, 1, 1]), image()


def mobilenet() -> Made:
    """Inverted bottlenecks with squeeze-and-excitation and hard swish."""
    from torchvision.models import mobilenetv3 as family

    block = partial(family.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [
        block(16, 3, 16, 16, True, "RE", 2),
        block(16, 3, 72, 24, False, "RE", 2),
        block(24, 3, 88, 24, False, "RE", 1),
        block(24, 5, 96, 40, True, "HS", 2),
        block(40, 5, 240, 40, True, "HS", 1),
        block(40, 5, 288, 96, True, "HS", 2),
    ]
    return family.MobileNetV3(blocks, 512, num_classes=100), image()


def shufflenet() -> Made:
    """Depthwise convolutions between channel splits and shuffles."""
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([2, 3, 2], [24, 48, 96, 192, 512], num_classes=100), image()


def densenet() -> Made:
    """Concatenations, with normalisation before each convolution."""
    from torchvision.models import DenseNet

    return DenseNet(32, (2, 3, 2, 2), 64, num_classes=100), image()


def convnext() -> Made:
    """Depthwise convolutions and per-pixel layers, turned between the two."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=(1, 1, 2, 1), dims=(40, 80, 160, 320), num_classes=100), image()


def vit() -> Made:
    """A vision transformer."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(embed_dim=192, depth=2, num_heads=3, num_classes=100), image()


def swin() -> Made:
    """Attention in shifted windows."""
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(embed_dim=48, depths=(2, 2), num_heads=(2, 4), num_classes=100), image()


class _Logits(nn.Module):
    """A model of transformers without the dictionary around its answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        answer: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return answer


def tokens(length: int, vocabulary: int) -> dict[str, Tensor]:
    """One sequence, nothing masked."""
    ids = torch.randint(0, vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def decoder() -> Made:
    """A language model: RMS norms, rotary positions, grouped heads, a gated SiLU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=2000, hidden_size=256, intermediate_size=688, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=4, use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    return _Logits(LlamaForCausalLM(config)), tokens(64, 2000)


def encoder() -> Made:
    """A text encoder with layer norms and the tanh spelling of GELU."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=2000, hidden_size=192, intermediate_size=768, num_hidden_layers=2, num_attention_heads=3,
        hidden_act="gelu_new", max_position_embeddings=128, attn_implementation="eager",
    )  # fmt: skip
    return _Logits(BertModel(config)), tokens(64, 2000)


def _convolution(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout), nn.SiLU())


class _CrossStage(nn.Module):
    """Half of the channels go through residual bottlenecks, half around them (Wang et al., CSPNet)."""

    def __init__(self, cin: int, cout: int, residual: bool) -> None:
        super().__init__()
        self.before = _convolution(cin, cout, 1)
        self.inner = nn.Sequential(_convolution(cout // 2, cout // 2), _convolution(cout // 2, cout // 2))
        self.after = _convolution(cout + cout // 2, cout, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.before(x).chunk(2, 1)
        inner = self.inner(second)
        inner = second + inner if self.residual else inner
        answer: Tensor = self.after(torch.cat((first, second, inner), 1))
        return answer


class _Detector(nn.Module):
    """One stage after the other, a pyramid upwards (Lin et al., FPN), boxes as distributions of their sides (Li et
    al., generalised focal loss) and classes at two scales."""

    BINS, CLASSES = 16, 20

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 16, 3, 2), _convolution(16, 32, 3, 2), _CrossStage(32, 32, True))
        self.fine = nn.Sequential(_convolution(32, 64, 3, 2), _CrossStage(64, 64, True))
        self.coarse = nn.Sequential(_convolution(64, 128, 3, 2), _CrossStage(128, 128, True))
        self.reduce, self.pool = _convolution(128, 64, 1), nn.MaxPool2d(5, 1, 2)
        self.widen = _convolution(256, 128, 1)
        self.up, self.merge = nn.Upsample(scale_factor=2, mode="nearest"), _CrossStage(192, 64, False)
        self.boxes = nn.ModuleList(self._head(width, 4 * self.BINS) for width in (64, 128))
        self.classes = nn.ModuleList(self._head(width, self.CLASSES) for width in (64, 128))
        self.register_buffer("bins", torch.arange(self.BINS, dtype=torch.float32).view(1, self.BINS, 1, 1))

    @staticmethod
    def _head(width: int, cout: int) -> nn.Sequential:
        return nn.Sequential(_convolution(width, 64), nn.Conv2d(64, cout, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x))
        pooled = [self.reduce(self.coarse(fine))]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        coarse = self.widen(torch.cat(pooled, 1))
        maps = self.merge(torch.cat((self.up(coarse), fine), 1)), coarse
        sides = torch.cat([head(each).flatten(2) for head, each in zip(self.boxes, maps, strict=True)], 2)
        scores = torch.cat([head(each).flatten(2) for head, each in zip(self.classes, maps, strict=True)], 2)
        batch, _, places = sides.shape
        shares = sides.view(batch, 4, self.BINS, places).transpose(2, 1).softmax(1)
        return torch.cat(((shares * self.bins).sum(1), scores.sigmoid()), 1)


def detector() -> Made:
    """A one-stage detector with resizing, pyramids and heads, up to the boxes."""
    return _Detector(), image(256)


class _Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(2000, 96)
        self.lstm = nn.LSTM(96, 128, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(256, 24)

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.words(ids))
        return F.log_softmax(self.tags(hidden), -1)


def tagger() -> Made:
    """A tagger of words: two bidirectional LSTM layers."""
    return _Tagger(), {"ids": tokens(32, 2000)["input_ids"]}


class _Double(nn.Sequential):
    def __init__(self, cin: int, cout: int) -> None:
        layers: list[nn.Module] = []
        for width in (cin, cout):
            layers += [nn.Conv2d(width, cout, 3, padding=1), nn.GroupNorm(8, cout), nn.ReLU()]
        super().__init__(*layers)


class _UNet(nn.Module):
    """Down, across and up again (Ronneberger et al.), with group norms (Wu and He)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList((_Double(3, 16), _Double(16, 32), _Double(32, 64)))
        self.up = nn.ModuleList((nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)))
        self.across = nn.ModuleList((_Double(64, 32), _Double(32, 16)))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.down[0](x)]
        for block in self.down[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, across in zip(self.up, self.across, strict=True):
            x = across(torch.cat((up(x), levels.pop()), 1))
        answer: Tensor = self.last(x)
        return F.interpolate(answer, scale_factor=2.0, mode="bilinear", align_corners=False)


def unet() -> Made:
    """Segmentation with transposed convolutions, group norms and a bilinear resize."""
    return _UNet(), image(128)


CORPUS: Mapping[str, tuple[Callable[[], Made], Exporter]] = {
    "resnet": (resnet, "torchscript"),
    "mobilenet.dynamo": (mobilenet, "dynamo"),
    "shufflenet": (shufflenet, "torchscript"),
    "densenet.dynamo": (densenet, "dynamo"),
    "convnext": (convnext, "torchscript"),
    "vit": (vit, "torchscript"),
    "swin.dynamo": (swin, "dynamo"),
    "decoder.dynamo": (decoder, "dynamo"),
    "encoder": (encoder, "torchscript"),
    "detector": (detector, "torchscript"),
    "tagger": (tagger, "torchscript"),
    "unet.dynamo": (unet, "dynamo"),
}
"""File to what is exported, and by which exporter."""


def exported(made: Made, exporter: Exporter) -> onnx.ModelProto:
    """The model as ``exporter`` writes it, less its notes for debugging."""
    module, inputs = as_trained(made[0]).eval(), made[1]
    names, values = list(inputs), tuple(inputs.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            program = torch.onnx.export(
                module, values, input_names=names, opset_version=OPSET[exporter], dynamo=True, verbose=False
            )
            model: Any = program.model_proto
        else:
            target = io.BytesIO()
            torch.onnx.export(module, values, target, input_names=names, opset_version=OPSET[exporter], dynamo=False)
            model = onnx.load_from_string(target.getvalue())
    without_notes(model)
    return model


def as_trained(module: nn.Module) -> nn.Module:
    """The module with vectors that differ from one another: exporters share those that are equal, as all are before
    training, and runtimes fuse a shared bias otherwise."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return module


def without_notes(model: onnx.ModelProto) -> None:
    """Drop the doc strings and metadata that exporters leave for whoever debugs them: lines of source, paths."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output,
                  *model.graph.value_info, *model.graph.initializer, *model.functions):  # fmt: skip
        owner.ClearField("doc_string")
        owner.ClearField("metadata_props")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CORPUS)}; all where left out")
    asked = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    importable()
    for name in asked.names or CORPUS:
        build, exporter = CORPUS[name]
        torch.manual_seed(0)
        model = exported(build(), exporter)
        forget_weights(model, KEPT_BYTES)
        path: Path = asked.folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        print(f"{name}: {len(model.graph.node)} nodes, {path.stat().st_size / 1e3:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
