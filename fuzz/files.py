"""All that is read beside models: bundles, rules, meta files, the registry, pickles, fetched zips, journals, tables."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import stat
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nn_meter import frontends, plugins
from nn_meter.api import Predictor
from nn_meter.building import measured
from nn_meter.devices.device import Device
from nn_meter.errors import BuildError, ModelError
from nn_meter.fitting import study
from nn_meter.ir import Graph
from nn_meter.kernels.rules import load_rules
from nn_meter.measuring import Failure, Journal, Measurement, wire
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.networks import published_phones, published_timm
from nn_meter.networks.published import read_csv
from nn_meter.predictors import bundle, published, registration
from nn_meter.predictors.catalogue import DEFAULT, SHIPPED
from nn_meter.predictors.legacy import convert_folder, read_forest
from nn_meter.predictors.nnmeter_columns import NN_METER_1

from . import mutation
from .answers import EXAMPLE, answered, nnmeter_bundle
from .mutation import as_json, damaged, odd, zipped

_FEW_KINDS = 3
"""Of a shipped predictor's kinds, so that one is put together a thousand times a second."""


def _stored(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def _few(files: dict[str, bytes]) -> dict[str, bytes]:
    """A bundle's files with its smallest kinds alone."""
    manifest = json.loads(files[bundle.MANIFEST])
    kept = sorted(manifest["kinds"].items(), key=lambda kind: len(files[kind[1]["file"]]))[:_FEW_KINDS]
    manifest["kinds"] = dict(kept)
    names = {bundle.RULES, *(kind["file"] for _, kind in kept)}
    return {bundle.MANIFEST: as_json(manifest), **{name: files[name] for name in names}}


class Bundles:
    """Bundles of each schema as zips: every file in them altered, most with a sha256 that fits again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "bundle.zip"
        bundle.save(nnmeter_bundle(), folder / "plain")
        bundle.save(bundle.load(SHIPPED / "published.zip" / "a03s_1large_float_tflite"), folder / "fitted")
        plain = _few(_stored(folder / "plain"))
        self._all = (_few(_stored(SHIPPED / DEFAULT)), plain, _stored(folder / "fitted"))
        self._graphs = tuple(map(frontends.read, (EXAMPLE, EXAMPLE.parents[1] / "tests/corpus/models/tagger.onnx")))

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        files = dict(draw.choice(self._all))
        manifest = json.loads(files[bundle.MANIFEST])
        how, modes = draw.random(), {}
        if how < 0.4:
            manifest = odd(manifest, draw)
        elif how < 0.55:
            files[bundle.RULES] = as_json(odd(json.loads(files[bundle.RULES]), draw))
            manifest["rules"]["sha256"] = hashlib.sha256(files[bundle.RULES]).hexdigest()
        elif how < 0.8 and manifest["kinds"]:
            kind = manifest["kinds"][draw.choice(list(manifest["kinds"]))]
            stored = files[kind["file"]]
            files[kind["file"]] = damaged(stored, stored, draw) if draw.random() < 0.4 else _arrays(stored, draw)
            kind["sha256"] = hashlib.sha256(files[kind["file"]]).hexdigest()
        elif how < 0.87:
            modes = mutation.strange_members(files, draw)
        files[bundle.MANIFEST] = draw.choice(mutation.NESTED) if 0.87 < how < 0.88 else as_json(manifest)
        whole = zipped(files, modes)
        if how < 0.9:
            return whole
        at = draw.choice((0, max(0, len(whole) - 3000)))  # its directory lies at the end
        return whole[:at] + damaged(whole[at:], whole, draw)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        self._answer(self._path, turn)

    def _answer(self, path: Path, turn: int) -> None:
        found = bundle.load(path)
        for graph in self._graphs:
            answered(Predictor(found), graph, None, turn)
        if turn % 8 == 0:
            bundle.save(found, self._folder / "again.zip")


def _arrays(stored: bytes, draw: random.Random) -> bytes:
    """A kind's arrays with other numbers, types, shapes, or one missing."""
    arrays: dict[str, Any] = dict(np.load(io.BytesIO(stored)))
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice(list(arrays))
        value = np.array(arrays[name])
        match draw.randrange(7):
            case 0 if value.dtype.kind in "fi":
                value = value.astype(draw.choice(("f4", "f8", "i4", "i8", "u1", "c8", "?", "S4", "U4")))
            case 1:
                value = value.reshape(-1)[: draw.randrange(value.size + 1)]
            case 2 if value.ndim and value.size and value.dtype.kind == "i":
                value[draw.randrange(len(value))] = draw.choice((0, -1, -2, 2**31 - 1, 10**6))
            case 3 if value.ndim and value.size and value.dtype.kind == "f":
                value[draw.randrange(len(value))] = draw.choice((np.nan, np.inf, 1e308, -1e308, 1e5, -800.0))
            case 4:
                value = value.reshape(1, -1)
            case 5:
                value = np.array(draw.choice((0, -1, 10**9, 2**62, "mean", "sum", "x", np.nan, np.inf, 1e308)))
            case _:
                arrays.pop(name)
                if not arrays:
                    return b""
                continue
        arrays[name] = value
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


class BundleFolders(Bundles):
    """The same as folders, with the links, pipes and devices that a folder can hold."""

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        folder = self._folder / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            unpack(data, folder)
        except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            return
        self._answer(folder, turn)


def unpack(data: bytes, folder: Path) -> None:
    """Put a zip's members below ``folder``, whatever they are; what leads out of it is left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            path = folder / member.filename
            if ".." in path.parts or not path.is_relative_to(folder) or path == folder:
                continue
            content = archive.read(member)
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                match stat.S_IFMT(member.external_attr >> 16):
                    case stat.S_IFLNK:
                        path.symlink_to(content.decode("latin1")[:100].replace("\0", "0") or "absent")
                    case stat.S_IFIFO:
                        os.mkfifo(path)
                    case stat.S_IFCHR:
                        path.symlink_to("/dev/zero")
                    case stat.S_IFDIR:
                        path.mkdir()
                    case _:
                        path.write_bytes(content)


class Rules:
    """Fusion rules."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rules.json"
        self._rules = json.loads((SHIPPED / DEFAULT / bundle.RULES).read_bytes())
        self._few = [dict(list(self._rules.items())[at : at + 6]) for at in range(0, len(self._rules), 6)]

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        how, rules = draw.random(), draw.choice((*self._few, self._rules))
        if how < 0.02:
            return draw.choice(mutation.NESTED)
        return as_json(odd(rules, draw)) if how < 0.6 else damaged(as_json(rules), as_json(self._few[0]), draw)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        load_rules(self._path)


_YAML_VALUES = (
    "", "[]", "{}", "null", "1", "-1", "1.0", '"\\0"', '"../x"', '"a/b"', "!!python/object:os.system {}", "&a [*a]",
    '"\\x1b[2J"', "2020-01-01", ".inf", "0o17", f'"{"x" * 300}"', f'"{"x" * 5000}"', "[1, 2]", '"conv-bn-relu"', "true",
    '"/"', '"."', '"~nobody/x"', "9" * 5000, "9999-99-99", "!!binary aGk=", "1:60:60", "*a", "? [a]", "<<: 1",
    '".a"', '"..a"', '"a\\0"', "tensorflow", "parser", "json", "!!bool x", "!!timestamp x", "!!int ''", "0b", "1e999",
    f"1:{'5:' * 300}5.0", "1:" * 3000 + "1", "!!float x", "!!set {a}", "!!omap [a]", "!!null x", "!!str [a]",
)  # fmt: skip
_YAML_ODD = (
    "a: &a [x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}]\n" for p, c in zip(
        "abcdefghi", "bcdefghij", strict=True)) + "name: *j\nversion: *j\n",
    "name: &a [*a]\n", "[" * 300, "{a: " * 3000, "- " * 20_000 + "x", "%YAML 9.9\n---\n", "\ufeff\0", "<<: {<<: 1}\n",
    "? [a]\n: 1\n", "name: x\n" * 100, "- a\n- b\n", "x" * 100_000,
)  # fmt: skip
_YAML_SLOW = ("- x\n" * 30_000, "[" * 3000)
"""Seldom fed: what takes up to half a second to be refused."""
_CLASS = "package_location: .\nclass_module: json\nclass_name: JSONDecoder\n"


