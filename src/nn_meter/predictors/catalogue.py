"""Which predictors there are, and where each one's bundle lies."""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nn_meter import limits, plugins, settings
from nn_meter.errors import BundleError, RegistrationError, UnknownPredictorError
from nn_meter.predictors.bundle import ERRORS, EVALUATED, MANIFEST, Bundle, load
from nn_meter.progress import Progress
from nn_meter.storage import Archive, exists, legible, parse_json, plain_name, read_bytes, shown, write

_log = logging.getLogger(__name__)

DEFAULT = "xeoncpu_onnxruntime132"
"""The predictor that answers where none is named or chosen."""

SHIPPED = Path(__file__).with_name("shipped")
INDEX = "index.json"
"""What an archive of several bundles holds beside their folders: a list of name, version, category, summary."""

Origin = Literal["shipped", "plugin", "published", "registered"]


@dataclass(frozen=True, slots=True)
class PredictorInfo:
    """A predictor that can be loaded. ``location`` is its bundle's path, or the address it is fetched from.

    ``replaced`` says, of one just registered, that another of that name and version made way for it. ``summary`` says
    device, runtime, precision, errors, source and date in a line.
    """

    name: str
    version: str
    category: str
    origin: Origin
    location: str
    kernel_predictors: tuple[str, ...]
    replaced: bool = False
    summary: str = ""


_VPU = (
    "conv-bn-relu", "dwconv-bn-relu", "fc", "hswish", "relu", "se",
    "addrelu", "maxpool", "avgpool", "bn", "bnrelu", "channelshuffle",
)  # fmt: skip
_GPU = (
    "conv-bn-relu", "dwconv-bn-relu", "hswish", "relu", "se", "maxpool", "avgpool", "bn", "bnrelu", "concat",
)  # fmt: skip
_CPU = (
    "conv-bn-relu", "dwconv-bn-relu", "fc", "global-avgpool", "hswish", "relu", "se", "split",
    "add", "addrelu", "maxpool", "avgpool", "bn", "bnrelu", "channelshuffle", "concat",
)  # fmt: skip
PUBLISHED: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("cortexA76cpu_tflite21", "1.0", "cpu", _CPU, "Pixel 4, Cortex-A76; TFLite 2.1"),
    ("adreno640gpu_tflite21", "1.0", "gpu", _GPU, "Mi 9, Adreno 640; TFLite 2.1"),
    ("adreno630gpu_tflite21", "1.0", "gpu", _GPU, "Pixel 3 XL, Adreno 630; TFLite 2.1"),
    ("myriadvpu_openvino2019r2", "1.0", "vpu", _VPU, "Neural Compute Stick 2, Myriad; OpenVINO 2019 R2"),
)
"""Name, version, category and kernels of what nn-Meter publishes; device and runtime, as its README says."""


