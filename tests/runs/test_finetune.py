"""Fine-tuning: what is frozen stays and costs nothing, what is kept changes nothing, any step can be gone on from."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine import FineTuneConfig, InputError
from engine.config import OptimConfig
from engine.config.finetune import dotted_names, frozen_layers
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.keys import step_key
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from engine.report.progress import Silent
from engine.runs.feature_cache import needed_megabytes
from engine.runs.session import Session
from engine.training.freezing import carried_over
from engine.training.optim import LayerRates, optimizer
from engine.training.step import Batch, train_step
from tests.conftest import make_dataset
from tests.faults.comparison import content_differences, same_bits, step_content
from tests.further import further
from tests.runs.test_loop import start
from tests.runs.test_resume import stopped

NET = Sequential(
    (Conv(3, 3, activation="relu"), BatchNorm(0.5), MaxPool(2), Dropout(0.1), Conv(4, 2, use_bias=False),
     BatchNorm(0.5), Flatten(), Dense(6, activation="relu"), Dropout(0.3), Dense())
)  # fmt: skip
TRUNK = ("conv_*", "batch_norm_*", "dropout_1")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run on three classes whose batch statistics are no more those at the start."""
    directory = tmp_path_factory.mktemp("source")
    config = engine.RunConfig("source", NET, train=engine.TrainConfig(epochs=2, batch_size=64))
    start(config, Splits(make_dataset(200), make_dataset(50, 1)), directory)
    return directory


@pytest.fixture
def four() -> Splits:
    """Four classes: others than those of the source. Three batches, the last one padded."""
    return Splits(make_dataset(160, 3, num_classes=4), make_dataset(40, 4, num_classes=4))


def tuned(source: Path | None, *, epochs: int = 3, optim: OptimConfig | None = None, **settings) -> engine.RunConfig:
    return engine.RunConfig(
        "tuned",
        NET,
        train=engine.TrainConfig(epochs=epochs, batch_size=64),
        optim=optim or OptimConfig("adam", 0.01),
        finetune=FineTuneConfig(init=source, **settings),
    )


def make_session(config: engine.RunConfig, splits: Splits) -> Session:
    return Session(config, splits, Clock(), Path("nowhere"))


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_frozen_layers_stay_to_the_bit_with_their_batch_statistics_and_the_others_train(source, four, tmp_path):
    start(tuned(source, freeze=("conv_1", "batch_norm_1"), cache_features="off"), four, tmp_path)
    before, after = engine.restore(source), engine.restore(tmp_path, step="last")
    old, new = leaves((before.params, before.model_state)), leaves((after.params, after.model_state))
    assert set(old) == set(new)
    for path in old:
        is_head, is_frozen = "[9]" in path, "['layers'][0]" in path or "['layers'][1]" in path
        assert is_head or same_bits(old[path], new[path]) == is_frozen, path
    assert new["[0]['layers'][9]['kernel']"].shape == (6, 4)


def test_training_with_frozen_layers_equals_a_plain_flax_loop(source, four):
    momentum = OptimConfig("momentum", 0.05, nesterov=True)  # Adam would make rounding errors of gradients near 0 large
    session = make_session(tuned(source, optim=momentum, freeze=("batch_norm_1", "conv_2", "dropout_*")), four)
    module = nnx.merge(*_module_of(session))
    is_trained = {0, 5, 7, 9}

    def trains(path, value) -> bool:
        return isinstance(value, nnx.Param) and path[1] in is_trained

    chain = nnx.Optimizer(module, optax.sgd(0.05, momentum=0.9, nesterov=True), wrt=trains)
    order = np.asarray(session.equipment.program.order(0, 160))

    @nnx.jit
    def update(module, chain, x, y):
        def loss(module):
            module.train()
            module.layers[1].eval()
            module.layers[3].eval()
            module.layers[8].eval()
            return optax.softmax_cross_entropy_with_integer_labels(module(x), y).mean()

        chain.update(module, nnx.grad(loss, argnums=nnx.DiffState(0, trains))(module))

    for step in range(3):
        examples = order[step * 64 : (step + 1) * 64][: 160 - step * 64]
        x = jnp.asarray(four.train.images[examples], jnp.float32) / 255
        update(module, chain, x, jnp.asarray(four.train.labels[examples]))
    while session.step < 3:
        session.train_chunk()
    params, state = session.whole_model
    expected = leaves((nnx.as_pure(nnx.state(module, nnx.Param)), nnx.as_pure(nnx.state(module, nnx.BatchStat))))
    for path, value in leaves((params, state)).items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-4, atol=2e-6, err_msg=path)