class Yaml:
    """What all kinds of YAML share."""

    texts: tuple[str, ...] = ()

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        text, how = draw.choice(self.texts), draw.random()
        if how < 0.03:
            return draw.choice(_YAML_SLOW if how < 0.0003 else _YAML_ODD).encode()
        if how < 0.6:
            for _ in range(draw.choice((1, 1, 2))):
                text = mutation.relined(text, _YAML_VALUES, draw)
            return text.encode()
        return damaged(text.encode(), draw.choice(self.texts).encode(), draw)


class Metas(Yaml):
    """Meta files of what can be registered but predictors."""

    texts = (
        f"builtin_name: mine\n{_CLASS}defaultConfigFile: ./meta.yaml\n",
        f"builtin_name: mine\nimplement: tensorflow\n{_CLASS}",
        f"builtin_name: mine\nimplement: tensorflow\n{_CLASS}sampler_module: json\nsampler_name: loads\n"
        "parser_module: json\nparser_name: dumps\n",
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "meta.yaml"

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        group = ("backend", "operator", "testcase", "kernel")[turn % 4]
        entry = plugins.register(group, self._path)
        plugins.unregister(group, entry.name, entry.implement)


class PredictorMetas(Yaml):
    """Meta files of predictors."""

    texts = (
        "name: mine\nversion: 1.0\ncategory: cpu\npackage_location: plain\nkernel_predictors:\n- conv-bn-relu\n- fc\n",
        "name: mine\nversion: '2'\ncategory: cpu\npackage_location: plain.zip\n",
        "name: mine\nversion: 1.0\npackage_location: .\nkernel_predictors: [relu]\n",
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "meta.yaml"
        few = _few({**_written(folder)})
        (folder / "plain").mkdir()
        (folder / "plain.zip").write_bytes(zipped(few))
        unpack(zipped(few), folder / "plain")

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        entry = registration.register(self._path)
        registration.unregister(entry.name, entry.version)


def _written(folder: Path) -> Mapping[str, bytes]:
    bundle.save(nnmeter_bundle(), folder / "whole")
    return _stored(folder / "whole")


class Registry(Yaml):
    """The file in which the data folder keeps what was registered."""

    _ENTRY = "package_location: '.', class_module: json, class_name: JSONDecoder"
    texts = (
        f"backends:\n  b: {{{_ENTRY}}}\nkernels: {{}}\noperators:\n  a:\n    tensorflow: {{{_ENTRY}}}\n"
        f"testcases:\n  c:\n    tensorflow: {{{_ENTRY}}}\n",
        f"operators:\n  a:\n    x:\n      {_ENTRY.replace(', ', chr(10) + '      ')}\n",
        f"kernels:\n  k: {{{_ENTRY}, implement: tensorflow, sampler_module: json, sampler_name: loads, "
        "parser_module: json, parser_name: dumps}\n",
    )

    def __init__(self, folder: Path) -> None:
        self._path = Path(os.environ["NN_METER_HOME"]) / "registry.yaml"

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(data)
        try:
            for group in ("backend", "operator", "testcase", "kernel"):
                for each in plugins.registered(group):
                    each.load()
                    plugins.unregister(group, each.name, each.implement)
                plugins.find(group, "a", "tensorflow")
        finally:
            self._path.unlink(missing_ok=True)


class _Call:
    """Pickles as a call."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call


_GLOBALS = (
    b"os\nsystem\n", b"builtins\neval\n", b"numpy\nload\n", b"numpy.random._pickle\n__randomstate_ctor\n",
    b"numpy.random\nos\n", b"sklearn.tree._tree\nTree\n", b"copyreg\n_reconstructor\n", b"_codecs\nencode\n",
    b"numpy.core.multiarray\n_reconstruct\n", b"numpy\ndtype\n", b"builtins\nobject\n",
)  # fmt: skip
_PICKLES = (
    b"(" * 100_000 + b"t.", b"]" * 200_000 + b".", b"\x80\x04" + b"\x8c\x01a" * 100_000 + b".",
    b"I" + b"9" * 100_000 + b"\n.",
    b"L" + b"9" * 100_000 + b"L\n.", b"\x8b\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\x7f", b"B\xff\xff\xff\x7f",
    b"]" + b"\x94h\x00a" * 50_000 + b".",
    b"\x80\x04r\xff\xff\xff\x7f", b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 50_000 + b".",
)  # fmt: skip


def forests(columns: int = 3) -> tuple[bytes, ...]:
    """Small forests by every protocol of pickle."""
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    rows = np.random.default_rng(0).random((20, columns))
    fitted = [kind(2, random_state=0).fit(rows, rows.sum(1)) for kind in (RandomForestRegressor, ExtraTreesRegressor)]
    return tuple(pickle.dumps(each, protocol) for each in fitted for protocol in range(6))


class Pickles:
    """Pickled forests, and what else a pickle can hold."""

    def __init__(self, folder: Path) -> None:
        self._forests = forests()
        array = np.array([1, "a", None], dtype=object)
        many = pickle.loads(self._forests[-1])
        many.estimators_ *= 1000  # one after the first is three bytes
        others = (array, [array] * 20, _Call(np.array, ([1, 2],)), {"a": np.zeros(3, [("x", "O")])},
                  np.random.RandomState(0), _Call(eval, ("1/0",)), many)  # fmt: skip
        self._others = tuple(map(pickle.dumps, others))

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        how, data = draw.random(), draw.choice(self._forests)
        if how < 0.6:
            return damaged(data, draw.choice(self._forests), draw)
        if how < 0.75:
            return damaged(draw.choice(self._others), data, draw)
        if how < 0.97:
            at = data.find(b"c", draw.randrange(len(data)))
            call = draw.choice((b"(tR", b")R", b"(Vx\ntR0", b"(NtR", b""))
            return data[: at + 1] + draw.choice(_GLOBALS) + call + data[at + 1 :]
        return draw.choice(_PICKLES)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        trees = read_forest(data, "fuzz.pkl")
        if trees.n_columns <= 1000:
            assert np.isfinite(trees.predict(np.zeros((2, trees.n_columns)))).all(), "an answer is not finite"


class Fetched:
    """Zips of pickles as they are published."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {
            f"k/{kind}.pkl": forest
            for kind, forest in zip(("relu", "bn"), forests(len(NN_METER_1["relu"])), strict=False)
        }
        self._files["k/fusion_rules.json"] = b'{"BF_conv_relu": {"obey": true}}'

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        files, how = dict(self._files), draw.random()
        modes = mutation.strange_members(files, draw) if how < 0.4 else {}
        if how < 0.6:
            name = draw.choice(list(files))
            files[name] = damaged(files[name], files[name], draw)
        whole = zipped(files, modes)
        if how < 0.5:
            return whole
        at = max(0, len(whole) - 400) if how < 0.8 else 0
        return whole[:at] + damaged(whole[at:], whole, draw)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        (work / "k").mkdir(parents=True)
        (work / "fetched.zip").write_bytes(data)
        try:
            published._unpack(work / "fetched.zip", "k", work / "k", "http://nowhere/")
            convert_folder({"name": "k", "version": "1.0", "kernel_predictors": ["relu"]}, work / "k", work / "k.zip")
        finally:
            there = {path.name for path in work.iterdir()} - {"k", "fetched.zip", "k.zip"}
            assert not there, f"{there} left the folder"


_UPDATES = (
    "UPDATE work SET result='{}' WHERE state='failed'", "UPDATE work SET result='[1]' WHERE state!='pending'",
    "UPDATE work SET result='null'", "UPDATE work SET item='3'", "UPDATE work SET item='{'",
    "UPDATE work SET item='{}'",
    "UPDATE work SET result=NULL", "UPDATE work SET state='failed'", "UPDATE work SET state='done'", "DROP TABLE work",
    "UPDATE work SET key=key||'x'", "PRAGMA user_version=1", "PRAGMA application_id=3", "DELETE FROM work",
    "UPDATE work SET result=CAST(x'ff00fe' AS TEXT)", f"UPDATE work SET item='{'[' * 50_000}'",
    f"UPDATE work SET result='{'9' * 5000}'", "ALTER TABLE work DROP COLUMN result",
    "CREATE TRIGGER t AFTER UPDATE ON work BEGIN DELETE FROM work; END",
    "UPDATE work SET result='{\"kind\":1,\"reason\":[]}' WHERE state='failed'",
)  # fmt: skip


class Journals:
    """Journals of builds and evaluations: their bytes, their rows, the values in these."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.sqlite"
        around = Circumstances(Device("d"), "r")
        taken = Measurement((1.0, 2.0), (3.0,), (2,))
        record = Record("net", around, (), taken, taken, taken, "plain", 0.5)
        kernels = _records(folder)
        self._results = tuple(
            wire.to_json(each) for each in (record, taken, replace(record, kernels=kernels[0].kernels), *kernels[:3])
        )
        self._seed = self._bytes(self._results)

    def _bytes(self, results: tuple[Any, ...]) -> bytes:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()
        with Journal(self._path) as book:
            keys = book.add({"family": "plain", "seed": number} for number in range(8))
            for key, result in zip(keys, results, strict=False):
                with suppress(BuildError):
                    book.record(key, result)
            book.fail(keys[-1], Failure("crash", "it died"))
        return self._path.read_bytes()

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        how = draw.random()
        if how < 0.35:
            return damaged(self._seed, self._seed, draw)
        if how < 0.7:
            results = tuple(
                changed if isinstance(changed := odd(each, draw), dict) else {} for each in self._results
            )
            with suppress(UnicodeEncodeError):  # SQLite takes no lone surrogates
                return self._bytes(results)
        self._path.with_suffix(".made").write_bytes(self._seed)
        with suppress(sqlite3.Error):
            other = sqlite3.connect(self._path.with_suffix(".made"))
            other.execute(draw.choice(_UPDATES))
            other.commit()
            other.close()
        return self._path.with_suffix(".made").read_bytes()

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()
        self._path.write_bytes(data)
        with Journal(self._path) as book:
            measured(book)
            book.add([{"family": "plain", "seed": -1}])
            pending = book.pending()
            book.record(pending[-1].key, {"values_ms": [1.0]})


_MODELS = (
    "model,latency_ms,batch,threads,device,runtime,family\n"
    "a.onnx,1.5,1,1,phone,tflite,f\nb.onnx,2,1,1,phone,tflite,f\n"
)
_KINDS = (
    "kind,latency_us,n,cin,input,cout,output,kernel,strides,group,fused,device,batch,m,k,op,elements\n"
    "conv,12,1,3,8x8,16,8x8,3x3,1x1,1,relu,phone,,,,,\nfc,3,16,,,,,,,,,phone,1,1,8,,\nunary,1,1,,,,,,,,,phone,,,,Relu,64\n"
)
_PHONES = "model,device,processors,precision,mean_ms\nresnet18,pixel4,gpu,float,3.5\nvit,s10,1large,quant,30\n"
_GPU = (
    "model,operation,features,device,latency_ms,kernel\n"
    'resnet,CONV_2D,"{""Input_channel"": 3, ""Output_shape"": 8, ""Stride"": 1, ""Kernel"": 3, ""Filter"": 4, '
    '""Input_shape"": 8}",pixel4,0.5,conv linked_:_relu_1\n'
    'resnet,MEAN,"{""Input_channel"": 3, ""Input_shape"": 8}",s10,1,mean\n'
)
_TIMM = "architecture,image_size,batch_size,batch_ms\nresnet18,224,1,3.5\nvit_tiny,224,256,80\n"
CELLS = (
    "", "0", "-1", "nan", "inf", "1e400", "9" * 5000, "²", "٣", "1x", "x", "3x3x3x3", "0x0", "relu+sum", "\0", '"',
    "a\nb", "latency_ms", "{", "[]", "null", '"{""a"": 1}"', "conv", "lstm", "attention", "9" * 19, "1_0", " 1 ", "yes",
)  # fmt: skip


def _no_model(name: str, batch: int) -> Graph:
    raise ModelError(f"{name}: not read here")


def _records(folder: Path) -> tuple[Record, ...]:
    (folder / "kinds.csv").write_text(_KINDS)
    return read_csv(folder / "kinds.csv").records


class Tables:
    """Tables of measurements, in our forms and in those of who published them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._around = Circumstances(Device("d"), "tflite", statistic="median")

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says: the first byte tells the form."""
        form = draw.randrange(5)
        text = (_MODELS, _KINDS, _PHONES, _GPU, _TIMM)[form]
        if draw.random() < 0.55:
            rows = [line.split(",") for line in text.split("\n")]
            for _ in range(draw.choice((1, 1, 2, 4))):
                row = draw.choice(rows)
                row[draw.randrange(len(row))] = draw.choice(CELLS)
            data = "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")
        else:
            data = damaged(text.encode(), draw.choice((_MODELS, _KINDS, _GPU)).encode(), draw)
        if draw.random() < 0.05:
            data = damaged(gzip.compress(data, mtime=0), data, draw)
        return bytes((form,)) + data

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        form = data[0] if data else 0
        packed = ".gz" if data[1:3] == b"\x1f\x8b" else ""
        if form == 4:
            path = self._folder / f"amp-nchw-pt291-cu128-4090.csv{packed}"
        else:
            path = self._folder / f"table.csv{packed}"
        path.write_bytes(data[1:])
        if form == 2:
            published_phones.read_models(path)
        elif form == 3:
            published_phones.read_gpu_kernels(path)
        elif form == 4:
            published_timm.read_table(path)
        else:
            records = read_csv(path, self._around).records
            study(records, _no_model)

