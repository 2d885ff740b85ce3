"""Two phases in one training: the head on stored features of a frozen base, then the top of the base with it."""

import dataclasses
import inspect

import keras
import numpy as np
import pytest

from dermaseg import cli, transfer
from dermaseg.data import Split, make_synthetic, read_samples
from dermaseg.fitting import new_model
from dermaseg.models import build_cnn, build_inception_resnet
from dermaseg.prediction import Predictor
from dermaseg.presets import DEFAULT_PRESET, load_preset
from dermaseg.runs import read_json, write_json
from dermaseg.tasks import Settings, get_task
from dermaseg.training import recalibrate, resume, train
from dermaseg.transfer import head_comes_first, train_head

TINY = {"size": 88, "batch_size": 8, "steps": 8, "precision": "float32", "head_epochs": 3}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*part has no photograph of:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*say neither lesion nor patient:UserWarning"),
]


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """A folder of nine classes of six photographs, Train and Test above them, as isic9."""
    folder = tmp_path_factory.mktemp("nine")
    for index, sample in enumerate(make_synthetic(folder / "all", count=54, size=(48, 64), seed=5)):
        place = folder / "classes" / f"class {index // 2 % 9}"
        place.mkdir(parents=True, exist_ok=True)
        sample.image.rename(place / sample.image.name)
    return folder / "classes"


@pytest.fixture
def samples(nine):
    """The same as a table that says the lesions, so that no photograph is looked at twice."""
    table = read_samples(nine)
    rows = [dataclasses.replace(sample, lesion_id=f"lesion {index}") for index, sample in enumerate(table)]
    return dataclasses.replace(table, rows=rows)


@pytest.fixture
def pretrained(small_base, tmp_path):
    """A file of weights for the base."""
    path = tmp_path / "base.weights.h5"
    build_inception_resnet(num_classes=9, weights=None).get_layer("inception_resnet_v2").save_weights(path)
    return str(path)


def weights_by_name(model):
    return {weight.path.split("inception_resnet_v2/")[-1]: keras.ops.convert_to_numpy(weight) for weight in model.weights}


class Look(keras.callbacks.Callback):
    """Remember the weights and what learns when the second phase begins."""

    def on_train_begin(self, logs=None):
        self.weights = weights_by_name(self.model)
        self.learns = {variable.path.split("/")[-2] for variable in self.model.trainable_variables}


def test_the_head_learns_first_on_features_computed_once_then_the_top(samples, pretrained, tmp_path, monkeypatch):
    computed, look = [], Look()
    real = transfer.cache_features

    def record(model, images, folder, **options):
        computed.append((len(images), real(model, images, folder, **options)))
        return computed[-1][1]

    monkeypatch.setattr(transfer, "cache_features", record)
    options = {**TINY, "model": {"weights": pretrained, "dropout": 0.0}}
    run = train("classify-9", samples, tmp_path / "run", callbacks=[look], **options)
    parts = Split.load(run.split).parts
    assert [count for count, _ in computed] == [len(parts["train"]), len(parts["validation"])]
    rows = run.head_history.read_text().splitlines()
    assert len(rows) == 1 + TINY["head_epochs"]
    assert rows[0].startswith("epoch,")
    assert "val_balanced_accuracy" in rows[0]
    # The second phase begins with the base as it came, and a head that has learned.
    untouched = weights_by_name(build_inception_resnet(num_classes=9, weights=pretrained))
    changed = {name for name, weight in look.weights.items() if not np.array_equal(weight, untouched[name])}
    assert {name.split("/")[0] for name in changed} == {"label_logits"}
    assert look.learns == {"label_logits", "conv_7b_conv"}
    # It ends with a top that has learned; batch normalisation's statistics stay those of the base.
    finished = Predictor(run.path).model
    after = weights_by_name(finished)
    moved = {name.split("/")[0] for name in after if not np.array_equal(after[name], untouched[name])}
    assert moved == {"label_logits", "conv_7b_conv"}
    assert {variable.path.split("/")[-2] for variable in finished.trainable_variables} == look.learns


def test_the_head_lowers_its_loss(samples, pretrained, tmp_path):
    model = build_inception_resnet(num_classes=9, weights=pretrained, dropout=0.0)
    plan = Settings(head_epochs=30, batch_size=8, mix="mixup", imbalance="sampling")
    rows = train_head(model, get_task("classify-9"), plan, (samples, samples), size=(32, 32), weights=None, cache=tmp_path)
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 31))


