"""The JSON Schema of `results.json`, made from the models that write it.

    python -m tlcluster.report.schema

prints it. The package and `docs/` have it as a file.
"""

import json
from typing import Any

from tlcluster.report.results import Results

SCHEMA = "results.schema.json"
"""The file, in this folder and in `docs/`."""


def schema() -> dict[str, Any]:
    """The JSON Schema of the file. It allows other fields, because later versions may add some."""
    found = Results.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_open(found)}


def schema_text() -> str:
    """The content of the file `SCHEMA`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _open(value: Any) -> Any:
    """A schema without the words that refuse unknown fields."""
    if isinstance(value, dict):
        return {
            key: _open(inner)
            for key, inner in value.items()
            if not (key == "additionalProperties" and inner is False)
        }
    return [_open(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    print(schema_text(), end="")