def version_key(version: str) -> tuple[int, tuple[int, ...], str]:
    """Sorts versions as numbers, so that "1" and "1.0" are one; what is no number comes before, by text."""
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        return 0, (), version
    parts = [int(part) for part in version.split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return 1, tuple(parts), ""


def stored_path(folder: str, name: str, version: str) -> Path:
    """Where the data folder keeps the bundle of that name and version; ``folder`` says how it came there.

    Raises:
        RegistrationError: the name or version could lead out of the folder.
    """
    plain_name(name, "the predictor's name", RegistrationError)
    plain_name(version, "the predictor's version", RegistrationError)
    rank, numbers, text = version_key(version)
    return (
        settings.data_folder()
        / folder
        / f"{name.lower()}@{'.'.join(map(str, numbers)) if rank else text}.zip"
    )


def list_predictors() -> list[PredictorInfo]:
    """Every predictor that :func:`load_predictor` accepts; broken bundles are logged and left out."""
    return [*_shipped(), *_plugins(), *_published(), *registered()]


def _shipped() -> Iterator[PredictorInfo]:
    yield from _readable(SHIPPED.glob(f"*/{MANIFEST}"), "shipped", lambda manifest: manifest.parent)
    for archive in sorted(SHIPPED.glob("*.zip")):
        yield from _indexed(archive)


def _indexed(archive: Path) -> Iterator[PredictorInfo]:
    """What an archive's index says; no bundle of it is opened."""
    try:
        with Archive(archive, str(archive), BundleError) as opened:
            index = parse_json(opened.read(INDEX, limits.TEXT_BYTES), f"{archive}: {INDEX}", BundleError)
        for each in index:
            location = str(archive / each["name"])
            yield PredictorInfo(
                each["name"], each["version"], each["category"], "shipped", location, (), summary=each["summary"]
            )
    except (BundleError, KeyError, TypeError) as e:
        _log.warning("predictors left out: %s: its index cannot be read (%r)", archive, e)


def registered() -> Iterator[PredictorInfo]:
    """The predictors that the user registered."""
    return _readable((settings.data_folder() / "registered").glob("*@*.zip"), "registered", lambda path: path)


def _published() -> Iterator[PredictorInfo]:
    for name, version, category, kernels, facts in PUBLISHED:
        address = f"{settings.mirror()}/{name}.zip"
        yield PredictorInfo(name, version, category, "published", address, kernels, summary=facts)


def _plugins() -> Iterator[PredictorInfo]:
    for each in plugins.listed("predictor"):
        try:
            given = each.load()
            path = Path(given() if callable(given) else given)
        except Exception as e:  # another package's code; it must not take the list with it
            _log.warning("predictor %s of another package left out: %r", each.name, e)
            continue
        yield from _readable([path], "plugin", lambda path: path)


def _readable(
    found: Iterable[Path], origin: Origin, place: Callable[[Path], Path]
) -> Iterator[PredictorInfo]:
    for path in sorted(map(place, found)):
        try:
            yield info(load(path), origin)
        except BundleError as e:
            _log.warning("predictor left out: %s", e)


def info(bundle: Bundle, origin: Origin, *, replaced: bool = False) -> PredictorInfo:
    """What the catalogue says of ``bundle``."""
    location = str(bundle.path or "")
    kernels = tuple(bundle.kinds)
    facts = (bundle.name, bundle.version, bundle.category, origin, location, kernels, replaced)
    return PredictorInfo(*facts, summary=summary(bundle))


def summary(bundle: Bundle) -> str:
    """Device, runtime, precision, errors, interval, source and date, as far as the bundle knows them, in a line."""
    facts = bundle.environment
    parts = [bundle.device, f"{bundle.runtime} {bundle.runtime_version}".strip(), bundle.dtype]
    if facts.get("batch", 1) != 1:
        parts.append(f"batch {facts['batch']}")
    if errors := facts.get(EVALUATED):
        parts.append(f"median error {errors['median']:.1%} on {errors['models']} models that were measured")
    elif errors := facts.get(ERRORS):
        parts.append(f"median error {errors['median']:.1%} of {errors['models']} models of families left out")
    if bundle.interval:
        low, high = (math.exp(end) - 1 for end in (bundle.interval.low, bundle.interval.high))
        parts.append(f"90 % within {low:+.0%} to {high:+.0%}")
    parts += [str(facts.get("source", "")), bundle.created.partition("T")[0]]
    return "; ".join(part for part in parts if part)


def find(name: str, version: str | float | None = None) -> PredictorInfo:
    """The predictor ``name``, in any case of letters; the latest version where none is asked for.

    Where two are of one version, a registered one goes first.

    Raises:
        UnknownPredictorError: none of that name or version; names near ones.
    """
    known = list_predictors()
    return pick(known, name, version)[-1]


def pick(known: list[PredictorInfo], name: str, version: str | float | None) -> list[PredictorInfo]:
    """Those of ``known`` that match, the preferred one last.

    Raises:
        UnknownPredictorError: none of that name or version; names near ones.
    """
    named = [each for each in known if each.name.lower() == name.lower()]
    if not named:
        names = {each.name.lower(): each.name for each in known}
        near = [names[match] for match in difflib.get_close_matches(name.lower(), names, cutoff=0.4)]
        hint = f"did you mean {' or '.join(near)}? List" if near else "list"
        raise UnknownPredictorError(
            f"there is no predictor named {shown(name)}; {hint} them with: nn-meter --list-predictors"
        )
    named.sort(key=lambda each: version_key(each.version))
    if version is None:
        return named
    matching = [each for each in named if version_key(each.version) == version_key(str(version))]
    if not matching:
        versions = ", ".join(dict.fromkeys(each.version for each in named))
        raise UnknownPredictorError(f"{named[0].name} has no version {legible(str(version))}; there is {versions}")
    return matching


def is_path(name: str | Path) -> bool:
    """Whether ``name`` is a bundle's path: a folder with a manifest, or what looks like a path or a zip."""
    text = os.fspath(name)
    return isinstance(name, Path) or os.sep in text or text.lower().endswith(".zip") or exists(Path(text) / MANIFEST)


def default_predictor() -> str:
    """What answers where no predictor is named: ``NN_METER_PREDICTOR``, else the choice of ``nn-meter use``, else the
    one that is shipped."""
    return appointed()[0]


def appointed() -> tuple[str, str]:
    """``default_predictor()``, and what chose it; nothing where it is the one that is shipped."""
    if named := settings.predictor():
        return named, "NN_METER_PREDICTOR"
    try:
        chosen = read_bytes(_choice(), "the choice", UnknownPredictorError).decode().strip()
    except (UnknownPredictorError, UnicodeDecodeError):
        chosen = ""
    return (chosen, "nn-meter use") if chosen else (DEFAULT, "")


def choose(name: str) -> str:
    """Make ``name``, or the bundle at that path, the default; returns it as it will be asked for.

    Raises:
        UnknownPredictorError: none of that name.
        BundleError: the path holds no bundle.
        StorageError: the data folder cannot be written.
    """
    if is_path(name):
        chosen = str(Path(name).absolute())
        load(chosen)
    else:
        chosen = find(name).name
    write(_choice(), f"{chosen}\n")
    return chosen


def _choice() -> Path:
    return settings.data_folder() / "default_predictor"


def load_predictor(
    name: str | Path | None = None, version: str | float | None = None, *, progress: Progress | None = None
) -> Bundle:
    """Open the bundle of a predictor, or the one at a path; a published one is fetched and converted at first use.
    Where none is named it is the default one.

    ``progress`` hears of bytes.

    Raises:
        UnknownPredictorError: none of that name or version.
        DownloadError: a published predictor cannot be fetched.
        PredictorError: its files are damaged, hostile or do not fit.
        StorageError: the data folder cannot be written.
    """
    if name is None:
        name, by = appointed()
        try:
            return load_predictor(name, version, progress=progress)
        except (UnknownPredictorError, BundleError) as error:
            raise type(error)(f"{error}; {by} chose it, and may choose another" if by else str(error)) from None
    if is_path(name):
        bundle = load(name)
        if version is not None and version_key(bundle.version) != version_key(str(version)):
            raise UnknownPredictorError(f"{name}: its version is {bundle.version}, not {version}")
        return bundle
    found = find(str(name), version)
    if found.origin != "published":
        return load(found.location)
    target = stored_path("published", found.name, found.version)
    if not exists(target):
        from nn_meter.predictors.published import fetch  # the reader of pickles is for those alone

        meta = {
            "name": found.name,
            "version": found.version,
            "category": found.category,
            "kernel_predictors": found.kernel_predictors,
        }
        fetch(found.location, meta, target, progress)
    return load(target)