def _module_of(session: Session):
    from engine.networks.build import build

    module = build(NET, (8, 8, 1), 4, nnx.Rngs(0))
    graph, _, rest, _ = nnx.split(module, nnx.Param, nnx.RngState, ...)
    params, state = session.whole_model
    return graph, *jax.tree.map(jnp.copy, (params, rest, state))  # the session trains on its own


def flops_of_a_step(session: Session) -> float:
    key, objective = step_key(0, "dropout", 0), session.stage.objective
    batch = np.zeros((64, 8, 8, 1), np.uint8), np.zeros(64, np.int32), np.ones(64, bool)

    def step(state, batch):
        return train_step(objective, state, Batch(*batch), key)

    lowered = jax.jit(step).lower(session.state, batch)
    cost = lowered.compile().cost_analysis()
    assert cost is not None
    return cost["flops"]


def test_no_gradient_is_computed_below_the_lowest_layer_that_trains(four):
    wide = Sequential((Conv(8, 3), Conv(64, 3), Conv(64, 3), Flatten(), Dense()))
    full, part = (
        make_session(replace(tuned(None, freeze=freeze), model=wide, plan=engine.PlanConfig("matrix")), four)
        for freeze in ((), ("conv_*",))
    )
    forward = 64 * 2 * (36 * 9 * 8 + 16 * 9 * 8 * 64 + 4 * 9 * 64 * 64)
    head = 64 * 2 * 256 * 4
    assert flops_of_a_step(part) == pytest.approx(forward + 2 * head, rel=0.1)
    assert flops_of_a_step(full) > 2.5 * forward


def test_frozen_layers_take_no_optimizer_memory(source, four):
    session = make_session(tuned(source, freeze=TRUNK), four)
    trained = sum(leaf.size for leaf in jax.tree.leaves(session.state.params))
    assert trained == 16 * 6 + 6 + 6 * 4 + 4
    kept = sum(leaf.size for leaf in jax.tree.leaves(session.state.opt_state))
    assert kept == 2 * trained + 1  # means and a count


def rates_of(factors: dict[str, float], first: dict[str, int]) -> LayerRates:
    return LayerRates(
        lambda path: factors.get(path[0].key, 1.0), lambda path: first.get(path[0].key, 0), bool(factors), bool(first)
    )


@pytest.mark.parametrize("name", ["adamw", "momentum", *further(["sgd", "rmsprop", "adam"])])
def test_factors_on_layers_equal_an_optimizer_of_its_own_rate_for_each(name):
    config = OptimConfig(name, 0.03, weight_decay=0.1, schedule="cosine", warmup_epochs=1)
    ours = optimizer(config, 4, 3, layers=rates_of({"a": 0.1, "b": 2.0}, {}))
    own_rates = {"a": 0.003, "b": 0.06, "c": 0.03}
    each = {key: optimizer(replace(config, learning_rate=rate), 4, 3) for key, rate in own_rates.items()}
    theirs = optax.multi_transform(each, {key: key for key in "abc"})  # type: ignore[arg-type]
    draw = np.random.default_rng(0)
    params = {key: jnp.asarray(draw.normal(size=(3, 2)), jnp.float32) for key in "abc"}
    results = []
    for chain in (ours, theirs):
        state, now = chain.init(params), params
        for i in range(6):
            gradients = {key: jnp.sin(leaf * (i + 1)) for key, leaf in now.items()}
            updates, state = chain.update(gradients, state, now)
            now = optax.apply_updates(now, updates)
        results.append(now)
    for key in "abc":
        np.testing.assert_allclose(results[0][key], results[1][key], rtol=1e-5, atol=1e-7)


