"""What a callback may keep with a run: JSON, and little of it."""

import json
from typing import Any

from engine.records import to_json

MOST_STATE_BYTES = 2**20  # of one callback; every record of the run holds it


def state_problem(state: Any) -> tuple[str, str] | None:
    """(what it is, what is expected), unless a record can hold the state."""
    try:
        text = json.dumps(to_json(state))
    except (TypeError, ValueError, RecursionError) as error:
        return f"a state that is no JSON ({error})", "numbers, texts, lists and dicts"
    if not _has_text_keys(state):
        return "a dict whose keys are no texts", "texts for keys, because JSON has no others"
    if len(text) > MOST_STATE_BYTES:
        return f"{len(text):,} bytes of state", f"at most {MOST_STATE_BYTES:,}, because every checkpoint holds them"
    return None


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_has_text_keys, value.values()))
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))
