import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from dermaseg.data import HAM10000_CLASSES, Split, make_synthetic, read_samples
from dermaseg.decisions import Decisions, fit_label_decisions
from dermaseg.errors import DataError
from dermaseg.evaluation import evaluate, evaluate_run
from dermaseg.losses import ClassBalancedFocal, LogitAdjustedCrossentropy
from dermaseg.metrics import BalancedAccuracy
from dermaseg.models import build_cnn, build_unet
from dermaseg.prediction import Predictor
from dermaseg.run_data import is_own
from dermaseg.runs import RunFolder, read_json, write_json
from dermaseg.tasks import IMBALANCE, TASKS, Settings, get_task, prior_factors
from dermaseg.tasks.objectives import sampling_weights
from dermaseg.training import average_runs, recalibrate, resume, train
from dermaseg.transfer import lend_weights

TINY = {"size": 32, "batch_size": 8, "steps": 12, "precision": "float32", "model": {"filters": (8, 16)}}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*part has no photograph of:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*photographs that validate and test this run:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*or others of their lesions or patients, trained this run:UserWarning"),
]


@pytest.fixture(scope="module")
def samples(classes_folder):
    return read_samples(classes_folder)


def without(samples, masks=(), labels=()):
    """Take the mask or the label from some rows, by position."""
    rows = [
        dataclasses.replace(
            sample,
            mask=None if index in masks else sample.mask,
            label=None if index in labels else sample.label,
        )
        for index, sample in enumerate(samples)
    ]
    return dataclasses.replace(samples, rows=rows)


@pytest.fixture(scope="module")
def hybrid(samples, tmp_path_factory):
    """Trained on rows of which some have a mask only, and some a class only."""
    some = without(samples, masks=range(0, 20), labels=range(20, 40))
    return train("hybrid", some, tmp_path_factory.mktemp("runs") / "hybrid", **TINY)


@pytest.fixture(scope="module")
def classifier(samples, tmp_path_factory):
    """Of seven classes, hardly trained."""
    return train("classify-7", samples, tmp_path_factory.mktemp("runs") / "classifier", **{**TINY, "steps": 2})


def test_a_hybrid_learns_from_half_known_samples_and_reports_both(hybrid):
    report = evaluate_run(hybrid)
    assert {"jaccard", "accuracy", "balanced_accuracy", "majority_share"} <= set(report.figures)
    masks = sum("jaccard" in row for row in report.rows)
    named = sum("true" in row for row in report.rows)
    assert report.figures["jaccard"].count == masks < len(report.rows)
    assert report.figures["accuracy"].count == named < len(report.rows)
    text = report.to_markdown()
    assert "not defined are left out" in text
    assert "not defined are left out" in (hybrid.path / "report.html").read_text()
    assert "## Diagnoses by class" in text
    card = (hybrid.path / "MODEL_CARD.md").read_text()
    assert "free of others' rights" in card
    assert read_json(hybrid.settings)["split"] in card
    assert "## By sex" in card
    for name in ("report.png", "report-confusion.png", "report-roc.png", "report-reliability.png", "report.html"):
        assert (hybrid.path / name).stat().st_size > 1000


def test_a_hybrid_predicts_mask_and_classes(hybrid, samples):
    prediction = Predictor(hybrid.path, largest_component=True, fill_holes=True)(samples[0].image)
    assert prediction.mask.shape == (48, 64)
    assert tuple(prediction.classes) == HAM10000_CLASSES
    assert sum(prediction.classes.values()) == pytest.approx(1, abs=1e-5)
    summary = prediction.summary()
    assert summary["label"] == prediction.label
    assert {"lesion_px", "classes", "above_threshold", "possible", "mask_uncertainty", "label_uncertainty"} <= set(summary)
    assert summary["refer"] in (True, False)


@pytest.mark.parametrize("tta", ["flips", "dihedral"])
def test_test_time_augmentation_forgets_how_the_photograph_was_held(hybrid, samples, tta):
    predictor = Predictor(hybrid.path, tta=tta)
    image = np.asarray(predictor(samples[0].image).image)
    upright, mirrored = predictor(image), predictor(np.ascontiguousarray(image[:, ::-1]))
    # Resizing has no preferred side either, so mirroring commutes with all of it up to rounding.
    np.testing.assert_allclose(mirrored.probability[:, ::-1], upright.probability, atol=2e-3)
    assert mirrored.classes == pytest.approx(upright.classes, abs=2e-3)