def test_layers_that_start_late_have_the_steps_of_a_fresh_optimizer_and_the_others_go_on():
    config = OptimConfig("adam", 0.01, schedule="linear", rules="optax")
    rates, start_step = rates_of({}, {"late": 300}), 300
    chain = optimizer(config, 1, 400, layers=rates)
    draw = np.random.default_rng(1)
    params = {key: jnp.asarray(draw.normal(size=5), jnp.float32) for key in ("early", "late")}
    early = {"early": params["early"]}
    state, alone = chain.init(early), optax.adam(lambda step: 0.01 * (1 - step / 400), eps=1e-7)
    alone_state, alone_params = alone.init(early), early
    fresh = optax.adam(lambda step: 0.01 * (1 - (step + start_step) / 400), eps=1e-7)
    fresh_params, now = {"late": params["late"]}, dict(early)
    fresh_state = fresh.init(fresh_params)
    for step in range(320):
        if step == start_step:
            now = {**now, "late": params["late"]}
            state = carried_over(chain.init(now), state)
        gradients = {key: jnp.asarray(draw.normal(size=5), jnp.float32) for key in now}
        updates, state = chain.update(gradients, state, now)
        now = optax.apply_updates(now, updates)
        updates, alone_state = alone.update({"early": gradients["early"]}, alone_state, alone_params)
        alone_params = optax.apply_updates(alone_params, updates)
        if step >= start_step:
            updates, fresh_state = fresh.update({"late": gradients["late"]}, fresh_state, fresh_params)
            fresh_params = optax.apply_updates(fresh_params, updates)
    np.testing.assert_allclose(now["early"], alone_params["early"], rtol=1e-5)
    np.testing.assert_allclose(now["late"], fresh_params["late"], rtol=1e-5)


CASES = {
    "frozen": {"freeze": TRUNK},
    "thawed": {"freeze": TRUNK, "unfreeze": ("1:conv_2", "1:batch_norm_2", "2:*"), "learning_rates": ("conv_*=0.1",)},
    "uncached": {"freeze": TRUNK, "unfreeze": ("2:conv_2",), "cache_features": "off"},
}


@pytest.mark.parametrize("case", ["thawed", *further(name for name in CASES if name != "thawed")])
def test_run_stopped_in_any_phase_goes_on_bit_identically(case, source, four, tmp_path):
    optim = OptimConfig("adam", 0.01, average_decay=0.9) if case == "thawed" else None
    config = replace(
        tuned(source, optim=optim, **CASES[case]),
        plan=engine.PlanConfig(chunk_steps=1),
        checkpoint=engine.CheckpointConfig(every_steps=1, keep_last=100),
    )
    start(config, four, tmp_path / "whole")
    stopped(config, four, tmp_path / "parts", (2, 3, 4, 6) if case == "thawed" else (4, 6))
    for step in range(1, 10):
        found = content_differences(step_content(tmp_path / "whole", step), step_content(tmp_path / "parts", step))
        assert not found, f"step {step}"


class Hears(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.said: list[str] = []

    def say(self, text, *rest):
        self.said.append(str(text))


@pytest.mark.parametrize("case", ["frozen", *further(["thawed"])])
def test_features_that_are_kept_change_nothing(case, source, four, tmp_path):
    config, reporter = tuned(source, **CASES[case]), Hears()
    kept = start(config, four, tmp_path / "kept", reporter)
    off = replace(config, finetune=replace(config.finetune, cache_features="off"))
    anew = start(off, four, tmp_path / "anew")
    assert any("130 of 222 parameters train, the others are frozen" in text for text in reporter.said)
    told = [line for line in reporter.said if "s an epoch" in line]
    assert "outputs of the first 7 layers for 160 training examples are kept" in told[0]
    assert len(told) == (1 if case == "frozen" else 2)
    for ours, theirs in zip(kept.history, anew.history, strict=True):
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)
    ours, theirs = (engine.restore(tmp_path / name, step="last") for name in ("kept", "anew"))
    for path, value in leaves((ours.params, ours.model_state)).items():
        np.testing.assert_allclose(value, leaves((theirs.params, theirs.model_state))[path], rtol=1e-5, atol=1e-6)


def test_whitening_is_taken_over_and_applied_before_frozen_layers_whose_features_are_kept(four, tmp_path):
    data = engine.DataConfig(standardize="whiten")
    first = engine.RunConfig("source", NET, data, engine.TrainConfig(epochs=1, batch_size=64))
    start(first, Splits(make_dataset(200)), tmp_path / "source")
    config = tuned(tmp_path / "source", epochs=2, freeze=TRUNK)
    kept = start(config, four, tmp_path / "kept")
    anew = start(replace(config, finetune=replace(config.finetune, cache_features="off")), four, tmp_path / "anew")
    for ours, theirs in zip(kept.history, anew.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-6)
    (fitted, _), (taken, _) = (engine.restore(tmp_path / n, step="last").model_state for n in ("source", "kept"))
    assert leaves(fitted)
    assert all(same_bits(value, leaves(taken)[path]) for path, value in leaves(fitted).items())


