"""Seconds from a PyTorch module to its graph, beside the other ways to get one; peak memory of a 7B model.

python bench/read_torch.py [--ways] [--memory hf:llama-7b]
"""

from __future__ import annotations

import argparse
import io
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

from nn_meter.frontends import find, timm, torchvision
from nn_meter.frontends import torch as pytorch

MODELS = (
    *("torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2"),
    *("torchvision:mobilenet_v3_large", "torchvision:inception_v3", "torchvision:densenet121"),
    "torchvision:swin_t",
    *("timm:efficientnet_b0", "timm:vit_small_patch16_224", "timm:convnext_tiny"),
)
WAYS_MODELS = ("torchvision:resnet50", "timm:vit_small_patch16_224")


def best_s(run: Callable[[], Any], repeats: int = 3) -> float:
    """Least seconds of ``repeats`` runs after a first."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def module_of(title: str) -> tuple[Any, tuple[int, ...]]:
    """The module of a prefixed name, and its input shape."""
    kind, _, name = title.partition(":")
    front: Any = timm if kind == "timm" else torchvision
    module, shape = front.build(name)
    return module.eval(), shape


def ways(title: str) -> dict[str, float]:
    """Seconds of each way from module to operators with shapes."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    module, shape = module_of(title)
    image = torch.empty(shape, device="meta")
    real = module.to_empty(device="cpu")

    def fx() -> None:
        traced = torch.fx.symbolic_trace(real)
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensorProp(traced, mode).propagate(torch.empty(shape))

    def fake() -> None:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with torch.no_grad():
            make_fx(real, tracing_mode="fake")(mode.from_tensor(torch.empty(shape)))

    def script() -> None:
        torch.onnx.export(real, (torch.empty(shape),), io.BytesIO(), dynamo=False)

    meta, _ = module_of(title)
    runs: dict[str, Callable[[], Any]] = {
        "nn_meter": lambda: pytorch.read(meta, input_shapes=shape),
        "torch.export": lambda: torch.export.export(meta, (image,), strict=False),
        "fx + fake shapes": fx,
        "make_fx, fake": fake,
        "onnx.export, TorchScript": script,
    }
    found = {}
    for name, run in runs.items():
        try:
            found[name] = best_s(run, repeats=1)
        except Exception as error:
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", action="store_true", help="compare with the other ways")
    parser.add_argument("--memory", metavar="NAME", help="only the peak memory of reading NAME")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory:
        started = time.perf_counter()
        graph: Any = find(options.memory).read(options.memory)
        seconds = time.perf_counter() - started
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        weights = sum(tensor.size for tensor in graph.tensors.values() if tensor.const)
        print(f"{options.memory}: {weights / 1e9:.2f}e9 constants, {len(graph.nodes)} nodes")
        print(f"{seconds:.1f} s with imports, peak {peak_mib:.0f} MiB")
        return
    if options.ways:
        for title in WAYS_MODELS:
            figures = ways(title)
            own = figures["nn_meter"]
            print(title, ", ".join(f"{name} {s:.3f} s ({s / own:.1f}x)" for name, s in figures.items()))
        return
    for title in MODELS:
        module, shape = module_of(title)
        graph = pytorch.read(module, input_shapes=shape)
        seconds = best_s(lambda module=module, shape=shape: pytorch.read(module, input_shapes=shape))  # type: ignore[misc]
        print(f"{title:32} {seconds:.3f} s  {len(graph.nodes)} nodes")


if __name__ == "__main__":
    main()
