"""Many models at once: answers and failures side by side, here, in processes, and wherever tasks are taken."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nn_meter import frontends, measure_many, model_to_graph, spreading
from nn_meter.api import Predictor
from nn_meter.errors import GraphError, InputError, MissingDependencyError, ModelError, NnMeterError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.measuring import Measurement
from nn_meter.predictors.bundle import Bundle
from nn_meter.spreading import PIECE, RayExecutor

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
TOTAL_MS = 39.75

Call = Callable[..., Any]


@pytest.fixture
def predictor(tiny: Bundle) -> Predictor:
    return Predictor(tiny)


def convolutions(count: int) -> Graph:
    """A network that the predictor of these tests gives 2 ms for each of its convolutions."""
    b = GraphBuilder(f"convolutions_{count}")
    x = b.input((1, 4, 8, 8))
    for _ in range(count):
        x = b.op("Conv", x, b.weight((4, 4, 1, 1)))
    return b.graph(x)


class Fatal:
    """A candidate that takes down the process that reads it."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def read(self) -> bytes:
        return b""

    def seek(self, place: int) -> None:
        pass

    def tell(self) -> int:
        assert os.getpid() != self.parent
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("stays where it is")


class Rude:
    """A model whose kind cannot even be asked."""

    @property
    def SerializeToString(self) -> Any:  # noqa: N802  protobuf's name
        raise RuntimeError("no")


MIXED = [EXAMPLE, "absent.onnx", str(EXAMPLE), convolutions(3), b"no model", frontends.read(EXAMPLE)]


def assert_mixed(answers: list[float | NnMeterError]) -> None:
    assert [answers[i] for i in (0, 2, 3, 5)] == [TOTAL_MS, TOTAL_MS, 6.0, TOTAL_MS]
    assert isinstance(answers[1], ModelError)
    assert "absent.onnx: no such file" in str(answers[1])
    assert isinstance(answers[4], ModelError)


def test_one_bad_model_loses_nothing(predictor: Predictor) -> None:
    assert_mixed(predictor.predict_many(MIXED))


def test_processes_answer_the_same(predictor: Predictor) -> None:
    assert_mixed(predictor.predict_many(MIXED, workers=2))


def test_an_error_that_is_none_of_ours_costs_one_model(predictor: Predictor) -> None:
    first, rude = predictor.predict_many([EXAMPLE, Rude()], "onnx")
    assert first == TOTAL_MS
    assert isinstance(rude, ModelError)
    assert "raised RuntimeError: no" in str(rude)


def test_a_dictionary_that_only_fails_when_it_is_summed_up(predictor: Predictor) -> None:
    attr = {"type": "Relu", "attr": {}, "input_shape": [[1, 8]], "output_shape": [[1, 8]]}
    cycle = {"a": {"attr": attr, "inbounds": ["b"]}, "b": {"attr": attr, "inbounds": ["a"]}}
    before, bad, after = predictor.predict_many([model_to_graph(EXAMPLE), cycle, EXAMPLE])
    assert (before, after) == (TOTAL_MS, TOTAL_MS)
    assert isinstance(bad, GraphError)


def test_models_are_taken_in_pieces_from_what_yields_them(predictor: Predictor) -> None:
    graph = convolutions(1)
    assert predictor.predict_many(graph for _ in range(PIECE + 1)) == [2.0] * (PIECE + 1)
    assert predictor.predict_many([]) == []
    assert predictor.predict_many([], workers=2) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_that_dies_costs_one_model(predictor: Predictor) -> None:
    models = [*[convolutions(n) for n in range(1, 12)], Fatal(), *[convolutions(n) for n in range(1, 12)]]
    answers = predictor.predict_many(models, workers=2)
    times = [2.0 * n for n in range(1, 12)]
    assert answers[:11] == times == answers[12:]
    assert isinstance(answers[11], ModelError)
    assert "the process that predicted this model died" in str(answers[11])


def test_a_model_that_cannot_travel_costs_one_answer(predictor: Predictor) -> None:
    answers = predictor.predict_many([EXAMPLE, Unpicklable(), EXAMPLE], executor=Elsewhere())
    assert answers[::2] == [TOTAL_MS, TOTAL_MS]
    assert isinstance(answers[1], ModelError)
    assert "TypeError: stays where it is" in str(answers[1])


def test_where_processes_start_anew_they_answer_the_same(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "FORKS", False)
    *answers, lost = predictor.predict_many([*MIXED, Unpicklable()], workers=2)
    assert_mixed(answers)
    assert isinstance(lost, ModelError)
    assert "stays where it is" in str(lost)


