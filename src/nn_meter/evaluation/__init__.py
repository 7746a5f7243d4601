"""Measures models and predicts them side by side.

All models are timed in two halves, the late one after the early one has been through them all, so that the
distance between a model's two answers, the *repeat noise*, holds what the machine itself does in that time.
Within a half, groups of models that fit into memory take turns.
"""

from nn_meter.evaluation.bench import Bench
from nn_meter.evaluation.blame import blamed
from nn_meter.evaluation.evaluating import evaluate, label
from nn_meter.evaluation.scores import MISS, Blame, Evaluation, Score, calibrate
from nn_meter.evaluation.subjects import Subject, subjects

__all__ = [
    "MISS",
    "Bench",
    "Blame",
    "Evaluation",
    "Score",
    "Subject",
    "blamed",
    "calibrate",
    "evaluate",
    "label",
    "subjects",
]
