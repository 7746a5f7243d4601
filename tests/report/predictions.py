"""Predictions made up for tests of the page: what they say can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

from nn_meter.ir import Tensor
from nn_meter.ir.size import ModelSize
from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig, Unfused
from nn_meter.predictors.prediction import KernelPrediction, Prediction

EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>\x1b[31m\u202e&lt;"
"""What a model's name may hold."""

FREE = KernelPrediction(Kernel("free", FreeConfig("Identity"), ("i",), "Identity", "nothing moves"), "free", 0.0)


def kernel(
    name: str, latency_ms: float, label: str = "Conv-Relu", kind: str = "conv", nodes: int = 2, **facts: object
) -> KernelPrediction:
    """A kernel of so many nodes in the module ``name``."""
    config = NnMeterConfig(((1, 56, 56, 64),), ((1, 56, 56, 128),), (3, 3), (1, 1))
    members = tuple(f"/{name}/{operator}" for operator in ("Conv", *(f"Relu_{n}" for n in range(nodes - 1))))
    interval_ms = (0.9 * latency_ms, 1.2 * latency_ms)
    given = KernelPrediction(Kernel(kind, config, members, label), "predicted", latency_ms, interval_ms, (), "compute")
    return replace(given, **facts)


def chain(kernels: tuple[KernelPrediction, ...], **facts: object) -> Prediction:
    """A network that is one chain with a shortcut over every second kernel."""
    ends = [(place, place + 1) for place in range(len(kernels) - 1)]
    ends += [(place, place + 2) for place in range(0, len(kernels) - 2, 2)]
    unfused = tuple(
        Unfused(kernels[a].kernel.nodes[-1], kernels[b].kernel.nodes[0], f"rule BF_{a % 3} says no", (a, b), 4096.0)
        for a, b in sorted(ends)
    )
    total_ms = sum(each.latency_ms for each in kernels)
    found = Prediction(
        "net.onnx", "some_cpu", "1.0", "a cpu", "median", total_ms, (*kernels, FREE), (0.9 * total_ms, 1.2 * total_ms),
        unfused, ("the batch of 'x' is unset and taken as 1",), "onnxruntime 1.32.0", 1, "float32",
        (Tensor("x", (1, 3, 224, 224)),), ModelSize(1_000_000, 2_000_000, 4_000_000, 5_000_000),
    )  # fmt: skip
    return replace(found, **facts)


def network(slower: float = 1.0, predictor: str = "some_cpu") -> Prediction:
    """Two stages of ten kernels, 1 to 20 ms; the third is extrapolated."""
    kernels = [
        kernel(f"stages.{n // 10}/stages.{n // 10}.conv{n % 10}", slower * (n + 1)) for n in range(20)
    ]
    notes = ("cin 4096 is outside the trained range 1..2048",)
    kernels[2] = replace(kernels[2], status="extrapolated", notes=notes, beyond=1.0)
    return chain(tuple(kernels), predictor=predictor)
