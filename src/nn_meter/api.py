"""The Python calls that predict."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from nn_meter import frontends, settings
from nn_meter.errors import DownloadError, GraphError, InputError, ModelError, NnMeterError, PredictorError
from nn_meter.frontends import nnmeter_ir
from nn_meter.frontends.sources import spelled
from nn_meter.ir import Graph, uncollected
from nn_meter.ir.size import model_size
from nn_meter.kernels import terms
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.schema import SCHEMA
from nn_meter.predictors import catalogue, onnx_1
from nn_meter.predictors.bundle import Bundle, pack, unpack
from nn_meter.predictors.nnmeter_columns import SCHEMAS
from nn_meter.predictors.prediction import Prediction
from nn_meter.progress import Progress
from nn_meter.storage import legible

if TYPE_CHECKING:
    from nn_meter.spreading import Executor

P = ParamSpec("P")
R = TypeVar("R")

InputShape = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""One shape, one per input, or shapes by the inputs' names."""

# compared by identity: a file keeps its own shapes unless a caller states some
_NO_SHAPE: Final = (1, 3, 224, 224)


def list_latency_predictors() -> list[dict[str, Any]]:
    """Every predictor that can be loaded, with nn-Meter's keys.

    ``name``, ``version`` (a float where it is a number, as nn-Meter has it), ``category``,
    ``kernel_predictors``, and ``download`` (its address) or ``package_location`` (its folder or file).
    """
    return [
        {
            "name": each.name,
            "version": version_number(each.version),
            "category": each.category,
            "kernel_predictors": list(each.kernel_predictors),
            "download" if each.origin == "published" else "package_location": each.location,
        }
        for each in catalogue.list_predictors()
    ]


def load_latency_predictor(
    predictor_name: str | Path | None = None,
    predictor_version: float | str | None = None,
    *,
    progress: Progress | None = None,
) -> Predictor:
    """The predictor of that name, in any case of letters; the latest version where none is given.

    A path, of a bundle's folder or zip, does for a name. Without either the default one answers:
    ``NN_METER_PREDICTOR``, else what ``nn-meter use`` chose, else the one that is shipped. A published predictor is
    fetched at first use; ``progress`` hears of bytes.

    Raises:
        UnknownPredictorError: no such name or version; near names are suggested.
        DownloadError: it cannot be fetched.
        PredictorError, RuleError: its files cannot be used.
        StorageError: the data folder cannot be written.
    """
    return Predictor(catalogue.load_predictor(predictor_name or None, predictor_version, progress=progress))