def test_no_workers_are_refused(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="workers=0: give at least one"):
        predictor.predict_many([EXAMPLE], workers=0)


class Elsewhere:
    """An executor as another machine is one: all that goes there and comes back is pickled. ``lost`` tasks raise."""

    def __init__(self, *lost: int) -> None:
        self.lost = set(lost)
        self.tasks = 0

    def submit(self, task: Call, /, *args: Any) -> Future[Any]:
        self.tasks += 1
        future: Future[Any] = Future()
        if self.tasks in self.lost:
            future.set_exception(ConnectionError("the machine went away"))
            return future
        try:
            there, given = pickle.loads(pickle.dumps((task, args)))
            future.set_result(pickle.loads(pickle.dumps(there(*given))))
        except Exception as error:
            future.set_exception(error)
        return future


def test_any_executor_takes_the_work(predictor: Predictor) -> None:
    elsewhere = Elsewhere()
    assert_mixed(predictor.predict_many(MIXED, executor=elsewhere, workers=3))
    assert elsewhere.tasks == len(MIXED)
    with ThreadPoolExecutor(2) as threads:
        assert_mixed(predictor.predict_many(MIXED, executor=threads))


def test_a_lost_task_is_done_again(predictor: Predictor) -> None:
    graphs = [convolutions(n) for n in range(1, 9)]
    assert predictor.predict_many(graphs, executor=Elsewhere(2)) == [2.0 * n for n in range(1, 9)]


def test_an_executor_that_takes_nothing_fails_every_model(predictor: Predictor) -> None:
    class Closed:
        def submit(self, task: Call, /, *args: Any) -> Future[Any]:
            raise BrokenExecutor("closed")

    answers = predictor.predict_many([EXAMPLE, EXAMPLE], executor=Closed())
    assert all(isinstance(each, ModelError) for each in answers)


def test_a_shape_that_is_given_goes_along(predictor: Predictor) -> None:
    for options in ({}, {"executor": Elsewhere()}):
        (answer,) = predictor.predict_many([EXAMPLE], input_shape=(1, 4, 9, 9), **options)
        assert isinstance(answer, GraphError)


def test_predictors_travel_and_stay_the_same(predictor: Predictor, tiny: Bundle) -> None:
    packed = pickle.dumps(predictor)
    there = pickle.loads(packed)
    assert there is pickle.loads(packed)
    assert there.predict(EXAMPLE) == TOTAL_MS
    assert replace(there.bundle, kinds={}) == replace(tiny, kinds={})


def test_graphs_travel() -> None:
    graph = frontends.read(EXAMPLE)
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_the_error_of_a_missing_package_travels() -> None:
    error = MissingDependencyError("ray", "ray", "RayExecutor")
    there = pickle.loads(pickle.dumps(error))
    assert (str(there), there.extra) == (str(error), "ray")


class FakeRay(ModuleType):
    """The few calls of Ray that are used, without a cluster; remote functions pickle what they get."""

    def put(self, given: Any) -> Any:
        self.puts = getattr(self, "puts", 0) + 1
        return given

    def remote(self, function: Call) -> Any:
        asked: dict[str, Any] = {}

        class Remote:
            def options(self, **options: Any) -> Remote:
                asked.update(options)
                return self

            def remote(self, *args: Any) -> Any:
                return type("Ref", (), {"future": lambda ref: Elsewhere().submit(function, *args)})()

        self.asked = asked
        return Remote()


def test_ray_takes_the_work(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay("ray")
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert_mixed(predictor.predict_many(MIXED, executor=RayExecutor(num_cpus=2)))
    assert (ray.asked, ray.puts) == ({"num_cpus": 2}, 1), "the predictor travels once"


def test_without_ray_its_executor_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nn-meter\[ray\]'"):
        RayExecutor()


@pytest.mark.heavy
def test_a_real_ray_takes_the_work(predictor: Predictor) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, resources={"board": 2}, include_dashboard=False, log_to_driver=False)
    boards = RayExecutor(num_cpus=0, resources={"board": 1})
    try:
        assert_mixed(predictor.predict_many(MIXED, executor=RayExecutor()))
        first, absent, last = measure_many([EXAMPLE, "no_such.onnx", EXAMPLE], "replay", executor=boards, seconds=0.1)
    finally:
        ray.shutdown()
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    assert isinstance(absent, NnMeterError)
    assert "no_such.onnx" in str(absent)
