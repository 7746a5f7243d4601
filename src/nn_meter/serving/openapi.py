"""What the server can be asked, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from nn_meter import __version__


def description(upload_bytes: int) -> dict[str, Any]:
    """The document; ``upload_bytes`` is how much of a model is taken."""
    failed = {
        status: {"description": why, "content": _json({"$ref": "#/components/schemas/error"})}
        for status, why in (
            ("400", "the upload broke off"),
            ("401", "the token is missing or wrong"),
            ("403", "asked under another name, or from another site's page"),
            ("408", "nothing came for too long, or all of it too slowly"),
            ("413", f"more than {upload_bytes} bytes, or more memory than a request may take"),
            ("422", "the model cannot be read, or what is asked makes no sense; the error says what to do"),
            ("500", "the process that predicted ended"),
            ("503", "too many requests wait"),
            ("504", "predicting took too long"),
            ("507", "no room for the upload"),
        )
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nn-meter",
            "version": __version__,
            "description": "How long a neural network takes for one inference on a device, predicted.",
        },
        "paths": {
            "/predict": {
                "post": {
                    "summary": "Predict a model, which is the request's body",
                    "parameters": [
                        _query("name", "the file's name, for people", {"type": "string", "maxLength": 100}),
                        _query(
                            "predictor",
                            "once per predictor; the default one if left out",
                            {"type": "array", "items": {"type": "string"}, "maxItems": 16},
                        ),
                        _query("input_shape", "1,3,224,224; the file's own if left out", {"type": "string"}),
                    ],
                    "requestBody": {
                        "required": True,
                        "description": "ONNX, TFLite, a frozen TensorFlow graph, or nn-Meter's JSON",
                        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
                    },
                    "responses": {
                        "200": {
                            "description": "the predictions; where the history takes them, with their page",
                            "content": _json({"$ref": "#/components/schemas/answer"}),
                        },
                        **failed,
                    },
                }
            },
            "/predictors": {"get": _get("the predictors that are here")},
            "/history": {"get": _get("the latest answers")},
            "/results/{id}/json": {"get": _get("an answer that is kept", "id")},
            "/results/{id}": {"get": _get("its page", "id", "text/html")},
            "/gallery": {"get": _get("models by every predictor", media="text/html")},
        },
        "components": {
            "schemas": {
                "error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                },
                "answer": {
                    "type": "object",
                    "required": ["id", "page", "schema_version", "predictions", "failed"],
                    "properties": {
                        "id": {"type": ["string", "null"]},
                        "page": {"type": ["string", "null"], "description": "path of the page on this server"},
                        "not_kept": {"type": "string", "description": "why the history did not take it"},
                        "schema_version": {"const": 1},
                        "predictions": {
                            "type": "array",
                            "items": {"type": "object", "description": "as docs/schema.json says: prediction"},
                        },
                        "failed": {"type": "array", "items": {"type": "object"}},
                    },
                },
            }
        },
    }


def _query(name: str, what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": what, "schema": schema}


def _get(what: str, parameter: str = "", media: str = "application/json") -> dict[str, Any]:
    found: dict[str, Any] = {"summary": what, "responses": {"200": {"description": what, "content": {media: {}}}}}
    if parameter:
        found["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}]
        found["responses"]["404"] = {"description": "not kept"}
    return found


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
