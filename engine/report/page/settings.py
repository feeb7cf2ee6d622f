"""Sections on how it was made: settings that differ from the recipe, time, device, versions."""

import importlib
import json

from engine.config import RunConfig
from engine.recipes import RECIPES
from engine.records import differences, to_json
from engine.report.history import is_number
from engine.report.page.material import Material
from engine.report.page.parts import Facts, Part, Rows, Text
from engine.report.progress import duration_text

MOST_LETTERS = 300  # of a value


def show_settings(material: Material) -> list[Part]:
    """The settings that differ from the recipe of the run's name, else from what they are by default."""
    config = material.record.config
    base, name = find_base(config)
    found = differences(to_json(base), to_json(config))
    is_model = [each.field.split(".")[0] == "model" for each in found]
    rows = [("model", name, "another")] if any(is_model) else []
    for each, skipped in zip(found, is_model, strict=True):
        if not skipped and each.field != "name":
            rows.append((each.field, _text(each.stored), _text(each.given)))
    for change in material.record.changes or ():
        rows.append((f"{change.field}, from step {change.step:,}", _text(change.before), _text(change.after)))
    if not rows:
        return [Text(f"All settings are those of {name}.")]
    return [Rows(f"Settings that are not those of {name}", ("setting", name, "here"), rows)]


def find_base(config: RunConfig) -> tuple[RunConfig, str]:
    """(what a config is compared with, what that is called): the recipe of its name, or else the defaults."""
    if config.name in RECIPES:
        return importlib.import_module(f"engine.recipes.{config.name}").config(), f"the recipe {config.name}"
    return RunConfig(config.name, config.model), "the defaults"


def show_machine(material: Material) -> list[Part]:
    """What took how long, on which device, with which versions."""
    record, seconds = material.record, material.results.get("seconds")
    kinds = seconds.items() if isinstance(seconds, dict) else ()
    times = [(kind, duration_text(value)) for kind, value in kinds if is_number(value) and value >= 0.05]
    plan = record.plan
    facts = [
        ("run", str(material.path)),
        ("device", record.device or "not known"),
        ("steps", f"{record.step:,}, {record.steps_per_epoch:,} an epoch"),
        ("execution", f"{plan.lowering} lowering, data {plan.placement}"),
        ("data", record.data_fingerprint[:16]),
        *((name, _text(version)) for name, version in record.versions.items()),
    ]
    if record.provenance is not None:
        about = record.provenance
        facts += [("weights of", about.model), ("from", about.file), ("licence", about.licence or "not known")]
    parts: list[Part] = [Facts(facts)]
    return [Facts(times), *parts] if times else parts


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"
