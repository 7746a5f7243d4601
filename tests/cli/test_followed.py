"""What the commands' errors advise works as it stands there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
from journals import done
from onnx import TensorProto, helper
from waiting import until

from nn_meter import building
from nn_meter.measuring import Journal
from nn_meter.settings import data_folder

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "small_net.onnx")


class Advice(NamedTuple):
    """A command that is refused, what it says, and commands that do what that advises, with their exit codes."""

    refused: str
    words: str
    followed: tuple[tuple[str, int], ...]


ADVICES = [
    Advice(
        "check NET",
        "give --max 20ms, --baseline FILE or --strict, or --save a baseline",
        (
            ("check NET --max 20ms", 0),
            ("check NET --strict", 0),
            ("check NET --save base.json", 0),
            ("check NET --baseline base.json", 0),
        ),
    ),
    Advice(
        "check NET --max soon",
        "write it as 20ms, 800us or 1.5s",
        (("check NET --max 20ms", 0), ("check NET --max 800us", 0), ("check NET --max 1.5s", 0)),
    ),
    Advice("check NET --max 20ms --tolerance much", "write it as 5%", (("check NET --max 20ms --tolerance 5%", 0),)),
    Advice(
        "predict",
        "give a path, or see: nn-meter predict --help",
        (("predict NET", 0), ("predict --help", 0)),
    ),
    Advice("explain", "give a path, or see: nn-meter predict --help", (("explain NET", 0),)),
    Advice("get_ir", 'run "nn-meter get_ir --help"', (("get_ir --help", 0), ("get_ir --onnx NET -o ir.json", 0))),
    Advice(
        "predict --predictor none NET",
        "list them with: nn-meter --list-predictors",
        (("--list-predictors", 0),),
    ),
    Advice(
        "predict FREE --input-shape 4:8",
        "write it as 1,3,224,224 or input=1,3,224,224",
        (("predict FREE --input-shape 4,8", 0), ("predict FREE --input-shape x=4,8", 0)),
    ),
    Advice(
        "predict FREE --input-shape 4,8 --input-shape 4,8",
        "name each input once: input=1,3,224,224",
        (("predict FREE --input-shape x=4,8", 0),),
    ),
    Advice(
        "predict FREE --seq-len 8",
        "state the shapes of the inputs instead",
        (("predict FREE --input-shape x=4,8", 0),),
    ),
    Advice("predict SUM --input-value 2", "write it as NAME=1", (("predict SUM --input-value axes=1", 0),)),
    Advice(
        "predict SUM --input-value axes=last",
        "write values as 16000 or 1,2,3",
        (("predict SUM --input-value axes=1", 0),),
    ),
    Advice(
        "predict SUM --input-value axes=0,1",
        "give 1, separated by commas",
        (("predict SUM --input-value axes=1", 0),),
    ),
    Advice(
        "predict IR --input-shape 1,3,32,32",
        "nn-Meter IR states all its shapes; leave the input shape out",
        (("predict IR", 0),),
    ),
    Advice(
        "measure NET --backend replay --seconds 0",
        "give each model some time, as in --seconds 3",
        (("measure NET --backend replay --seconds 0.05", 0),),
    ),
    Advice(
        "measure NET --backend replays",
        "did you mean replay?",
        (("measure NET --backend replay --seconds 0.01", 0),),
    ),
    Advice(
        "evaluate NET --predictor tiny_cpu --backend replay --rounds 1",
        "take at least 2",
        (("evaluate NET --predictor tiny_cpu --backend replay --rounds 2", 0),),
    ),
    Advice(
        "evaluate NET --predictor tiny_cpu --backend replay --rounds 2 --budget long",
        "write it as 90s, 20m or 1h",
        (("evaluate NET --predictor tiny_cpu --backend replay --rounds 2 --budget 20m", 0),),
    ),
    Advice(
        "evaluate --predictor tiny_cpu --backend replay",
        "give files, or a folder of models",
        (("evaluate FOLDER --predictor tiny_cpu --backend replay --rounds 2", 0),),
    ),
    Advice(
        "fit --name l4",
        "name tables of measurements to fit, or the data sheet of a GPU (--sheet)",
        (("fit --name l4 --sheet SHEET", 0),),
    ),
    Advice(
        "adapt --measured MEASURED --known KNOWN --name mine",
        "say where to write the predicted latencies: --output predicted.csv",
        (("adapt --measured MEASURED --known KNOWN --name mine --output predicted.csv", 0),),
    ),
    Advice(
        "adapt --measured MEASURED --known KNOWN --name mine --output predicted.csv --suggest -5",
        "a number of models to name, 0 for none",
        (("adapt --measured MEASURED --known KNOWN --name mine --output predicted.csv --suggest 0", 0),),
    ),
]


def _models(folder: Path) -> dict[str, str]:
    value = helper.make_tensor_value_info
    free = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "free",
        [value("x", TensorProto.FLOAT, ("rows", "columns"))],
        [value("y", TensorProto.FLOAT, None)],
    )
    summed = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"])],
        "sum",
        [value("x", TensorProto.FLOAT, (4, 8)), value("axes", TensorProto.INT64, (1,))],
        [value("y", TensorProto.FLOAT, None)],
    )
    for graph in (free, summed):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{graph.name}.onnx")
    alone = folder / "alone"
    alone.mkdir()
    (alone / "net.onnx").symlink_to(EXAMPLE)
    node = {"type": "Relu", "attr": {}, "input_shape": [[1, 3, 32, 32]], "output_shape": [[1, 3, 32, 32]]}
    (folder / "ir.json").write_text(json.dumps({"relu": {"attr": node, "inbounds": [], "outbounds": []}}))
    (folder / "l4.yaml").write_text(
        "device: NVIDIA L4\npeak_tflops: 30.3\nbandwidth_gb_per_s: 300\nprocessors: 58\ncache_mb: 48\nsource: NVIDIA\n"
    )
    devices = [f"n{each},{each + 5},{3 * each + 9},{9 * each + 7}" for each in range(40)]
    (folder / "known.csv").write_text("\n".join(["architecture,phone,board,watch", *devices]))
    (folder / "mine.csv").write_text("\n".join(["model,latency_ms", *(f"n{each},{each + 4}" for each in range(12))]))
    files = {"FREE": "free.onnx", "SUM": "sum.onnx", "IR": "ir.json", "FOLDER": "alone", "SHEET": "l4.yaml"}
    files |= {"KNOWN": "known.csv", "MEASURED": "mine.csv"}
    return {"NET": EXAMPLE} | {name: str(folder / file) for name, file in files.items()}


@pytest.mark.parametrize("advice", ADVICES, ids=lambda advice: advice.refused)
def test_what_is_advised_works(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: Advice
) -> None:
    monkeypatch.chdir(tmp_path)
    models = _models(tmp_path)

    def asked(command: str) -> object:
        return run(*(models.get(word, word) for word in command.split()))

    refused = asked(advice.refused)
    assert refused.code == 2
    assert advice.words in refused.err
    for command, code in advice.followed:
        answer = asked(command)
        assert answer.code == code, answer.err
        assert not re.search("error", answer.err)


QUICK_BUILD = ("build", "--backend", "replay", "--name", "quick", "--kinds", "dwconv", "--rules", "rules.json")


def test_a_build_with_too_small_a_budget_goes_on_with_a_larger_one(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    Path("rules.json").write_text("{}")
    refused = run(*QUICK_BUILD, "--budget", "0.01s")
    assert refused.code == 2
    assert "are needed; give the build a larger budget, with --resume to go on with these" in refused.err
    again = run(*QUICK_BUILD, "--budget", "1h")
    assert again.code == 2
    assert "an earlier build left measurements; add --resume to go on with them, or remove the file" in again.err
    journal, budget_s, built = data_folder() / "builds" / "quick@1.0.sqlite", 2.0, refused
    while built.code:
        assert "give the build a larger budget" in built.err
        before = done(journal)
        with Journal(journal) as book:
            spent_s = sum(record.elapsed_s for record in building.measured(book)[0])
        budget_s = max(2 * budget_s, 4 * spent_s)
        built = run(*QUICK_BUILD, "--budget", f"{budget_s:.3f}s", "--resume")
        assert done(journal) > before  # it went on, and took nothing twice
    assert "ask it: nn-meter predict --predictor quick MODEL" in built.out
    assert run("predict", "--predictor", "quick", EXAMPLE).code == 0
    (tmp_path / "home" / "builds" / "quick@1.0.sqlite").unlink()  # the other thing that was advised
    assert "too few to train on" in run(*QUICK_BUILD, "--budget", "0.01s").err


STOPPED = {
    "build": (
        [*QUICK_BUILD, "--budget", "1h"], "builds/quick@1.0.sqlite", ["--resume"],
        "stopped; what was measured is kept, and the same command with --resume goes on where it was",
    ),
    "evaluate": (
        ["evaluate", "models", "--predictor", "tiny_cpu", "--backend", "replay", "--rounds", "200",
         "--resume", "e.sqlite"], "../place/e.sqlite", [],
        "stopped; the same command goes on where it was",
    ),
    "detect-rules": (
        ["detect-rules", "--backend", "replay", "--budget", "1h"], "detections/replay.sqlite", ["--resume"],
        "stopped; the same command with --resume goes on where it was",
    ),
}  # fmt: skip
"""Command, its journal in the data folder, what is advised to add, and the advice."""


@pytest.fixture
def heard() -> Iterator[None]:
    """Commands hear of SIGINT: who is started behind an ``&`` ignores it, and so does all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.heavy
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("name", STOPPED)
def test_what_ctrl_c_advises_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., object], name: str
) -> None:
    pytest.importorskip("sklearn")
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    Path("rules.json").write_text("{}")
    Path("models").mkdir()
    for number in range(200):
        Path("models", f"net{number}.onnx").symlink_to(EXAMPLE)
    command, journal, more, advice = STOPPED[name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    kept = data_folder() / journal

    def interrupted(words: list[str]) -> None:
        """Once it has measured something."""
        line, before = [sys.executable, "-m", "nn_meter", *words], done(kept)
        with subprocess.Popen(
            line, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=_interruptible
        ) as process:
            until(lambda: process.poll() is not None or done(kept) > before)
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
        assert process.returncode == 130, said
        assert said.splitlines()[-1] == f"nn-meter: {advice}"

    interrupted(command)
    interrupted([*command, *more])


def _interruptible() -> None:
    """What runs in the background of a shell, as tests may, ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_what_a_server_advises_works(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = run("serve", "--port", taken.getsockname()[1])
    assert refused.code == 2
    assert "choose another --host or --port" in refused.err
    assert run("serve", "--port", 0).code == 0
    refused = run("serve", "--port", 0, "--workers", 0)
    assert refused.code == 2
    assert "--workers, --max-mb, --max-seconds and --max-memory-mb are more than 0" in refused.err
    assert run("serve", "--port", 0, "--workers", 1).code == 0
