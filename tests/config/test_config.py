"""Configs: no loss on the way through JSON, no bad value accepted, no field without help or without a reader."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
import engine.config as config_module
from engine import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EnsembleConfig,
    FineTuneConfig,
    InputError,
    OptimConfig,
    PlanConfig,
    RunConfig,
    TrainConfig,
    augment,
    cnn,
    mlp,
)
from engine.config import data as data_config
from engine.config.optim import SCHEDULES
from engine.config.plan import Plan
from engine.models import AveragePool, BatchNorm, Conv, Custom, Dense, GlobalAveragePool, Rescale, Sequential
from engine.records import from_json, to_json

ROOT = Path(__file__).parents[2]
WITHOUT_TRAINING = {"imagenet_classify"}  # it has no config
EXPERIMENTS = sorted({path.stem for path in (ROOT / "experiments").glob("[!_]*.py")} - WITHOUT_TRAINING)
SECTIONS = {
    "data": DataConfig, "train": TrainConfig, "optim": OptimConfig, "plan": PlanConfig, "augment": AugmentConfig,
    "ensemble": EnsembleConfig, "checkpoint": CheckpointConfig, "finetune": FineTuneConfig,
}  # fmt: skip
FIELDS = [(kind, field.name) for kind in (*SECTIONS.values(), RunConfig) for field in dataclasses.fields(kind)]
FIELD_IDS = [f"{kind.__name__}.{name}" for kind, name in FIELDS]


def through_text(config: RunConfig) -> RunConfig:
    return RunConfig.from_json(json.loads(json.dumps(config.to_json())))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_equal_after_json(name: str):
    config = importlib.import_module(f"experiments.{name}").config()
    assert isinstance(config, RunConfig)
    assert config.name == name
    assert through_text(config) == config


POSITIVE = st.floats(1e-6, 1e3)
PATHS = st.none() | st.sampled_from([Path("data"), Path("some folder/ünï")])
SPLITS = st.sampled_from(["train", "test", "train[:80%]", "train+test"])
NUMBERS = st.none() | st.lists(POSITIVE, min_size=1, max_size=3).map(tuple)
LAYERS = st.sampled_from(
    [
        Conv(4, (3, 5), strides=2, padding="same", use_bias=False, activation="relu"),
        AveragePool(2),
        GlobalAveragePool(),
        BatchNorm(),
        Rescale(1 / 127.5, -1.0),
        Dense(),
        Dense(3),
    ]
)
MODELS = st.one_of(
    st.lists(LAYERS, max_size=4).map(lambda layers: Sequential(tuple(layers))),
    st.sampled_from([mlp(), cnn((4, 8), dropout=0.5), Custom("package.module:Class", {"depth": 2, "sizes": [1, 2]})]),
)
DATA = st.builds(
    DataConfig,
    name=st.text(min_size=1, max_size=8).filter(lambda text: ":" not in text),
    split=SPLITS,
    validation_split=st.none() | SPLITS,
    validation_fraction=st.floats(0, 1, exclude_max=True),
    test_split=st.none() | SPLITS,
    image_size=st.sampled_from([None, "28x28", "1x200"]),
    resize=st.sampled_from(get_args(data_config.ResizeRule)),
    color=st.sampled_from([None, *get_args(data_config.ColorMode)]),
    scale=POSITIVE,
    mean=NUMBERS,
    std=NUMBERS,
    data_dir=PATHS,
    manual_dir=PATHS,
    cache_dir=PATHS,
)
TRAIN = st.builds(
    TrainConfig,
    epochs=st.integers(0, 10**6),
    batch_size=st.integers(1, 10**6),
    loss=st.sampled_from(["softmax_cross_entropy", "binary_cross_entropy"]),
    label_smoothing=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**32 - 1),
)
OPTIM = (
    st.builds(
        OptimConfig,
        name=st.sampled_from(("sgd", "momentum", "rmsprop")),
        learning_rate=POSITIVE,
        momentum=st.none() | st.floats(0, 1, exclude_max=True),
        weight_decay=st.none() | st.just(0.0) | POSITIVE,
        clip_norm=st.none() | POSITIVE,
        schedule=st.sampled_from([name for name, facts in SCHEDULES.items() if facts.has_warmup]),
        final_fraction=st.floats(0, 1),
        warmup_epochs=st.floats(0, 100),
        step_epochs=st.integers(1, 1000),
        step_factor=st.floats(0, 1, exclude_min=True),
        average_decay=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        rules=st.sampled_from(("keras", "optax")),
    )
    | st.builds(
        OptimConfig,
        name=st.sampled_from(("adam", "adamw")),
        beta_1=st.floats(0, 1, exclude_max=True),
        beta_2=st.floats(0, 1, exclude_max=True),
        epsilon=POSITIVE,
        amsgrad=st.booleans(),
    )
    | st.builds(
        OptimConfig,
        name=st.sampled_from(("lion", "lamb", "lars", "muon")),
        schedule=st.just("cosine_restarts"),
        restart_factor=st.integers(1, 5),
        scale_rate_with=st.sampled_from((None, "batch")),
        sam_radius=st.none() | POSITIVE,
    )
)
PLAN = st.builds(
    PlanConfig,
    lowering=st.sampled_from(get_args(config_module.LoweringName)),
    chunk_steps=st.none() | st.integers(1, 10**6),
)


@given(st.builds(RunConfig, st.sampled_from(["a", "run 1", "é-2.b"]), MODELS, DATA, TRAIN, OPTIM, PLAN))
def test_config_is_equal_after_json_for_any_valid_values(config: RunConfig):
    assert through_text(config) == config


def test_config_is_equal_after_json_when_a_whole_number_stands_for_a_float():
    config = RunConfig("a", mlp(), data=DataConfig(scale=1), optim=OptimConfig(learning_rate=1))  # as a user writes it
    assert through_text(config) == config


def test_sections_that_have_checked_themselves_are_not_made_again():
    config = RunConfig("a", Sequential((Dense(),)))
    changed = dataclasses.replace(config, name="b")
    for section in ("data", "train", "optim", "plan", "augment", "ensemble", "checkpoint", "finetune"):
        assert getattr(changed, section) is getattr(config, section), section


def test_config_is_read_from_a_file(tmp_path: Path):
    config = RunConfig("a", cnn(), train=TrainConfig(seed=3))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    assert RunConfig.read(tmp_path / "config.json") == config


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe\x00"], ids=["missing", "cut off", "not text"])
def test_config_file_is_refused_when_it_cannot_be_read(content: bytes | None, tmp_path: Path):
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: got .*; expected the JSON of a run's config"):
        RunConfig.read(file)


BAD_VALUES = [
    (TrainConfig, "batch_size", 0, "a whole number of at least 1"),
    (TrainConfig, "batch_size", -64, "a whole number of at least 1"),
    (TrainConfig, "batch_size", True, "a whole number"),
    (TrainConfig, "batch_size", 6.5, "a whole number"),
    (TrainConfig, "epochs", -1, "a whole number of at least 0"),
    (TrainConfig, "epochs", "'3'", "a whole number"),
    (TrainConfig, "seed", -1, "a whole number of at least 0 and below 4294967296"),
    (TrainConfig, "seed", 2**32, "a whole number of at least 0 and below 4294967296"),
    (TrainConfig, "label_smoothing", 1.0, "0 ≤ smoothing < 1"),
    (TrainConfig, "label_smoothing", -0.1, "0 ≤ smoothing < 1"),
    (TrainConfig, "label_smoothing", float("nan"), "a finite number"),
    (DataConfig, "validation_fraction", 1.0, "0 ≤ fraction < 1"),
    (DataConfig, "validation_fraction", -0.1, "0 ≤ fraction < 1"),
    (DataConfig, "name", "'huggingface:mnist'", "one of tfds's own builders, like mnist or mnist:3.0.1"),
    (DataConfig, "image_size", "'180'", "HEIGHTxWIDTH in pixels"),
    (DataConfig, "image_size", "'0x10'", "HEIGHTxWIDTH in pixels"),
    (DataConfig, "image_size", "'180 x 180'", "HEIGHTxWIDTH in pixels"),
    (DataConfig, "image_size", "'100000x100000'", "at most 89,478,485 pixels"),
    (DataConfig, "image_size", "'9999999999999x5'", "at most 89,478,485 pixels"),
    (DataConfig, "image_size", f"'{'9' * 5000}x5'", "HEIGHTxWIDTH in pixels"),
    (DataConfig, "scale", 0.0, "a positive number"),
    (DataConfig, "std", (0.5, 0.0), "positive numbers"),
    (OptimConfig, "learning_rate", 0.0, "a positive number"),
    (OptimConfig, "learning_rate", -0.1, "a positive number"),
    (OptimConfig, "learning_rate", float("nan"), "a finite number"),
    (OptimConfig, "momentum", 1.0, "0 ≤ momentum < 1"),
    (OptimConfig, "weight_decay", -1e-4, "0 or more"),
    (OptimConfig, "clip_norm", 0.0, "a positive number"),
    (OptimConfig, "final_fraction", 1.5, "0 to 1"),
    (OptimConfig, "warmup_epochs", -1.0, "0 or more"),
    (OptimConfig, "step_epochs", 0, "a whole number of at least 1"),
    (OptimConfig, "step_factor", 0.0, "above 0, at most 1"),
    (OptimConfig, "step_factor", 2.0, "above 0, at most 1"),
    (PlanConfig, "chunk_steps", 0, "a whole number of at least 1"),
    (PlanConfig, "chunk_steps", True, "a whole number"),
    (PlanConfig, "resident_megabytes", 0, "a whole number of at least 1"),
    (PlanConfig, "readers", -1, "a whole number of at least 0"),
    (TrainConfig, "patience", 0, "a whole number of at least 1"),
    (DataConfig, "background", (0, 0, 256), "three levels from 0 to 255"),
    (DataConfig, "whiten_epsilon", 0.0, "a positive number"),
]
SECTION_OF = {kind: section for section, kind in SECTIONS.items()}


@pytest.mark.parametrize(("kind", "field", "shown", "rule"), BAD_VALUES)
def test_bad_value_is_refused_with_field_value_and_rule(kind: Any, field: str, shown: Any, rule: str):
    value = shown.strip("'") if isinstance(shown, str) else shown
    with pytest.raises(InputError) as raised:
        kind(**{field: value})
    assert str(raised.value).startswith(f"{SECTION_OF[kind]}.{field}: got {shown}; expected {rule}. ")


WRONG_TYPES = [
    (DataConfig, "image_size", 180),
    (DataConfig, "image_size", (180, 180, 3)),
    (DataConfig, "validation_fraction", "0.1"),
    (DataConfig, "scale", "1"),
    (DataConfig, "mean", 0.5),
    (DataConfig, "std", 0.5),
    (TrainConfig, "label_smoothing", "0.1"),
    (OptimConfig, "learning_rate", "fast"),
    (OptimConfig, "weight_decay", "0"),
]


@pytest.mark.parametrize(("kind", "field", "value"), WRONG_TYPES)
def test_value_of_another_type_is_refused_with_the_field(kind: Any, field: str, value: Any):
    with pytest.raises(InputError, match=rf"^{SECTION_OF[kind]}\.{field}: got .*; expected "):
        kind(**{field: value})


LOSS_NAMES = "softmax_cross_entropy, binary_cross_entropy, focal, binary_focal, mean_squared_error, mean_absolute_error"
UNKNOWN_NAMES = [
    (OptimConfig, "name", "adm", "sgd, momentum, rmsprop, adam, adamw, lion, lamb, lars, muon", "adam"),
    (
        OptimConfig,
        "schedule",
        "cosin",
        "constant, cosine, linear, polynomial, step, exponential, cosine_restarts, one_cycle, plateau",
        "cosine",
    ),
    (
        TrainConfig,
        "loss",
        "cross_entropy",
        LOSS_NAMES,
        None,
    ),
    (
        TrainConfig,
        "loss",
        "mse",
        LOSS_NAMES,
        None,
    ),
    (DataConfig, "resize", "strech", "stretch, crop, pad, shorter", "stretch"),
    (DataConfig, "color", "rbg", "grayscale, rgb, rgba, la, cmyk, lab", "rgb"),
    (PlanConfig, "lowering", "matrx", "auto, direct, eigen, matrix, xla", "matrix"),
]


@pytest.mark.parametrize(("kind", "field", "name", "known", "nearest"), UNKNOWN_NAMES)
def test_unknown_name_is_refused_with_the_known_and_the_nearest(
    kind: Any, field: str, name: str, known: str, nearest: str | None
):
    with pytest.raises(InputError) as raised:
        kind(**{field: name})
    message = str(raised.value)
    assert message.startswith(f"{SECTION_OF[kind]}.{field}: got {name!r}; expected one of {known}. ")
    if nearest:
        assert message.endswith(f"Did you mean {nearest!r}?")


def test_label_smoothing_is_refused_when_the_loss_has_no_classes():
    with pytest.raises(InputError, match=r"train\.label_smoothing: got 0\.1; expected 0 with this loss"):
        TrainConfig(loss="mean_squared_error", label_smoothing=0.1)
    assert TrainConfig(loss="mean_squared_error").label_smoothing == 0


def test_all_problems_of_a_section_are_named_at_once():
    with pytest.raises(InputError) as raised:
        TrainConfig(epochs=-1, batch_size=0, loss="mse", label_smoothing=2.0, seed=-1)  # type: ignore[arg-type]
    fields = [line.split(":")[0] for line in str(raised.value).splitlines()]
    assert sorted(fields) == [f"train.{name}" for name in ("batch_size", "epochs", "label_smoothing", "loss", "seed")]


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "a\n"])
def test_run_name_is_refused_when_it_is_no_plain_directory_name(name: str):
    with pytest.raises(InputError, match=r"name: got .*; expected a plain directory name"):
        RunConfig(name, mlp())


def test_model_is_refused_when_it_is_no_spec():
    with pytest.raises(InputError, match=r"model: got .*; expected layer specs"):
        RunConfig("a", "cnn")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(180, 200), [180, 200]])
def test_sizes_are_taken_as_two_numbers(size: Any):
    config = DataConfig(path=Path("flowers"), image_size=size, center_crop=size)
    assert (config.image_size, config.center_crop) == ("180x200", "180x200")


def test_height_width_are_the_numbers_of_image_size():
    assert DataConfig(image_size="180x90").height_width == (180, 90)
    assert DataConfig().height_width is None


def changed(path: str, value: Any) -> dict[str, Any]:
    """The JSON of a config with one value replaced (or one field added)."""
    stored = RunConfig("a", mlp((4,))).to_json()
    *parents, last = path.split(".")
    part = stored
    for name in parents:
        part = part[int(name)] if name.isdigit() else part[name]
    part[last] = value
    return stored


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epochs", "5", r"config\.train\.epochs: got '5'; expected a whole number"),
        ("train.epochs", True, r"config\.train\.epochs: got True; expected a whole number"),
        ("train.epochs", -1, r"train\.epochs: got -1; expected a whole number"),
        ("train.epoch", 5, r"config\.train\.epoch: got 'epoch'; expected one of epochs, .*Did you mean 'epochs'"),
        ("optim.name", "adm", r"optim\.name: got 'adm'; .*Did you mean 'adam'"),
        ("data.mean", [0.5, "x"], r"config\.data\.mean\[1\]: got 'x'; expected a number"),
        ("data.data_dir", 3, r"config\.data\.data_dir: got 3; expected text"),
        ("data", [], r"config\.data: got \[\]; expected an object of named fields"),
        ("model.kind", "Sequental", r"config\.model\.kind: got 'Sequental'; .*Did you mean 'Sequential'"),
        ("model.layers.1.kind", "Dens", r"config\.model\.layers\[1\]\.kind: got 'Dens'; .*Did you mean 'Dense'"),
        ("model.layers.1.unit", 3, r"config\.model\.layers\[1\]\.unit: got 'unit'; .*Did you mean 'units'"),
    ],
)
def test_config_json_is_refused_with_the_dotted_field_when_edited_badly(path: str, value: Any, message: str):
    with pytest.raises(InputError, match=message):
        RunConfig.from_json(changed(path, value))


@pytest.mark.parametrize("field", ["name", "model"])
def test_config_json_is_refused_with_the_field_when_it_lacks_one(field: str):
    stored = RunConfig("a", mlp()).to_json()
    del stored[field]
    with pytest.raises(InputError, match=rf"config\.{field}: "):
        RunConfig.from_json(stored)


def help_of_fields(kind: type) -> dict[str, str]:
    """The docstring line below each field of a dataclass in engine/config/."""
    tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    found = {}
    for field, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = after.value.value
    return found


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=FIELD_IDS)
def test_field_has_help(kind: type, name: str):
    text = SECTIONS[name].__doc__ if kind is RunConfig and name in SECTIONS else help_of_fields(kind).get(name)
    assert text
    assert text.strip().endswith((".", "…"))


def attributes_read() -> set[tuple[str, str]]:
    """(owner, attribute) of each `owner.attribute` and `….owner.attribute` in engine/ outside the configs."""
    found = set()
    for file in Path(engine.__file__).parent.rglob("*.py"):
        if file.parent != Path(config_module.__file__).parent or file.name in ("finetune.py", "correction.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
                    owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                    found.add((owner, node.attr))
    return found


def names_quoted() -> set[str]:
    """The texts in engine/augment, outside its config, that could be names of fields."""
    of_settings = ("config.py", "rules.py", "presets.py", "keras_arguments.py", "preset_config.py", "generator.py")
    files = [file for file in Path(augment.__file__).parent.glob("*.py") if file.name not in of_settings]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


READ, QUOTED = attributes_read(), names_quoted()


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=FIELD_IDS)
def test_field_has_a_reader(kind: type, name: str):
    owners = {"config", SECTION_OF.get(kind, "config")}
    # Sizes are read as numbers.
    names = {
        name,
        {"image_size": "height_width", "center_crop": "crop_height_width", "metrics": "asked_metrics"}.get(name, name),
    }
    read = {(owner, name) for owner in owners for name in names} & READ
    # Ranges and probabilities of an augmentation are asked for by their names.
    assert read or (kind is AugmentConfig and name in QUOTED), f"nothing reads {kind.__name__}.{name}"


def test_records_of_plans_of_before_are_read_with_todays_names():
    pinned = from_json(PlanConfig, {"kind": "PlanConfig", "lowering": "native", "data": "streamed", "members": "map"})
    assert pinned == PlanConfig("xla", placement="streamed", member_mapping="map")
    assert from_json(Plan, {"lowering": "native", "members": "vmap"}) == Plan("xla", member_mapping="vmap")
    assert from_json(PlanConfig, to_json(pinned)) == pinned
    with pytest.raises(InputError, match=r"plan\.lowering: got 'native'; expected one of .*, xla\."):
        PlanConfig("native")  # type: ignore[arg-type]  # once, in Python, where the reader can change it