def test_two_classes_are_made_of_seven(samples, tmp_path):
    run = train("classify-2", samples, tmp_path / "run", **TINY)
    card = read_json(run.model_card)
    assert card["class_names"] == ["benign", "malignant"]
    decisions = Decisions.from_dict(card["decisions"])
    assert decisions.temperature > 0
    assert decisions.conformal is not None
    assert Decisions.from_dict(decisions.to_dict()) == decisions
    assert set(decisions.thresholds) == {"benign", "malignant"}
    validation = Split.load(run.split).apply(samples)["validation"]
    assert sum(decisions.conformal.counts) == len({sample.lesion_id for sample in validation}) < len(validation)
    report = evaluate_run(run)
    assert {"alarm_sensitivity", "macro_auc"} <= set(report.figures)
    assert "jaccard" not in report.figures
    prediction = Predictor(run.path)(samples[0].image)
    assert prediction.probability is None
    assert prediction.save(tmp_path / "nothing", "name") == {}
    with pytest.raises(ValueError, match="names classes and outlines nothing"):
        prediction.mask  # noqa: B018


def test_saved_temperature_and_thresholds_are_applied(classifier, samples, tmp_path):
    raw = Predictor(Predictor(classifier.path).model, size=32)(samples[0].image).classes.values()
    decided = RunFolder.open(shutil.copytree(classifier.path, tmp_path / "run"))
    decisions = {"temperature": 2.0, "thresholds": {"mel": 1e-6, "nv": 1.0}}
    write_json(decided.model_card, {**read_json(decided.model_card), "decisions": decisions})
    prediction = Predictor(decided.path)(samples[0].image)
    expected = np.sqrt(np.array(list(raw)))
    np.testing.assert_allclose(list(prediction.classes.values()), expected / expected.sum(), rtol=1e-4)
    assert prediction.summary()["above_threshold"] == ["mel"]


def test_a_classifier_learns_the_synthetic_classes(samples, tmp_path):
    """More than the majority share, so that labels, images and classes are not shuffled against each other."""
    settings = {**TINY, "steps": 150, "learning_rate": 5e-3, "augment": "none"}
    last = keras.callbacks.Callback()  # knows the network as training left it; the best by so few photographs is chance
    run = train("classify-2", samples, tmp_path / "run", callbacks=[last], **settings)
    part = Split.load(run.split).apply(TASKS["classify-2"].prepare(samples))["train"]
    figures = evaluate(last.model, part, size=32, subgroups=()).figures
    assert figures["accuracy"].value > figures["majority_share"].value + 0.1


def test_a_classifier_is_reported_by_sex_age_and_site_each_with_an_interval(classifier, samples):
    report = evaluate_run(classifier)
    test = Split.load(classifier.split).apply(samples)["test"]
    for grouping in ("sex", "age", "localization"):
        groups = report.subgroups[grouping]
        assert sum(figures["accuracy"].count for figures in groups.values()) == len(test)
        assert len(groups) > 1
        for figures in groups.values():
            assert {"accuracy", "majority_share", "balanced_accuracy"} <= set(figures)
            for interval in figures.values():
                assert not interval.low > interval.value  # NaN of a single lesion
                assert not interval.high < interval.value
                assert interval.groups <= interval.count
    shares = [figures["majority_share"] for figures in report.subgroups["sex"].values()]
    assert any(share.low < share.high for share in shares)  # accuracy may be 0 after two steps
    text = report.to_markdown()
    assert all(f"## By {grouping}" in text for grouping in ("sex", "age"))


def test_sampling_makes_classes_equally_likely(samples):
    plan = Settings(imbalance="sampling")
    rare = samples.select([index for index, sample in enumerate(samples) if sample.label != 0 or index < 20])
    weights = sampling_weights(rare, plan)
    assert weights is not None
    by_class = [weights[rare.labels == label].sum() for label in set(rare.labels.tolist())]
    np.testing.assert_allclose(by_class, by_class[0])
    halved = sampling_weights(rare, Settings(imbalance="sampling", imbalance_strength=0.0))
    assert halved is not None
    np.testing.assert_allclose(halved, halved[0])
    assert sampling_weights(rare, Settings()) is None


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        ("classify-7", {}, r"no photograph of mel, so imbalance='logits' cannot weigh it"),
        ("segment", {"imbalance": "sampling"}, "no training photograph has a class"),
        ("segment", {"imbalance": "focal"}, "segment learns no classes to weigh"),
    ],
)
def test_classes_that_are_not_there_are_told_before_anything_is_written(samples, tmp_path, task, settings, says):
    if task == "segment":
        some = without(samples, labels=range(len(samples)))
    else:
        some = samples.filter(lambda sample: samples.class_names[sample.label] != "mel")
    with pytest.raises((DataError, ValueError), match=says):
        train(task, some, tmp_path / "run", **{**TINY, **settings})
    assert not (tmp_path / "run").exists()