class Predictor:
    """Answers for one runtime on one device.

    Args:
        bundle: kernel predictors, fusion rules and what is known about them.

    Raises:
        PredictorError: a schema of columns that this version does not know.
        RuleError: fusion rules that cannot be used.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._terms = _terms(bundle)

    def __repr__(self) -> str:
        return f"Predictor({self.bundle.name!r}, version={self.bundle.version!r})"

    def __reduce__(self) -> tuple[Callable[[bytes, str], Predictor], tuple[bytes, str]]:
        return _unpacked, (self._packed, self.bundle.name)

    @cached_property
    def _packed(self) -> bytes:
        return pack(self.bundle)

    def predict(
        self,
        model: Any,
        model_type: str | None = None,
        input_shape: InputShape = _NO_SHAPE,
        apply_nni: bool = False,
        **options: Any,
    ) -> float:
        """Milliseconds of one inference.

        Args:
            model: a path, an object (``torch.nn.Module``, ``onnx.ModelProto``, nn-Meter's dictionary, a
                ``Graph``) or the name of a model in a zoo.
            model_type: ``"onnx"``, ``"pb"``, ``"torch"``, ``"nnmeter-ir"``, ``"tflite"``, ``"torchvision"``,
                ``"timm"`` or ``"hf"``; found out from the model if left out.
            input_shape: one shape, one per input, or shapes by name; ``input_shapes`` says the same. A file keeps its
                own unless it is given.
            apply_nni: accepted for nn-Meter's sake and warned about: NNI is archived.
            options: passed to the front end, as ``seq_len``, ``past``, ``batch_size``; of an ONNX model
                ``input_values`` and ``counts`` say what its data decides.

        Raises:
            ModelError: the model cannot be read, or breaks its format.
            MissingDependencyError: reading it needs a package that is not installed.
        """
        with uncollected(), fitting(_is_ir(model, model_type)):
            # what is read is gone before the collector is back, which would look through it
            return self._terms.latencies_ms(
                [self._subject(model, model_type, _stated(input_shape), apply_nni, options)]
            )[0]

    def predict_many(
        self,
        models: Iterable[Any],
        model_type: str | None = None,
        input_shape: InputShape = _NO_SHAPE,
        *,
        workers: int = 1,
        executor: Executor | None = None,
        **options: Any,
    ) -> list[float | NnMeterError]:
        """Milliseconds of one inference of each, in their order; in the place of a model that fails stands the error.

        Kernels that models share are computed once.

        Args:
            models: As ``predict`` takes them, of any kinds.
            model_type, input_shape, options: Of all of them, as in ``predict``.
            workers: Processes to share the work among. They are forked on Linux, and have the models as they are here.
            executor: What takes the work instead: anything with the ``submit`` of ``concurrent.futures``, or a
                ``nn_meter.spreading.RayExecutor``; ``workers`` is then about how many tasks it does at a time.

        Raises:
            InputError: fewer workers than one.
        """
        from nn_meter.spreading import spread

        return spread(partial(_answers, self, model_type, _stated(input_shape), options), models, workers, executor)

    def explain(
        self,
        model: Any,
        model_type: str | None = None,
        input_shape: InputShape = _NO_SHAPE,
        apply_nni: bool = False,
        **options: Any,
    ) -> Prediction:
        """The same answer with its kernels, what each rests on, and why neighbours did not fuse."""
        with uncollected():
            subject = self._subject(model, model_type, _stated(input_shape), apply_nni, options)
            with fitting(_is_ir(model, model_type)):
                found = self._terms.explain(subject, _title(model, subject))
            if not isinstance(subject, Graph):
                return found
            inputs = tuple(subject.tensors[name] for name in subject.inputs)
            past, source = options.get("past"), spelled(model, _kind(model, model_type))
            size = model_size(subject)
            return replace(found, past=past, assumed=subject.assumed, inputs=inputs, size=size, source=source)

    def _subject(
        self,
        model: Any,
        model_type: str | None,
        input_shape: InputShape | None,
        apply_nni: bool,
        options: Mapping[str, Any],
    ) -> Graph | dict[str, Any]:
        if isinstance(model, Graph):
            return model
        if self._terms.takes_ir and _is_ir(model, model_type):
            # a dictionary is taken as it is, since checking one costs more than predicting it
            return model if isinstance(model, dict) and model else nnmeter_ir.load(model)
        return _graph(model, model_type, input_shape, apply_nni, options)


nnMeterPredictor = Predictor  # noqa: N816  nn-Meter's name


@lru_cache(maxsize=4)
def _unpacked(packed: bytes, name: str) -> Predictor:
    """Remembered, so that the pieces of work that a process gets share what was computed."""
    return Predictor(unpack(packed, name))


def _answers(
    predictor: Predictor,
    model_type: str | None,
    input_shape: InputShape | None,
    options: Mapping[str, Any],
    models: Sequence[Any],
) -> list[float | NnMeterError]:
    latencies_ms = predictor._terms.latencies_ms
    found: list[float | NnMeterError]
    with uncollected():
        subjects = [_caught(predictor._subject, model, model_type, input_shape, False, options) for model in models]
        good = [each for each in subjects if not isinstance(each, NnMeterError)]
        try:
            found = [*latencies_ms(good)]
        except Exception:  # of one of them
            found = [_caught(lambda each: latencies_ms([each])[0], each) for each in good]
    answers = iter(found)
    return [each if isinstance(each, NnMeterError) else next(answers) for each in subjects]


def _caught(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | NnMeterError:
    """What ``call`` gives, or its error; one that is none of nn-Meter's becomes one, which crosses processes."""
    try:
        return call(*args, **kwargs)
    except NnMeterError as error:
        return error
    except Exception as error:
        found = ModelError(f"predicting this model raised {type(error).__name__}: {error}")
        found.__cause__ = error
        return found


