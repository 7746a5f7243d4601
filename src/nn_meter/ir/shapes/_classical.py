"""Classical models (https://onnx.ai/onnx/operators/, domain ``ai.onnx.ml``): rows of features in, scores out."""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, product


def _same(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return ((x.shape, x.dtype),)


def _float(s: Site) -> Sequence[Out]:
    return ((s.shape(0), "float32"),)


def _count(s: Site, *names: str) -> int:
    """Length of the first of these lists that is there."""
    for name in names:
        value = s.attrs.get(name)
        if isinstance(value, tuple) and value:
            return len(value)
    return 0


def _rows(s: Site) -> int:
    shape = s.shape(0)
    return shape[0] if len(shape) > 1 else 1


def _label(s: Site, texts: str) -> str:
    return "str" if s.attrs.get(texts) else "int64"


def _encoder(s: Site) -> Sequence[Out]:
    kinds = (("strings", "str"), ("int64s", "int64"), ("floats", "float32"))
    named = (dtype for suffix, dtype in kinds if f"values_{suffix}" in s.attrs)
    return ((s.shape(0), next(named, "int64" if s.dtype(0) == "str" else "str")),)


def _linear_classifier(s: Site) -> Sequence[Out]:
    classes = _count(s, "classlabels_ints", "classlabels_strings") or _count(s, "intercepts")
    return (((_rows(s),), _label(s, "classlabels_strings")), ((_rows(s), max(classes, 1)), "float32"))


def _classifier(s: Site) -> Sequence[Out]:
    classes = _count(s, "classlabels_ints", "classlabels_int64s", "classlabels_strings")
    if not classes:
        raise ShapeError("it lists no classes")
    return (((_rows(s),), _label(s, "classlabels_strings")), ((_rows(s), classes), "float32"))


def _targets(name: str) -> Rule:
    def rule(s: Site) -> Sequence[Out]:
        return (((_rows(s), s.whole(name, 1)), "float32"),)

    return rule


def _trees(s: Site) -> Sequence[Out]:
    return (((_rows(s), s.whole("n_targets", 1)), s.dtype(0)),)


def _one_hot(s: Site) -> Sequence[Out]:
    return (((*s.shape(0), _count(s, "cats_int64s", "cats_strings")), "float32"),)


def _vectorizer(s: Site) -> Sequence[Out]:
    return (((_rows(s), sum(s.ints("inputdimensions") or ())), "float32"),)


def _picked(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    lead: Shape = x.shape[:-1] or (1,)
    return (((*lead, product(s.shape(1))), x.dtype),)


RULES: dict[str, Rule] = {
    "ArrayFeatureExtractor": _picked,
    "Binarizer": _same,
    "CategoryMapper": _encoder,
    "FeatureVectorizer": _vectorizer,
    "Imputer": _same,
    "LabelEncoder": _encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _targets("targets"),
    "Normalizer": _float,
    "OneHotEncoder": _one_hot,
    "SVMClassifier": _classifier,
    "SVMRegressor": _targets("n_targets"),
    "Scaler": _float,
    "TreeEnsemble": _trees,
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _targets("n_targets"),
    "ZipMap": _same,  # maps of a sequence, held as the tensor that they are made of
}