def test_a_task_of_ones_own_with_one_sigmoid_is_resumed_when_it_is_given_again(samples, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    own = dataclasses.replace(
        get_task("classify-2"),
        build=lambda part, options: build_cnn(num_classes=1, **options),
        compile_options=lambda part, plan: {
            "loss": "binary_crossentropy",
            "metrics": [keras.metrics.BinaryAccuracy(name="accuracy"), BalancedAccuracy(2)],
        },
    )
    with pytest.raises(KeyboardInterrupt):
        train(own, samples, tmp_path / "run", callbacks=[Stop()], **TINY)
    for given in (None, get_task("classify-2")):
        with pytest.raises(ValueError, match="was begun with your own task 'classify-2'; pass that one as task="):
            resume(tmp_path / "run", task=given)
    resume(tmp_path / "run", task=own, data=samples)
    prediction = Predictor(tmp_path / "run")(samples[0].image)
    assert list(prediction.classes) == ["benign", "malignant"]
    assert sum(prediction.classes.values()) == pytest.approx(1)
    assert set() < set(prediction.decisions.thresholds) <= {"benign", "malignant"}
    with pytest.raises(ValueError, match="was begun with your own task 'classify-2'; pass that one as task="):
        evaluate_run(tmp_path / "run", data=samples)
    assert len(evaluate_run(tmp_path / "run", data=samples.select(range(8)), task=own).rows) == 8
    assert recalibrate(tmp_path / "run", sensitivity=0.5, task=own).sensitivity == 0.5


def test_a_changed_default_makes_no_task_of_ones_own():
    assert not is_own(dataclasses.replace(get_task("segment"), settings=Settings(steps=5)))
    assert is_own(dataclasses.replace(get_task("segment"), monitor=("val_loss",)))
    assert is_own(dataclasses.replace(get_task("segment"), name="mine"))


@pytest.mark.parametrize("sensitivity", [0.9, 0.5, 1.0])
def test_the_photographs_that_settle_a_threshold_reach_it_when_they_are_predicted(sensitivity):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    logits = rng.normal(size=(60, 2)) + 2 * np.eye(2)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    decisions = Decisions(**fit_label_decisions(labels, probabilities, ("a", "b"), sensitivity=sensitivity))
    calibrated = decisions.calibrate(probabilities)
    for index, name in enumerate(("a", "b")):
        reached = [float(value) >= decisions.thresholds[name] for value in calibrated[labels == index, index]]
        assert np.mean(reached) >= sensitivity


def test_no_sampled_copy_crosses_the_split(samples, tmp_path, monkeypatch):
    from dermaseg import deciding, fitting

    seen = []
    real = fitting.make_dataset

    def record(part, **options):
        seen.append((set(part.ids), options.get("weights") is not None))
        return real(part, **options)

    for module in (fitting, deciding):
        monkeypatch.setattr(module, "make_dataset", record)
    run = train("classify", samples, tmp_path / "run", imbalance="sampling", **{**TINY, "steps": 2})
    parts = {name: set(ids) for name, ids in Split.load(run.split).parts.items()}
    assert [ids for ids, weighted in seen if weighted] == [parts["train"]]
    assert all(not ids & parts["test"] for ids, _ in seen)
    lesions = [{samples.select([name])[0].lesion_id for name in parts[part]} for part in ("train", "validation", "test")]
    assert not lesions[0] & lesions[1]
    assert not lesions[0] & lesions[2]


@pytest.mark.parametrize(
    ("imbalance", "loss"),
    [
        ("none", keras.losses.SparseCategoricalCrossentropy),
        ("logits", LogitAdjustedCrossentropy),
        ("weights", ClassBalancedFocal),
        ("focal", ClassBalancedFocal),
        ("sampling", keras.losses.SparseCategoricalCrossentropy),
    ],
)
def test_imbalance_chooses_the_loss(samples, imbalance, loss):
    options = get_task("classify").compile_options(samples, Settings(imbalance=imbalance))
    assert isinstance(options["loss"], loss)


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_figures_of_mixed_and_of_whole_photographs_mean_the_same(samples, imbalance):
    """Where nothing was mixed in, one-hot targets cost and score what numbers do."""
    labels = samples.labels[:20]
    rng = np.random.default_rng(0)
    predicted = (np.eye(7)[(labels + (rng.random(20) < 0.4)) % 7] + 0.2 * rng.random((20, 7))).astype("float32")
    predicted /= predicted.sum(axis=1, keepdims=True)
    plans = [Settings(imbalance=imbalance, mix=mix) for mix in ("none", "mixup")]
    found = []
    for plan, targets in zip(plans, (labels, np.eye(7, dtype="float32")[labels]), strict=True):
        options = get_task("classify").compile_options(samples, plan)
        found.append([float(figure(targets, predicted)) for figure in (options["loss"], *options["metrics"])])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert 0 < found[0][1] < 1


@pytest.mark.slow
@pytest.mark.parametrize(("task", "mix"), [("classify", "mixup"), ("hybrid", "cutmix")])
def test_mixed_photographs_train_and_whole_ones_validate(samples, tmp_path, monkeypatch, task, mix):
    from dermaseg import deciding, fitting

    seen = []
    real = fitting.make_dataset

    def record(part, **options):
        seen.append((set(part.ids), options.get("mix")))
        return real(part, **options)

    for module in (fitting, deciding):
        monkeypatch.setattr(module, "make_dataset", record)
    # Some without a mask and some without a class: their weights pass through the mixing.
    some = without(samples, masks=range(0, 10), labels=range(10, 20)) if task == "hybrid" else samples
    run = train(task, some, tmp_path / "run", mix=mix, imbalance="none", **{**TINY, "steps": 8})
    parts = {name: set(ids) for name, ids in Split.load(run.split).parts.items()}
    assert [ids for ids, mixed in seen if mixed] == [parts["train"]]
    assert parts["validation"] in [ids for ids, mixed in seen if mixed is None]
    rows = run.history.read_text().splitlines()
    history = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    prefix = "label_" if task == "hybrid" else ""
    for name in ("accuracy", "balanced_accuracy"):
        assert 0 <= float(history[f"{prefix}{name}"]) <= 1
        assert 0 <= float(history[f"val_{prefix}{name}"]) <= 1
    if task == "classify":  # what validation saw is what the finished model says of the whole photographs
        report = evaluate_run(run, part="validation")
        best = read_json(run.model_card)["val_accuracy"]
        assert report.figures["accuracy"].value == pytest.approx(best, abs=1e-6)


def test_a_class_without_training_photographs_is_named(samples):
    no_melanoma = samples.filter(lambda sample: sample.label != 0)
    with pytest.raises(DataError, match="no photograph of mel"):
        get_task("classify-7").compile_options(no_melanoma, Settings(imbalance="logits"))


def test_a_model_no_better_than_the_majority_says_so():
    labels = np.array([0] * 8 + [1] * 2)
    with pytest.warns(UserWarning, match=r"80\.0%.*learning_rate"):
        fit_label_decisions(labels, np.tile([0.6, 0.4], (10, 1)), ("benign", "malignant"))


def test_a_part_that_is_all_right_makes_no_probability_surer():
    labels = np.arange(40) % 2
    sure = np.linspace(0.55, 0.9, 40)
    probabilities = np.where(np.eye(2, dtype=bool)[labels], sure[:, None], 1 - sure[:, None])
    decisions = Decisions(**fit_label_decisions(labels, probabilities, ("benign", "malignant")))
    np.testing.assert_allclose(decisions.calibrate(probabilities), probabilities, rtol=1e-6)
    assert 0.5 < decisions.thresholds["malignant"] < 1


def test_thresholds_are_reached_by_the_photographs_that_set_them():
    """Also at the temperature 1, where prediction takes probabilities as they are."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    probabilities = (rng.dirichlet(np.ones(3), 300) + 2 * np.eye(3)[labels]).astype("float32")
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    decisions = Decisions(**fit_label_decisions(labels, probabilities, ("a", "b", "c"), sensitivity=1.0))
    assert decisions.temperature == 1.0
    calibrated = decisions.calibrate(probabilities)
    for index, threshold in enumerate(decisions.thresholds.values()):
        assert (calibrated[labels == index, index] >= threshold).all()


def test_decisions_of_a_newer_version_are_read_as_far_as_they_are_known():
    content = {**Decisions(temperature=1.5).to_dict(), "calibrated_on": 40, "sex": "f"}
    with pytest.warns(UserWarning, match=r"decisions: left out calibrated_on, sex, .* written by a newer dermaseg\?"):
        assert Decisions.from_dict(content) == Decisions(temperature=1.5)


@pytest.fixture(scope="module")
def uneven(samples):
    """Of class k the first 2 + k photographs."""
    seen = [0] * samples.num_classes

    def keep(sample):
        seen[sample.label] += 1
        return seen[sample.label] <= 2 + sample.label

    return samples.filter(keep)


@pytest.mark.parametrize("imbalance", ["logits", "sampling"])
def test_shares_of_classes_that_training_evened_out_come_back(uneven, imbalance):
    """An ideal network trained with logit adjustment says posterior / prior^tau; calibrated, the mean says the shares."""
    rng = np.random.default_rng(0)
    shares = np.bincount(uneven.labels, minlength=7) / len(uneven)
    tau = 0.5
    labels = rng.choice(7, 4000, p=shares)
    evidence = np.exp(2 * rng.normal(size=(4000, 7)) + 4 * np.eye(7)[labels] * rng.random((4000, 1)))
    posterior = evidence * shares
    posterior /= posterior.sum(1, keepdims=True)
    skewed = posterior / shares**tau
    skewed /= skewed.sum(1, keepdims=True)
    factors = prior_factors(uneven, Settings(imbalance=imbalance, imbalance_strength=tau))
    restored = Decisions(prior_factors=factors).calibrate(skewed)
    np.testing.assert_allclose(restored, posterior, rtol=1e-5)
    assert prior_factors(uneven, Settings(imbalance="none")) == ()
    decisions = Decisions(**fit_label_decisions(labels, skewed, uneven.class_names, prior_factors=factors))
    assert Decisions.from_dict(decisions.to_dict()) == decisions


def test_weights_are_undone_as_they_were_given(uneven):
    counts = np.bincount(uneven.labels, minlength=7)
    factors = np.array(prior_factors(uneven, Settings(imbalance="weights")))
    assert len(set(counts)) == 7
    assert (np.argsort(factors, kind="stable") == np.argsort(counts, kind="stable")).all()
    assert factors.max() == 1.0


@pytest.mark.parametrize(("imbalance", "gamma"), [("logits", None), ("weights", 0.0), ("focal", 2.0)])
def test_the_loss_evens_out_what_the_factors_restore(uneven, imbalance, gamma):
    plan = Settings(imbalance=imbalance, imbalance_strength=0.5)
    loss = get_task("classify-7").compile_options(uneven, plan)["loss"]
    factors, even = np.array(prior_factors(uneven, plan)), np.full((1, 7), 1 / 7, "float32")
    cost = np.array([float(loss(np.array([label]), even)) for label in range(7)])
    if imbalance == "logits":
        np.testing.assert_allclose(cost, -np.log(factors / factors.sum()), rtol=1e-4)
    else:
        np.testing.assert_allclose(cost / cost[0], factors[0] / factors, rtol=1e-4)
        assert loss.get_config()["gamma"] == gamma


def test_conformal_sets_count_a_lesion_once():
    labels = np.array([0, 1] * 20 + [0] * 200)
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    probabilities[40:] = [0.2, 0.8]  # one lesion, photographed 200 times, and wrong each time
    groups = np.concatenate([np.arange(40), np.full(200, 40)])
    fitted = fit_label_decisions(labels, probabilities, ("a", "b"), groups=groups)["conformal"]
    assert sum(fitted.counts) == 41
    assert fitted.thresholds[0] < fit_label_decisions(labels, probabilities, ("a", "b"))["conformal"].thresholds[0]


def test_classes_are_compared_by_name_whatever_their_order(samples, tmp_path):
    """A network that is always right stays so when the table numbers its classes otherwise."""

    class Oracle:
        def predict_on_batch(self, images):
            answers = [by_pixels[image.tobytes()] for image in images]
            return np.eye(7, dtype=np.float32)[answers] * 0.93 + 0.01

    from dermaseg.data.images import read_image, resize_image

    few = samples[:14]
    names = tuple(reversed(samples.class_names))
    predictor = Predictor(Oracle(), size=55)
    predictor.class_names = names
    by_pixels = {
        resize_image(read_image(sample.image), (48, 64)).tobytes(): names.index(samples.class_names[sample.label])
        for sample in few
    }
    report = evaluate(predictor, few, subgroups=(), resamples=20)
    assert report.figures["accuracy"].value == report.figures["balanced_accuracy"].value == 1.0


def test_a_finished_run_can_be_calibrated_again(hybrid, tmp_path):
    run = RunFolder(Path(shutil.copytree(hybrid.path, tmp_path / "run")))
    card = read_json(run.model_card)
    write_json(run.model_card, {**card, "decisions": {}})
    recalibrate(run)
    again = read_json(run.model_card)
    assert again["decisions"]["temperature"] == pytest.approx(card["decisions"]["temperature"], rel=1e-3)
    assert again["decisions"]["prior_factors"] == pytest.approx(card["decisions"]["prior_factors"])


def test_a_segmentation_network_lends_its_encoder():
    lender, borrower = build_unet(filters=(8, 16)), build_cnn(num_classes=3, filters=(8, 16))
    head = borrower.get_layer("label_logits").get_weights()
    assert lend_weights(lender, borrower) > 5
    np.testing.assert_array_equal(
        borrower.get_layer("stem_conv").get_weights()[0], lender.get_layer("stem_conv").get_weights()[0]
    )
    np.testing.assert_array_equal(borrower.get_layer("label_logits").get_weights()[0], head[0])
    with pytest.raises(ValueError, match="no layer of"):
        lend_weights(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")]), borrower)


def test_a_run_starts_from_another(samples, hybrid, tmp_path):
    run = train("segment", samples, tmp_path / "run", start=hybrid.path, **{**TINY, "steps": 1, "learning_rate": 1e-9})
    own, lent = Predictor(run.path).model, Predictor(hybrid.path).model
    np.testing.assert_allclose(
        own.get_layer("stem_conv").get_weights()[0], lent.get_layer("stem_conv").get_weights()[0], atol=1e-6
    )
    assert read_json(run.settings)["start"] == str(hybrid.path)


def test_classes_keep_their_meaning_on_other_data(classifier, samples):
    turned = samples.with_class_names(tuple(reversed(samples.class_names)))
    assert turned[0].label != samples[0].label or samples.class_names[samples[0].label] == "akiec"
    first = evaluate_run(classifier, data=samples.select(range(20)))
    second = evaluate_run(classifier, data=turned.select(range(20)))
    assert first.figures["accuracy"] == second.figures["accuracy"]
    assert [row["true"] for row in first.rows] == [row["true"] for row in second.rows]
    assert [row["predicted"] for row in first.rows] == [row["predicted"] for row in second.rows]
    other = samples.relabel({name: "wart" if name == "mel" else name for name in samples.class_names})
    with pytest.raises(DataError, match="'wart' is not one of"):
        evaluate_run(classifier, data=other)


def test_a_hybrid_is_judged_by_what_other_data_know(hybrid, samples):
    masks_alone = dataclasses.replace(without(samples, labels=range(len(samples)))[:6], class_names=())
    figures = evaluate_run(hybrid, data=masks_alone).figures
    assert figures["jaccard"].count == 6
    assert "accuracy" not in figures
    classes_alone = evaluate_run(hybrid, data=without(samples, masks=range(len(samples)))[:6]).figures
    assert classes_alone["accuracy"].count == 6
    assert "jaccard" not in classes_alone
    with pytest.raises(DataError, match="no photograph has a mask or a class"):
        evaluate_run(hybrid, data=without(masks_alone, masks=range(6)))


def test_a_classifier_is_judged_on_some_of_its_classes(classifier, samples):
    two = samples.filter(lambda sample: samples.class_names[sample.label] in ("mel", "nv"))
    two = two.with_class_names(("nv", "mel")) if two.class_names != ("nv", "mel") else two
    report = evaluate_run(classifier, data=two)
    assert report.figures["accuracy"].count == len(two)
    assert {row["true"] for row in report.rows} == {"mel", "nv"}


def test_tasks_ask_for_what_they_need(samples):
    with pytest.raises(DataError, match="found 7 classes"):
        get_task("classify-9").prepare(samples)
    with pytest.raises(DataError, match="two or more classes"):
        get_task("classify").prepare(samples.filter(lambda sample: sample.label == 0))
    with pytest.raises(DataError, match="no sample has a mask"):
        get_task("hybrid").prepare(without(samples, masks=range(len(samples))))
    with pytest.raises(DataError, match="has no class"):
        evaluate(Predictor(build_cnn(num_classes=7, filters=(8, 16)), size=32), without(samples[:3], labels=range(3)))
    with pytest.raises(ValueError, match="imbalance must be one of"):
        Settings(imbalance="hope")
    with pytest.raises(ValueError, match="mix must be one of none, mixup, cutmix"):
        Settings(mix="cut")
    with pytest.raises(ValueError, match="imbalance_strength"):
        Settings(imbalance_strength=-1)


def test_nine_classes_take_local_weights(tmp_path):
    """classify-9 builds Inception-ResNet-V2; offline, ImageNet's weights are asked for by name and place."""
    nine = tmp_path / "nine"
    make_synthetic(nine, count=27, size=(48, 64), seed=5)
    table = read_samples(nine)
    names = tuple(f"class {index}" for index in range(9))
    rows = [dataclasses.replace(sample, label=index % 9) for index, sample in enumerate(table)]
    table = dataclasses.replace(table, rows=rows, class_names=names)
    with pytest.raises(ValueError, match="there is no file"):
        train("classify-9", table, tmp_path / "run", size=75, model={"weights": str(tmp_path / "missing.h5")})


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_what_was_compiled_decides_which_shares_come_back(uneven, imbalance):
    plan = Settings(imbalance=imbalance, imbalance_strength=0.5)
    own = get_task("classify").compile_options(uneven, plan)
    assert prior_factors(uneven, plan, own) == prior_factors(uneven, plan)
    assert prior_factors(uneven, plan, {"loss": {"mask": "mse", "label": own["loss"]}}) == prior_factors(uneven, plan)
    plain = prior_factors(uneven, plan, {"loss": "sparse_categorical_crossentropy"})
    assert (plain == ()) == (imbalance != "sampling")


def test_the_shares_that_come_back_are_those_that_a_loss_was_given(uneven):
    counts = np.bincount(uneven.labels, minlength=7)
    loss = LogitAdjustedCrossentropy(priors=range(1, 8), tau=2)
    np.testing.assert_allclose(prior_factors(uneven, Settings(), {"loss": loss}), (np.arange(1, 8) / 7) ** 2)
    both = np.arange(1, 8) ** 2 * counts
    factors = prior_factors(uneven, Settings(imbalance="sampling"), {"loss": loss})
    np.testing.assert_allclose(factors, both / both.max())
    assert prior_factors(uneven, Settings(), {"loss": LogitAdjustedCrossentropy(priors=counts, tau=0)}) == ()


@pytest.mark.parametrize(("name", "value"), [("imbalance", "none"), ("imbalance_strength", 1.0)])
def test_runs_that_evened_classes_out_otherwise_have_no_mean(classifier, tmp_path, name, value):
    other = RunFolder.open(shutil.copytree(classifier.path, tmp_path / "other"))
    saved = read_json(other.settings)
    write_json(other.settings, {**saved, "settings": {**saved["settings"], name: value}})
    with pytest.raises(DataError, match=rf"other: was trained with {name}={value!r}, and .*classifier with .* Train one"):
        average_runs([classifier, other, classifier], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_loss_of_ones_own_brings_back_no_shares_that_it_did_not_even_out(uneven, tmp_path):
    def plain(part, plan):
        return {"loss": keras.losses.SparseCategoricalCrossentropy(), "metrics": [keras.metrics.SparseCategoricalAccuracy("a")]}

    own = dataclasses.replace(get_task("classify"), name="mine", monitor=("val_a",), compile_options=plain)
    run = train(own, uneven, tmp_path / "run", **{**TINY, "steps": 1})
    assert read_json(run.settings)["settings"]["imbalance"] == "logits"
    assert read_json(run.model_card)["decisions"]["prior_factors"] == []
    assert recalibrate(run, task=own).prior_factors == ()