class _NnMeterTerms:
    """A bundle in nn-Meter's terms: it answers for nn-Meter's dictionaries."""

    takes_ir = True

    def __init__(self, bundle: Bundle) -> None:
        from nn_meter.predictors.nnmeter import NnMeterEngine

        self._rules = read_rules(bundle.rules, f"fusion rules of {bundle.name}")
        self._engine = NnMeterEngine(bundle, self._rules)

    def latencies_ms(self, subjects: Sequence[Graph | dict[str, Any]]) -> list[float]:
        irs = [nnmeter_ir.write(each) if isinstance(each, Graph) else each for each in subjects]
        try:
            for ir in irs:
                for node in ir.values():
                    _SHAPES(node["attr"])  # a kernel without shapes would count nothing
            return self._engine.latencies_ms(irs)
        except _FORMAT_ERRORS as error:
            raise _said(irs, error) from error

    def explain(self, subject: Graph | dict[str, Any], title: str) -> Prediction:
        if isinstance(subject, Graph):
            ir, notes = nnmeter_ir.write(subject), subject.notes
            free = {
                n.name: n.op_type
                for n in subject.nodes
                if all(subject.tensors[o].const for o in n.outputs if o)
            }
        else:
            ir, notes, free = nnmeter_ir.load(subject), (), {}
        try:
            return self._engine.explain(ir, title, (*notes, *self._rules.warnings), free)
        except _FORMAT_ERRORS as error:
            raise _said([ir], error) from error


class _GraphTerms:
    """A bundle in this package's terms: it answers for graphs."""

    takes_ir = False

    def __init__(self, bundle: Bundle, engine: str) -> None:
        module, _, name = engine.partition(":")
        self._engine: Any = getattr(import_module(module), name)(bundle)

    def latencies_ms(self, subjects: Sequence[Graph | dict[str, Any]]) -> list[float]:
        answers: list[float] = self._engine.latencies_ms([_as_graph(each) for each in subjects])
        return answers

    def explain(self, subject: Graph | dict[str, Any], title: str) -> Prediction:
        answer: Prediction = self._engine.explain(_as_graph(subject))
        return replace(answer, model=title)


ENGINES: Mapping[str, Callable[[Bundle], _NnMeterTerms | _GraphTerms]] = MappingProxyType(
    {
        **dict.fromkeys(SCHEMAS, _NnMeterTerms),
        **dict.fromkeys(
            (onnx_1.SCHEMA, SCHEMA), partial(_GraphTerms, engine="nn_meter.predictors.runtime:GraphEngine")
        ),
        terms.SCHEMA: partial(_GraphTerms, engine="nn_meter.predictors.sums:SumsEngine"),
    }
)
"""Schema to what answers with bundles of it."""


_SHAPES = itemgetter("input_shape", "output_shape")
_FORMAT_ERRORS = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)


@contextmanager
def fitting(ir: bool) -> Iterator[None]:
    """Around what predicts: of nn-Meter's files nothing says that nodes have the inputs and dimensions that their
    operators work on.

    Raises:
        GraphError: in place of what fails of a graph that came from such a file (``ir``).
    """
    try:
        yield
    except _FORMAT_ERRORS as error:
        if not ir:
            raise
        raise GraphError(
            f"nn-Meter IR: a node has not the inputs or dimensions that its operator works on ({type(error).__name__}: "
            f"{legible(str(error))}); export the model to ONNX"
        ) from error


def _terms(bundle: Bundle) -> _NnMeterTerms | _GraphTerms:
    if bundle.schema not in ENGINES:
        raise PredictorError(
            f"{bundle.name}: its columns follow the schema {bundle.schema!r}, which this nn-meter does not know; "
            "upgrade with: pip install -U nn-meter"
        )
    return ENGINES[bundle.schema](bundle)


def _said(irs: Iterable[dict[str, Any]], error: Exception) -> ModelError:
    """Which of the dictionaries breaks the format, and where."""
    try:
        for ir in irs:
            nnmeter_ir.load(ir)
    except ModelError as found:
        return found
    return GraphError(f"nn-Meter IR: its entries do not fit together: {type(error).__name__}: {error}")


def model_file_to_graph(
    filename: str | Path,
    model_type: str | None = None,
    input_shape: InputShape = _NO_SHAPE,
    apply_nni: bool = False,
) -> dict[str, Any]:
    """nn-Meter's dictionary of the model in a file, or of the zoo model of that name for ``"torch"``.

    Arguments and errors as in :meth:`Predictor.predict`.
    """
    return model_to_graph(filename, model_type, input_shape, apply_nni)


