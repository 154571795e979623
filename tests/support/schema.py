# SPDX-License-Identifier: LGPL-2.1-or-later

"""Documents, against the schema that comes with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema

from drgn_zonedev.render import as_json


def load_schema() -> dict[str, Any]:
    """Load the JSON schema of all documents."""
    schema: dict[str, Any] = json.loads(
        resources.files("drgn_zonedev.render").joinpath("schema.json").read_text()
    )
    return schema


def validated(document: dict[str, Any]) -> dict[str, Any]:
    """Get a document as its readers do, and fail if it does not conform."""
    # By way of the text, so that nothing survives that JSON cannot hold.
    parsed: dict[str, Any] = json.loads(as_json.render(document))
    jsonschema.Draft202012Validator(load_schema()).validate(parsed)
    return parsed