def test_an_interrupted_head_computes_no_features_again(samples, pretrained, tmp_path, monkeypatch):
    real = keras.Model.fit

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    options = {**TINY, "model": {"weights": pretrained}}
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("classify-9", samples, tmp_path / "run", **options)
    stored = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cache").glob("features_*.npy")}
    assert len(stored) == 2
    seen = {}

    def fit(self, *args, **kwargs):
        seen.update({path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cache").glob("features_*.npy")})
        return real(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", fit)
    assert resume(tmp_path / "run").model.is_file()
    assert seen == stored


def test_without_weights_everything_learns_from_the_start_also_from_the_shell(small_base, nine, tmp_path, capsys):
    """`dermaseg train classify-9 --data isic9 --model weights=none`."""
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in {**TINY, "head_epochs": 20, "steps": 4}.items()]
    command = ["train", "classify-9", "--data", str(nine), "--output", str(tmp_path / "run"), "--model", "weights=none"]
    assert cli.run([*command, *settings]) == 0, capsys.readouterr().err
    assert read_json(tmp_path / "run" / "settings.json")["settings"]["model"] == {"weights": None}
    assert not (tmp_path / "run" / "head.csv").exists()
    model = Predictor(tmp_path / "run").model
    learns = {variable.path.split("/")[-2] for variable in model.trainable_variables}
    assert learns == {"label_logits", "conv_7b_conv", "mixed_7a_conv", "stem_conv"}
    assert "balanced_accuracy" in capsys.readouterr().out


def test_photographs_too_small_for_the_base_are_refused_before_anything_is_written(samples, pretrained, tmp_path):
    with pytest.raises(ValueError, match="photographs of 65 x 87 pixels, and Inception-ResNet-V2 needs 75 per side"):
        train("classify-9", samples, tmp_path / "run", **{**TINY, "size": 75, "model": {"weights": pretrained}})
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_base_has_no_head_to_train_first(samples, tmp_path):
    with pytest.raises(ValueError, match="head_epochs: the network of classify has no base"):
        train("classify", samples, tmp_path / "run", **{**TINY, "model": {"filters": (8, 16)}})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="head_epochs must be an integer of at least 0"):
        Settings(head_epochs=-1)
    assert head_comes_first(get_task("classify-9").settings)
    assert not head_comes_first(Settings(head_epochs=3, model={"weights": None}))


def head_of(model):
    return [np.asarray(weight) for weight in model.get_layer("label_logits").weights]


@pytest.mark.parametrize("given", ["folder", "file", "file without a card"])
def test_a_head_is_lent_to_the_same_classes_in_the_same_order_alone(samples, tmp_path, given):
    lender = build_cnn(num_classes=9, filters=(8, 16))
    lender.save(tmp_path / "model.keras")
    if given != "file without a card":
        write_json(tmp_path / "model.json", {"class_names": list(samples.class_names)})
    start = tmp_path if given == "folder" else tmp_path / "model.keras"
    others = samples.relabel({name: "wart" if name == "class 0" else name for name in samples.class_names})
    turned = samples.with_class_names(tuple(reversed(samples.class_names)))
    for part, alike in ((samples, True), (others, False), (turned, False)):
        model = new_model(get_task("classify"), Settings(model={"filters": (8, 16)}), part, precision="float32", start=start)
        lent = np.array_equal(head_of(model)[0], head_of(lender)[0])
        assert lent == (alike or given == "file without a card")
        np.testing.assert_array_equal(*(net.get_layer("stem_conv").get_weights()[0] for net in (model, lender)))


@pytest.mark.parametrize("how", ["start", "weights"])
def test_a_presets_head_is_lent_to_its_own_classes_alone(how, classes_folder):
    samples = read_samples(classes_folder)
    plan, start = (Settings(), DEFAULT_PRESET) if how == "start" else (Settings(model={"weights": DEFAULT_PRESET}), None)
    stored = head_of(load_preset(DEFAULT_PRESET))
    for part in (samples, samples.with_class_names(tuple(reversed(samples.class_names)))):
        kernel, bias = head_of(new_model(get_task("hybrid"), plan, part, precision="float32", start=start))
        if part is samples:
            np.testing.assert_array_equal(kernel, stored[0])
        else:
            assert not bias.any()
            assert kernel.std() > 0
            assert np.abs(kernel - stored[0]).max() > 0.01


def test_thresholds_reach_the_sensitivity_asked_for(samples, tmp_path):
    """Saved with the model, applied by predict, and settled anew without training."""
    options = {**TINY, "size": 32, "head_epochs": 0, "steps": 4, "model": {"filters": (8, 16)}}
    run = train("classify", samples, tmp_path / "run", sensitivity=1.0, **options)
    saved = read_json(run.model_card)["decisions"]
    assert saved["sensitivity"] == 1.0
    predictor = Predictor(run.path)
    assert predictor.decisions.sensitivity == 1.0
    validation = Split.load(run.split).apply(samples)["validation"]
    for sample, prediction in zip(validation, predictor.predict(sample.image for sample in validation), strict=True):
        own = samples.class_names[sample.label]
        if prediction.classes[own] > saved["thresholds"][own] + 1e-4:  # the rest stand at the threshold, within rounding
            assert own in prediction.summary()["above_threshold"]
        assert prediction.classes[own] > saved["thresholds"][own] - 1e-4
    milder = recalibrate(run, sensitivity=0.3)
    assert Predictor(run.path).decisions.sensitivity == 0.3
    assert all(milder.thresholds[name] >= threshold for name, threshold in saved["thresholds"].items())
    assert recalibrate(run).sensitivity == 1.0
    with pytest.raises(ValueError, match="sensitivity must be above 0 and at most 1"):
        recalibrate(run, sensitivity=90)


def test_a_default_of_sensitivity_is_said_once():
    from dermaseg.decisions import Decisions, fit_label_decisions

    default = inspect.signature(fit_label_decisions).parameters["sensitivity"].default
    assert Settings().sensitivity == Decisions().sensitivity == default