def test_features_are_not_kept_where_memory_is_short_or_images_are_augmented(source, four, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.runs.feature_cache.cache_megabytes", lambda: 0)
    reporter = Hears()
    start(tuned(source, epochs=1, freeze=TRUNK), four, tmp_path / "short", reporter)
    assert any("computed again in each epoch: its 1 MB are more than half" in line for line in reporter.said)
    monkeypatch.undo()
    augmented = replace(tuned(source, freeze=TRUNK), augment=engine.AugmentConfig(horizontal_flip=True))
    session = make_session(augmented, four)
    assert needed_megabytes(four, session.setup.model, session.stage.phase) == 0


def test_classes_by_the_same_names_keep_the_head_and_others_start_it_anew(source, four):
    same = make_session(tuned(source), Splits(make_dataset(100, 5)))
    stored = leaves(engine.restore(source).params)
    assert all(same_bits(value, stored[path]) for path, value in leaves(same.state.params).items())
    renamed = replace(make_dataset(100, 5), class_names=("x", "y", "z"))
    other = leaves(make_session(tuned(source), Splits(renamed)).state.params)
    changed = {path for path, value in other.items() if not same_bits(value, stored[path])}
    assert changed == {"['layers'][9]['kernel']", "['layers'][9]['bias']"}
    named = make_session(tuned(source, head=("dense_*",)), Splits(make_dataset(100, 5))).state.params
    assert not same_bits(leaves(named)["['layers'][7]['layer']['kernel']"], stored["['layers'][7]['layer']['kernel']"])


def test_ensemble_starts_from_one_model_or_from_as_many(source, four, tmp_path):
    config = tuned(source, epochs=1, freeze=TRUNK)
    config = replace(config, train=replace(config.train, members=2))
    first = start(config, four, tmp_path / "first").classifier
    stored = leaves(engine.restore(source).params)["['layers'][0]['layer']['kernel']"]
    for member in first.members:  # type: ignore[attr-defined]
        assert same_bits(leaves(member.params)["['layers'][0]['layer']['kernel']"], stored)
    heads = [leaves(member.params)["['layers'][9]['kernel']"] for member in first.members]  # type: ignore[attr-defined]
    assert not same_bits(*heads)
    further = engine.finetune(
        first, four, epochs=1, verbose=False, freeze=["dense_2", "conv_*"], batch_size=64, unfreeze={1: "dense_2"}
    )
    found = [leaves(member.params)["['layers'][9]['kernel']"] for member in further.classifier.members]
    assert all(same_bits(*pair) for pair in zip(found, heads, strict=True))
    three = replace(config, train=replace(config.train, members=3), finetune=FineTuneConfig(init=tmp_path / "first"))
    with pytest.raises(InputError, match=r"train.members: got 3; expected 2"):
        make_session(three, four)


def test_classifier_is_fine_tuned_in_python_under_its_input_contract(source, four):
    result = engine.finetune(
        engine.restore(source),
        four,
        freeze=TRUNK,
        unfreeze={1: ["conv_2"]},
        learning_rates={"conv_2": 0.1},
        epochs=2,
        verbose=False,
    )
    assert result.classifier.class_names == four.train.class_names
    assert result.classifier.input_spec == engine.restore(source).input_spec
    assert result.config.finetune.unfreeze == ("1:conv_2",)
    arrays = (four.train.images, four.train.labels)
    assert engine.finetune(source, arrays, epochs=1, verbose=False).classifier.class_names == ("0", "1", "2", "3")


class OwnNet(nnx.Module):
    """A class of one's own with parts in a part."""

    def __init__(self, *, input_shape, num_outputs, rngs):
        self.encoder = nnx.Sequential(
            nnx.Conv(1, 3, (3, 3), rngs=rngs), nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        )
        self.shift = nnx.Param(jnp.zeros(3))
        self.head = nnx.Linear(3, num_outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(self.encoder(x).mean((1, 2)) + self.shift.get_value()[None])


def test_own_class_is_frozen_by_paths_and_its_head_found_by_shape(four, tmp_path):
    model = engine.custom(OwnNet)
    config = replace(tuned(None, epochs=1), model=model)
    start(config, Splits(make_dataset(100)), tmp_path / "first")
    further = replace(config, finetune=FineTuneConfig(init=tmp_path / "first", freeze=("encoder",)))
    session = make_session(further, four)
    assert session.stage.phase.layers.names == (
        "encoder.layers.0",
        "encoder.layers.1",
        "encoder.layers.2",
        "head",
        "shift",
    )
    assert set(leaves(session.state.params)) == {"['head']['bias']", "['head']['kernel']", "['shift']"}
    start(further, four, tmp_path / "second")
    old, new = (leaves(engine.restore(tmp_path / n, trust=True, step="last").params) for n in ("first", "second"))
    for path in ("['encoder']['layers'][0]['kernel']", "['encoder']['layers'][1]['scale']"):
        assert same_bits(old[path], new[path])
    with pytest.raises(InputError, match=r"finetune.freeze_first: got 2; expected 0 for a class of your own"):
        make_session(replace(config, finetune=FineTuneConfig(freeze_first=2)), four)
    renamed = replace(make_dataset(100), class_names=("x", "y", "z"))
    with pytest.raises(InputError, match=r"finetune.head: got none; expected the layers that start from scratch"):
        make_session(further, Splits(renamed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ("conv1",)}, r"finetune.freeze: got 'conv1'; expected one of conv_1, .* Did you mean 'conv_1'"),
        ({"freeze_first": -1}, r"finetune.freeze_first: got -1"),
        ({"unfreeze": ("conv_1",)}, r"finetune.unfreeze: .*EPOCH:PATTERN"),
        ({"unfreeze": ("2:conv_1",)}, r"finetune.unfreeze: got 'conv_1'; expected frozen layers \(there are none\)"),
        ({"learning_rates": ("conv_1=0",)}, r"finetune.learning_rates: .*PATTERN=FACTOR, with a factor above 0"),
        ({"learning_rates": ("dens*_x=0.1",)}, r"finetune.learning_rates: got 'dens\*_x'; expected one of conv_1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_what_is_known(settings, message):
    with pytest.raises(InputError, match=message):
        tuned(None, **settings)


def test_source_that_does_not_fit_is_refused_with_both_sides(source, four, tmp_path):
    other = replace(tuned(source), model=Sequential((*NET.layers[:7], Dense(7), Dense())))
    with pytest.raises(InputError, match=r"others \(dense_1\)(.|\n)*dense_1 kernel: there 16×6, here 16×7"):
        make_session(other, four)
    with pytest.raises(InputError, match=r"data.scale: got 1.0; expected 0.0039.*, as the weights were trained with"):
        make_session(replace(tuned(source), data=engine.DataConfig(scale=1.0)), four)
    with pytest.raises(InputError, match=r"images of 9×9×1; expected 8×8×1"):
        make_session(tuned(source), Splits(make_dataset(100, size=9)))
    with pytest.raises(InputError, match=r"no such directory"):
        make_session(tuned(tmp_path / "nowhere"), four)
    with pytest.raises(InputError, match=r"finetune.freeze: got all layers with weights; expected at least one"):
        make_session(tuned(source, freeze=("*",)), four)


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("abcd"))), st.integers(0, 6))
def test_what_is_frozen_only_shrinks_and_is_what_the_last_epochs_say(unfreezings, epoch):
    config = FineTuneConfig(freeze=("*",), unfreeze=tuple(f"{when}:{name}" for when, name in unfreezings))
    now, later = (frozen_layers(config, dotted_names("abcd"), at) for at in (epoch, epoch + 1))
    assert later <= now
    assert now == {name for name in "abcd" if not any(n == name and when <= epoch for when, n in unfreezings)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": None}, r"finetune.freeze: got None; expected a list of layers"),
        ({"head": [1]}, r"finetune.head: got \[1\]; expected a list of layers"),
        ({"unfreeze": ["1:conv_1"]}, r"finetune.unfreeze: got \['1:conv_1'\]; expected epochs"),
        ({"unfreeze": {1: 3}}, r"finetune.unfreeze: got 3; expected a list of layers"),
        ({"learning_rates": ["conv_1=0.1"]}, r"finetune.learning_rates: got .*; expected layers, each with"),
        (
            {"learning_rates": {"conv_1": "a"}},
            r"finetune.learning_rates: got .*; expected layers, each with the factor",
        ),
    ],
    ids=str,
)
def test_arguments_of_another_kind_are_refused_in_python(settings, message, source, four):
    with pytest.raises(InputError, match=message):
        engine.finetune(source, four, verbose=False, **settings)


def test_what_is_no_model_is_not_fine_tuned(four):
    with pytest.raises(InputError, match="source: got NoneType; expected a classifier, or the directory"):
        engine.finetune(None, four)  # type: ignore[arg-type]


def test_one_layer_needs_no_list(source, four):
    result = engine.finetune(source, four, freeze="conv_1", learning_rates={"dense_1": np.float32(0.5)}, epochs=0)
    assert result.config.finetune.freeze == ("conv_1",)
    assert result.config.finetune.learning_rates == ("dense_1=0.5",)