def model_to_graph(
    model: Any,
    model_type: str | None = None,
    input_shape: InputShape = _NO_SHAPE,
    apply_nni: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """nn-Meter's dictionary of a model. Arguments and errors as in :meth:`Predictor.predict`."""
    if _is_ir(model, model_type):
        return nnmeter_ir.load(model)
    return nnmeter_ir.write(_graph(model, model_type, _stated(input_shape), apply_nni, options))


def _is_ir(model: Any, model_type: str | None) -> bool:
    return model_type == "nnmeter-ir" or (model_type is None and nnmeter_ir.sniff(model))


def _graph(
    model: Any,
    model_type: str | None,
    input_shape: InputShape | None,
    apply_nni: bool,
    options: Mapping[str, Any],
) -> Graph:
    if isinstance(model, Graph):
        return model
    if apply_nni:
        warnings.warn(
            "apply_nni has no effect: NNI is archived, so the ordinary reader is used",
            stacklevel=4,
        )
    kind = _kind(model, model_type)
    given: Any = input_shape
    if "input_shapes" in options:  # as front ends and their errors call it
        if given is not None:
            raise InputError("both input_shape and input_shapes are given; state one of them")
        options = dict(options)
        given = options.pop("input_shapes")
    return frontends.read(model, kind, input_shapes=given, **options)


def _stated(input_shape: InputShape) -> InputShape | None:
    return None if input_shape is _NO_SHAPE else input_shape


def _kind(model: Any, model_type: str | None) -> str | None:
    if model_type == "nni-ir":
        raise InputError(
            "model type 'nni-ir': NNI is archived and its IR is no longer read; export the model to ONNX"
        )
    if model_type == "torch" and isinstance(model, str) and not os.path.exists(model):
        return "torchvision"  # nn-Meter takes a text for a name in that zoo
    return model_type


def _as_graph(subject: Graph | dict[str, Any]) -> Graph:
    return subject if isinstance(subject, Graph) else nnmeter_ir.read(subject)


def _title(model: Any, subject: Graph | dict[str, Any]) -> str:
    if isinstance(model, str | os.PathLike):
        return os.path.basename(os.fspath(model).rstrip("/"))
    return subject.name if isinstance(subject, Graph) else "nn-Meter IR"


def version_number(version: str) -> float | str:
    """A version as nn-Meter has it: a float where it is a number."""
    try:
        return float(version)
    except ValueError:
        return version


def latency_metrics(
    y_pred: Sequence[float], y_true: Sequence[float]
) -> tuple[float, float, float, float, float, float]:
    """nn-Meter's figures of merit: RMSE, RMSPE in %, RMSE / mean, and the share within 5, 10 and 15 %.

    Raises:
        InputError: no values, lengths that differ, or a true value of 0.
    """
    pairs = list(zip(map(float, y_pred), map(float, y_true), strict=False))
    if not pairs or len(pairs) != len(y_true) or len(y_pred) != len(y_true):
        raise InputError(
            f"{len(y_pred)} predicted and {len(y_true)} true latencies; give as many of each, at least one"
        )
    if not all(true for _, true in pairs):
        raise InputError("a true latency is 0, so that it has no relative error")
    count = len(pairs)
    relative = [abs(true - pred) / abs(true) for pred, true in pairs]
    rmse = math.sqrt(sum((true - pred) ** 2 for pred, true in pairs) / count)
    rmspe = math.sqrt(sum(error**2 for error in relative) / count) * 100
    within = [sum(error <= limit for error in relative) / count for limit in (0.05, 0.10, 0.15)]
    return rmse, rmspe, rmse / (sum(true for _, true in pairs) / count), within[0], within[1], within[2]


def bench_dataset(url: str | None = None, data_folder: str | Path | None = None) -> list[str]:
    """Paths of nn-Meter's published measurements, one ``.jsonl`` per family of models, sorted.

    They are fetched at first use: from ``url``, else from ``datasets.zip`` at the mirror; into
    ``data_folder``, else into the user's data folder.

    Raises:
        DownloadError: the file cannot be fetched, or is no zip.
        StorageError: the folder cannot be written.
    """
    folder = Path(data_folder) if data_folder else settings.data_folder() / "dataset"
    found = sorted(folder.glob("*.jsonl"))
    if not found:
        _fetch_dataset(url or f"{settings.mirror()}/datasets.zip", folder)
        found = sorted(folder.glob("*.jsonl"))
    return [str(path) for path in found]


def _fetch_dataset(url: str, folder: Path) -> None:
    from tempfile import TemporaryDirectory

    from nn_meter import storage

    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = TemporaryDirectory(dir=folder)
    except OSError as error:
        raise storage.unwritable(folder, error) from error
    with work:
        packed = Path(work.name) / "datasets.zip"
        storage.download(url, packed, "try again, or set NN_METER_MIRROR to an address that holds the same file")
        with storage.Archive(packed, url, DownloadError, "the mirror may serve something else") as archive:
            # only the files' own names are used, so that no entry leaves the folder
            names = {Path(entry).name: entry for entry in archive.names if entry.endswith(".jsonl")}
            for name, entry in names.items():
                storage.write(folder / name, archive.read(entry))
