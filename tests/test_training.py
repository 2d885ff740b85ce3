import contextlib
import dataclasses
import gc
import json
import os
import re
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dermaseg import callbacks, evaluation, fitting, pace, run_data, runs, training
from dermaseg.data import Sample, Samples, Split, make_dataset, read_mask, read_samples, split_samples
from dermaseg.decisions import fit_mask_decisions
from dermaseg.errors import DataError, DermasegError
from dermaseg.evaluation import evaluate_run, report_name
from dermaseg.export import training_size
from dermaseg.metrics import segmentation_scores
from dermaseg.prediction import Predictor
from dermaseg.saving import load_model
from dermaseg.tasks import TASKS, Settings, get_task
from dermaseg.training import average_runs, resume, train
from dermaseg.transfer import names_others, warn_of_lent_knowledge

TINY = {"size": 32, "batch_size": 4, "steps": 12, "precision": "float32", "model": {"filters": (8, 16), "dropout": 0.3}}


@pytest.fixture(scope="module")
def data(synthetic_folder):
    return synthetic_folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Trained from a folder beside the data, which is named as it is seen from there; told how many steps, it plans nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data.parent)
        patch.setattr(fitting, "measure_pace", None)
        return train("segment", data.name, tmp_path_factory.mktemp("runs") / "run", **TINY)


class StopAfter(keras.callbacks.Callback):
    """What Ctrl-C does in the middle of an epoch."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_train_batch_begin(self, batch, logs=None):
        if self.seen >= self.epochs and batch == 1:
            raise KeyboardInterrupt

    def on_train_begin(self, logs=None):
        self.seen = 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 1


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """What Ctrl-C in the second epoch leaves behind; tests copy it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train("segment", data, folder, callbacks=[StopAfter(1)], **TINY)
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    return Path(shutil.copytree(stopped, tmp_path / "interrupted"))


def test_a_run_folder_holds_what_repeats_it(finished):
    saved = runs.read_json(finished.settings)
    assert saved["task"] == "segment"
    assert saved["settings"]["seed"] == 0
    assert saved["versions"]["backend"] == keras.backend.backend()
    assert saved["canvas"] == [28, 37]
    assert saved["split"] == Split.load(finished.split).fingerprint
    card = runs.read_json(finished.model_card)
    assert (card["steps"], card["batch_size"]) == (12, 4)
    rows = finished.history.read_text().splitlines()
    assert rows[0].startswith("epoch,")
    assert "val_jaccard" in rows[0]
    assert len(rows) == 1 + Settings(**saved["settings"]).epochs(len(Split.load(finished.split).parts["train"]))
    for name in ("model.keras", "model.json", "curves.png"):
        assert (finished.path / name).stat().st_size > 0
    assert not finished.checkpoints.exists()
    assert not finished.cache.exists()


def test_parts_share_no_lesion(finished, data):
    parts = Split.load(finished.split).apply(read_samples(data))
    lesions = [{sample.lesion_id for sample in part} for part in parts.values()]
    assert sum(map(len, lesions)) == len(set.union(*lesions))


def test_the_report_is_of_the_test_part_at_own_size(finished, data):
    seen = []
    report = evaluate_run(finished, on_image=lambda done, total: seen.append((done, total)))
    test_ids = set(Split.load(finished.split).parts["test"])
    assert {row["id"] for row in report.rows} == test_ids
    assert seen[-1] == (len(test_ids), len(test_ids))
    figure = report.figures["jaccard"]
    assert figure.value == pytest.approx(np.mean([row["jaccard"] for row in report.rows]))
    assert np.isnan(figure.low) if figure.groups == 1 else figure.low <= figure.value <= figure.high
    assert "accuracy" not in report.figures  # which is of classes, not of pixels
    written = json.loads((finished.path / "report.json").read_text())
    assert written["figures"]["jaccard"]["value"] == pytest.approx(figure.value)
    assert "not a medical device" in (finished.path / "report.md").read_text()
    assert {"class", "sex", "age", "localization", "tone", "hair"} <= set(written["subgroups"])
    counts = [figures["jaccard"]["count"] for figures in written["subgroups"]["sex"].values()]
    assert sum(counts) == len(test_ids)
    assert (finished.path / "report.png").stat().st_size > 10_000


def test_the_page_says_which_precision_was_taken(finished, tmp_path):
    run = runs.RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    saved = runs.read_json(run.settings)
    saved["settings"]["precision"] = "auto"
    runs.write_json(run.settings, saved)
    evaluate_run(run)
    page = (run.path / "report.html").read_text()
    assert re.search(r"<dt>precision</dt>\s*<dd>float32</dd>", page)


def test_another_folder_is_scored_whole(finished, data):
    with pytest.warns(UserWarning, match=r"of 28 photographs, or others of their lesions or patients, trained this run"):
        report = evaluate_run(finished, data=data)
    assert len(report.rows) == 28
    other = facts(finished.path / f"report-{data.name}.html")
    assert other["photographs"] == str(data)
    assert other["data of the training"] == data.name
    assert "split of the training" in other
    assert not {"data", "split"} & set(other)
    evaluate_run(finished, part="validation")
    own = facts(finished.path / "report-validation.html")
    assert own["data"] == data.name
    assert not {"photographs", "data of the training"} & set(own)


def facts(page):
    """What a page says of where it comes from."""
    return dict(re.findall(r"<dt>([^<]+)</dt>\s*<dd>([^<]*)</dd>", page.read_text()))


def test_photographs_are_known_again_by_another_path(finished, data, tmp_path):
    (tmp_path / "link").symlink_to(data, target_is_directory=True)
    nameless = read_samples(tmp_path / "link").map(lambda sample: dataclasses.replace(sample, lesion_id=None, patient_id=None))
    learned = sum(len(Split.load(finished.split).parts[name]) for name in ("train", "validation"))
    with pytest.warns(UserWarning, match=rf"{learned} of 28 photographs, or others of their lesions or patients, trained"):
        evaluate_run(finished, data=nameless)


def test_a_report_over_views_is_of_the_mean_over_views(finished):
    report = evaluate_run(finished, tta="flips")
    test = Split.load(finished.split).apply(Samples.load(finished.samples))["test"]
    views = Predictor(finished.path, tta="flips").predict(sample.image for sample in test)
    expected = [
        segmentation_scores(read_mask(sample.mask), view.mask)["sensitivity"] for sample, view in zip(test, views, strict=True)
    ]
    assert [row["sensitivity"] for row in report.rows] == pytest.approx(expected)
    photo = test[0].image
    assert (Predictor(finished.path, tta="flips")(photo).probability != Predictor(finished.path)(photo).probability).any()
    assert report.title.endswith("mean over flips")
    assert (finished.path / "report-flips.json").is_file()


def test_other_photographs_of_the_patients_of_a_training_are_known_too(tmp_path):
    def table(*names):
        return Samples([Sample(name, tmp_path / f"{name}.png", patient_id=name[-1]) for name in names])

    run = runs.RunFolder.create(tmp_path / "run")
    table("a1", "a2", "a3").save(run.samples)
    Split({"train": ("a1",), "validation": ("a2",), "test": ("a3",)}).save(run.split)
    with pytest.warns(UserWarning, match="2 of 4 photographs, or others of their lesions or patients, trained this run"):
        evaluation._warn_of_known_photographs(run, table("b1", "b2", "b3", "b4"))


def test_copies_of_a_training_s_photographs_are_known_too(tmp_path):
    def picture(name, grey):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / name)
        return Sample(name, tmp_path / name)

    known = Samples([picture("a.png", 1), picture("ISIC_0024306.png", 2), Sample("gone", tmp_path / "gone.png")])
    run = runs.RunFolder.create(tmp_path / "run")
    known.save(run.samples)
    Split({"train": known.ids[:2], "validation": known.ids[2:]}).save(run.split)
    copied = picture("copy of a.png", 1)
    resized, other = picture("small_ISIC_0024306.png", 3), picture("ISIC_0024307.png", 4)
    with pytest.warns(UserWarning, match="2 of 3 photographs, or others of their lesions or patients, trained this run"):
        evaluation._warn_of_known_photographs(run, Samples([copied, resized, other]))


def test_a_checkpoint_names_the_classes_of_its_run(tmp_path):
    run = runs.RunFolder.create(tmp_path / "run")
    runs.write_json(run.settings, {"class_names": ["a", "b"]})
    checkpoint = str(run.checkpoints / "best.keras")
    assert names_others(checkpoint, ["b", "a"])
    assert not names_others(checkpoint, ["a", "b"])


def test_networks_that_know_the_photographs_are_told_of_however_they_are_named(finished, data, tmp_path, monkeypatch):
    other = split_samples(read_samples(data), seed=6)
    with pytest.warns(UserWarning, match="photographs that validate and test this run"):
        warn_of_lent_knowledge(finished.path / "model.keras", other, read_samples(data))
    with pytest.warns(UserWarning, match="photographs that validate and test this run"):
        warn_of_lent_knowledge(finished.checkpoints / "best.keras", other, read_samples(data))
    for name in ("nevus", "other"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "classes" / name / f"ISIC_{name}.png")
    with pytest.warns(UserWarning, match="the preset unet-ham10000-128 was trained on"):
        warn_of_lent_knowledge("unet-ham10000-128", other, read_samples(tmp_path / "classes"))
    warned = []
    monkeypatch.setattr(training, "warn_of_lent_knowledge", lambda lender, *_: warned.append(lender))
    monkeypatch.setattr(training, "new_model", lambda *_, **__: keras.Sequential([keras.Input((None, None, 3))]))
    monkeypatch.setattr(training, "fit", lambda task, plan, samples, split, run, **_: run)
    monkeypatch.chdir(finished.path.parent)
    settings = {**TINY, "model": {"weights": "unet-ham10000-128"}}
    run = train("segment", data, tmp_path / "run", start=finished.path.name, **settings)
    assert warned == [finished.path.name, "unet-ham10000-128"]
    assert runs.read_json(run.settings)["start"] == str(finished.path)


def test_other_data_that_bear_a_parts_name_or_anothers_do_not_replace_its_report(tmp_path):
    run, one, other = runs.RunFolder(tmp_path), "clinic-1/isic", "clinic-2/isic"
    assert report_name(run, "elsewhere/validation", part="test", tta="none") == "report-all-of-validation"
    assert report_name(run, None, part="validation", tta="none") == "report-validation"
    runs.write_json(tmp_path / "report-validation.json", {})
    assert report_name(run, None, part="validation", tta="none") == "report-validation"
    assert report_name(run, one, part="test", tta="flips") == "report-isic-flips"
    runs.write_json(tmp_path / "report-isic-flips.json", {"data": str(Path(one).resolve())})
    assert report_name(run, one, part="test", tta="flips") == "report-isic-flips"
    assert report_name(run, other, part="test", tta="flips") == "report-isic-2-flips"


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(finished, interrupted):
    assert not (interrupted / "model.keras").exists()
    assert [path.name for path in (interrupted / "checkpoints").glob("epoch-*")] == ["epoch-0001.keras"]
    resume(interrupted)
    first = np.genfromtxt(finished.history, delimiter=",", names=True)
    second = np.genfromtxt(interrupted / "history.csv", delimiter=",", names=True)
    assert first.dtype.names == second.dtype.names
    for name in first.dtype.names:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_resumed_training_decays_what_it_decayed(interrupted):
    optimizer = load_model(interrupted / "checkpoints" / "epoch-0001.keras", compiled=True).optimizer
    assert optimizer.weight_decay == Settings().weight_decay
    assert optimizer.kernels_only


def test_a_run_whose_photographs_have_moved_goes_on_and_is_scored_where_they_are(interrupted, data, tmp_path):
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    saved = json.loads((interrupted / "samples.json").read_text().replace(str(data), str(tmp_path / "gone")))
    (interrupted / "samples.json").write_text(json.dumps(saved))
    for act in (resume, evaluate_run):
        with pytest.raises(DataError, match=r"have moved, .*: dermaseg train --resume \S+ --data FOLDER, or resume\(.*, data="):
            act(interrupted)
    with pytest.raises(DataError, match="ids of the part"):
        resume(interrupted, data=read_samples(moved)[:3])
    assert str(moved) not in (interrupted / "samples.json").read_text()
    run = resume(interrupted, data=moved)
    report = evaluate_run(run)
    assert {row["id"] for row in report.rows} == set(Split.load(run.split).parts["test"])


def test_a_table_of_samples_trains_without_a_folder_to_read_again(data, tmp_path):
    samples = read_samples(data)[:20]
    run = train("segment", samples, tmp_path / "run", **{**TINY, "steps": 1})
    assert evaluate_run(run).groups == len({sample.lesion_id for sample in Split.load(run.split).apply(samples)["test"]})


def test_resuming_a_finished_run_changes_nothing_though_its_photographs_have_gone(finished, tmp_path):
    run = runs.RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    Samples.load(run.samples).map(lambda sample: dataclasses.replace(sample, image=tmp_path / "gone.jpg")).save(run.samples)
    before = run.model.read_bytes()
    resume(run.path)
    assert run.model.read_bytes() == before


def test_an_unfinished_run_is_told_from_no_model(interrupted, tmp_path):
    for act in (load_model, Predictor, evaluate_run, training_size):
        with pytest.raises(DataError, match=f"not finished, so there .* Go on with it: dermaseg train --resume {interrupted}$"):
            act(interrupted)
    with pytest.raises(DataError, match="no model here"):
        load_model(interrupted / "other.keras")


def test_fewer_steps_than_were_asked_for_are_told_of_with_the_remedy(data, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(training, "fit", lambda task, plan, samples, split, run, **_: run)
    many = {**TINY, "steps": 300, "batch_size": 500}
    with pytest.warns(UserWarning, match=r"100 of 300 steps are run: .* Give max_epochs=300 \(--max-epochs 300\) to"):
        train("segment", data, tmp_path / "capped", **many)
    recwarn.clear()
    train("segment", data, tmp_path / "remedied", max_epochs=300, **many)
    train("segment", data, tmp_path / "enough", **{**TINY, "steps": 600})  # in batches of 4
    assert not recwarn.list


def test_a_run_from_before_there_was_a_choice_goes_on_with_the_processor(interrupted, monkeypatch):
    saved = runs.read_json(interrupted / "settings.json")
    assert saved["settings"].pop("augment_on") == "processor"
    runs.write_json(interrupted / "settings.json", saved)
    plans = []
    monkeypatch.setattr("dermaseg.training.fit", lambda task, plan, *_, **__: plans.append(plan))
    resume(interrupted)
    assert plans[0].augment_on == "processor"


def test_a_run_that_jax_varies_needs_jax_until_it_is_finished(interrupted, monkeypatch):
    saved = runs.read_json(interrupted / "settings.json")
    saved["settings"]["augment_on"] = "accelerator"
    runs.write_json(interrupted / "settings.json", saved)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(DataError, match=r"interrupted: .* accelerator, which needs JAX\. Resume it with KERAS_BACKEND=jax set"):
        resume(interrupted)
    (interrupted / "model.keras").touch()
    assert resume(interrupted).path == interrupted


def test_one_of_several_processes_goes_on_with_nothing(interrupted, monkeypatch):
    monkeypatch.setattr("dermaseg.training.host_share", lambda: (1, 2))
    with pytest.raises(DataError, match="several processes can't resume a run, since each may have stopped at another epoch"):
        resume(interrupted)


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="the accelerator is JAX's")
def test_a_training_on_the_accelerator_is_planned_repeats_and_goes_on(data, tmp_path, monkeypatch):
    how = {**TINY, "augment": "frames", "mix": "mixup", "augment_on": "accelerator", "ema": 0.9, "minutes": 5}
    made = []
    monkeypatch.setattr(
        fitting, "make_dataset", lambda *args, **options: made.append(options) or make_dataset(*args, **options)
    )
    whole = train("segment", data, tmp_path / "whole", **how)
    assert runs.read_json(whole.settings)["settings"]["augment_on"] == "accelerator"
    assert [options["augment_on"] for options in made if "augment_on" in options] == ["accelerator"] * 2  # rehearsed first
    with pytest.raises(KeyboardInterrupt):
        train("segment", data, tmp_path / "stopped", callbacks=[StopAfter(1)], **how)
    again = resume(tmp_path / "stopped")
    first, second = (np.genfromtxt(run.history, delimiter=",", names=True) for run in (whole, again))
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-3)


def test_a_torn_checkpoint_costs_one_epoch(interrupted):
    whole = interrupted / "checkpoints" / "epoch-0001.keras"
    (interrupted / "checkpoints" / "epoch-0002.keras").write_bytes(whole.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Going back to an earlier epoch"):
        resume(interrupted)
    assert (interrupted / "model.keras").is_file()


def test_a_run_without_a_readable_checkpoint_is_not_begun_again(interrupted):
    (whole,) = (interrupted / "checkpoints").glob("epoch-*.keras")
    whole.write_bytes(whole.read_bytes()[:1000])
    before = whole.read_bytes()
    with pytest.raises(DataError, match=r"checkpoints: no saved epoch can be read \(.*Import and register what the task"):
        resume(interrupted)
    assert whole.read_bytes() == before


@pytest.mark.slow
def test_a_training_is_planned_to_end_in_time_and_repeats_the_one_that_was_told_its_steps(
    finished, data, tmp_path, monkeypatch
):
    def slowly(*arguments, **how):
        pace.measure_pace(*arguments, **how)  # which spoils weights and generators
        return pace.Pace(step_s=400, look_s=100, save_s=0)  # 6 steps an epoch: two take 5,000 s

    monkeypatch.setattr(fitting, "measure_pace", slowly)
    with pytest.warns(
        UserWarning, match=r"100 minutes are enough for 12 of 102 steps .* about 709 minutes: give steps=102 \(--steps 102\) to"
    ):
        planned = train("segment", data, tmp_path / "planned", **{**TINY, "steps": 100, "minutes": 100})
    assert planned.history.read_text() == finished.history.read_text()
    saved = runs.read_json(planned.settings)
    assert saved["asked"] == {"minutes": 100, "steps": 100}
    assert saved["settings"] == runs.read_json(finished.settings)["settings"]


class WantBuilt(keras.callbacks.Callback):
    """TensorFlow traces a step twice if its first trace makes the optimizer's variables."""

    def on_train_begin(self, logs=None):
        assert self.model.optimizer.built


def test_outlines_are_planned_for_half_an_hour_and_their_optimizer_is_built(data, tmp_path):
    settings = {name: value for name, value in TINY.items() if name != "steps"}
    run = train("segment", data, tmp_path / "run", callbacks=[WantBuilt()], **settings, max_epochs=1)
    saved = runs.read_json(run.settings)
    assert saved["asked"] == {"minutes": 25, "steps": 7200}
    assert saved["settings"]["steps"] == 6
    assert saved["settings"]["minutes"] is None


@pytest.mark.parametrize(
    ("every_s", "states"), [(3600, ["0001", "0003", "0006"]), (0, ["0001", "0002", "0003", "0004", "0005", "0006"])]
)
def test_short_epochs_do_not_each_write_a_state(tmp_path, every_s, states):
    written = []

    class Model:
        def save(self, path):
            path.write_bytes(b"state")
            written.append(path.name)

    checkpoint = callbacks.Checkpoint(runs.RunFolder.create(tmp_path), monitor=("val_jaccard",), every_s=every_s)
    checkpoint.set_model(Model())
    for epoch in range(6):
        checkpoint.on_epoch_end(epoch, {"loss": 1.0, **({"val_jaccard": 0.1 * epoch} if epoch in (0, 2, 5) else {})})
    assert [name.split("epoch-")[1][:4] for name in written] == states
    assert len(checkpoint.run.history.read_text().splitlines()) == 7
    assert [path.name for path in checkpoint.run.checkpoints.glob("epoch-*")] == ["epoch-0006.keras"]
    assert checkpoint.best_path.is_file()


def test_the_best_epoch_by_the_mean_is_kept_and_the_earliest_of_equals(tmp_path):
    class Model:
        def save(self, path):
            path.write_text(path.name)  # says of which epoch it is

    checkpoint = callbacks.Checkpoint(runs.RunFolder.create(tmp_path), monitor=("val_a", "val_b"), every_s=0)
    checkpoint.set_model(Model())
    for epoch, (a, b) in enumerate([(0.25, 0.25), (0.75, 0.5), (0.5, 0.75), (0.875, 0.125)]):
        checkpoint.on_epoch_end(epoch, {"val_a": a, "val_b": b})
    assert checkpoint.best_row["epoch"] == 2
    assert "epoch-0002" in checkpoint.best_path.read_text()


def test_an_epoch_whose_figure_is_no_number_is_not_the_best(tmp_path):
    class Model:
        def save(self, path):
            path.write_text(path.name)

    checkpoint = callbacks.Checkpoint(runs.RunFolder.create(tmp_path), monitor=("val_a",), every_s=0)
    checkpoint.set_model(Model())
    for epoch, figure in enumerate([np.nan, 0.5, 0.25]):
        checkpoint.on_epoch_end(epoch, {"val_a": figure})
    assert checkpoint.best_row["epoch"] == 2
    assert "epoch-0002" in checkpoint.best_path.read_text()
    checkpoint.rows = [{"epoch": 1, "val_a": "nan"}]  # as read again
    with pytest.raises(DermasegError, match="no epoch has a number as its val_a"):
        fitting._best_model(get_task("segment"), Settings(), None, checkpoint.run, checkpoint)


def test_a_full_disk_leaves_the_last_good_checkpoint(interrupted, monkeypatch):
    before = (interrupted / "checkpoints" / "epoch-0001.keras").read_bytes()
    saves = []

    def save_until_full(self, path, *args, **kwargs):
        saves.append(path)
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Model, "save", save_until_full)
    with pytest.raises(OSError, match="No space left"):
        resume(interrupted)
    assert len(saves) == 1
    assert {path.name for path in (interrupted / "checkpoints").iterdir()} == {"best.keras", "epoch-0001.keras"}
    assert (interrupted / "checkpoints" / "epoch-0001.keras").read_bytes() == before  # from which test_cli.py goes on


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    runs.write_json(path, {"a": 1})

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        runs.write_atomically(path, fail)
    assert runs.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_loss_that_is_no_number_stops_with_a_remedy(data, tmp_path):
    # oneDNN's rectifier makes 0 of NaN: the first loss may still be a number.
    with pytest.raises(callbacks.TrainingError, match=r"at step [12] of epoch 1\. .* smaller learning_rate or .*='float32'\.$"):
        train("segment", data, tmp_path / "nan", callbacks=[Spoil()], **TINY)


def test_a_training_begins_with_the_best_epoch_of_one_that_went_wrong(interrupted, data, tmp_path):
    best = interrupted / "checkpoints" / "best.keras"
    with pytest.raises(callbacks.TrainingError, match=f", and start='{best}' to begin"):
        resume(interrupted, callbacks=[Spoil()])
    run = train("segment", data, tmp_path / "anew", start=best, **{**TINY, "steps": 1, "learning_rate": 1e-9})
    networks = (load_model(path) for path in (run.model, best))
    own, lent = ([keras.ops.convert_to_numpy(weight) for weight in network.trainable_weights] for network in networks)
    assert distance(own, lent) < 1e-6


def test_a_monitor_that_names_no_figure_ends_the_first_validated_epoch(data, tmp_path):
    begun = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    own = dataclasses.replace(get_task("segment"), name="mine", monitor=("val_jaccard", "val_auc"))
    with pytest.raises(callbacks.TrainingError, match=r"no figure 'val_auc' .* there are val_jaccard, val_loss\. Name some"):
        train(own, data, tmp_path / "run", callbacks=[watch], **TINY)
    assert begun == [0]


class Spoil(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        weights = self.model.get_weights()
        weights[0] = weights[0] * np.nan
        self.model.set_weights(weights)


def test_a_second_run_does_not_overwrite_the_first(finished, data):
    before = {path: path.read_bytes() for path in (finished.model, finished.split, finished.samples, finished.settings)}
    with pytest.raises(DataError, match="holds a run already"):
        train("segment", data, finished.path, **TINY)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["model.keras", "checkpoints", "history.csv"])
def test_a_run_does_not_take_what_is_left_of_another_for_its_own(interrupted, data, tmp_path, name):
    left = interrupted / name
    if name == "model.keras":
        shutil.copy(interrupted / "checkpoints" / "best.keras", left)
    folder = tmp_path / "output"
    folder.mkdir()
    left.rename(folder / name)
    with pytest.raises(DataError, match=f"output: holds {name} of another run. Give another folder"):
        train("segment", data, folder, **TINY)
    assert [path.name for path in folder.iterdir()] == [name]


def test_of_two_that_begin_a_run_in_one_folder_one_does(data, tmp_path, monkeypatch):
    begun, build = [], training.new_model

    def other_process_first(*arguments, **how):
        if not begun:
            begun.append("other")
            begun.append(train("segment", data, tmp_path / "run", **{**TINY, "seed": 1, "steps": 1}))
        return build(*arguments, **how)

    monkeypatch.setattr(training, "new_model", other_process_first)
    with pytest.raises(DataError, match="holds a run already"):
        train("segment", data, tmp_path / "run", **TINY)
    assert runs.read_json(begun[1].settings)["settings"]["seed"] == 1
    monkeypatch.setattr(training, "new_model", build)
    with runs.RunFolder.create(tmp_path / "begins").locked(), pytest.raises(DataError, match="another process is training"):
        train("segment", data, tmp_path / "begins", **TINY)
    assert [path.name for path in (tmp_path / "begins").iterdir()] == [".lock"]


def test_photographs_do_not_move_under_a_training(interrupted, data, tmp_path):
    before = (interrupted / "samples.json").read_bytes()
    moved = shutil.copytree(data, tmp_path / "moved")
    with runs.RunFolder(interrupted).locked(), pytest.raises(DataError, match="another process is training here"):
        resume(interrupted, data=moved)
    assert (interrupted / "samples.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"colour": "red"}}, "settings.json: holds the setting 'colour'; it was written by another dermaseg"),
        ({"settings": {"augment": "wild"}}, "settings.json: augment must be one of"),
        ({"settings": {"ema": "much"}}, "settings.json: .*not supported between"),
        ({"task": "measure", "own_task": False}, "settings.json: names the task 'measure'; it was written by another"),
        ({"task": None}, "settings.json: lacks 'task'; it was written by another dermaseg"),
        ({"canvas": None}, "settings.json: lacks 'canvas'"),
    ],
)
def test_settings_of_another_version_are_named(interrupted, change, said):
    saved = {**runs.read_json(interrupted / "settings.json"), **change}
    runs.write_json(interrupted / "settings.json", {name: value for name, value in saved.items() if value is not None})
    for act in (resume, training.recalibrate):
        with pytest.raises(DataError, match=said):
            act(interrupted)


def test_arguments_of_a_builder_are_kept_as_json(data, tmp_path, monkeypatch):
    weights = tmp_path / "weights.h5"
    weights.touch()
    monkeypatch.chdir(tmp_path)
    taken = []

    def build(samples, options):
        taken.append(dict(options))
        raise LookupError("enough")

    own = dataclasses.replace(get_task("segment"), name="mine", build=build)
    there = [{"weights": weights}, {"weights": Path("weights.h5")}, {"weights": "weights.h5"}]
    for model in (*there, {"weights": Path("no.h5"), "filters": (8, 16)}):
        with pytest.raises(LookupError):
            train(own, data, tmp_path / "run", **{**TINY, "model": model})
    assert taken == [{"weights": str(weights)}] * 3 + [{"weights": "no.h5", "filters": (8, 16)}]
    for value in (np.float32(0.5), float("nan"), {1, 2}):
        with pytest.raises(ValueError, match=r"model: dropout must be a JSON value, got "):
            train(own, data, tmp_path / "run", **{**TINY, "model": {"dropout": value}})


def test_a_mistake_in_a_builder_of_ones_own_is_not_taken_for_a_wrong_argument(data, tmp_path):
    def build(samples, options):
        return len(5)

    own = dataclasses.replace(get_task("segment"), name="mine", build=build)
    with pytest.raises(TypeError, match="has no len"):
        train(own, data, tmp_path / "run", **TINY)
    with pytest.raises(ValueError, match=r"model: .*int.*See dermaseg\.models\.build_unet\."):
        train("segment", data, tmp_path / "run", **{**TINY, "model": {"filters": 8}})


def test_mistakes_are_named(data, tmp_path):
    with pytest.raises(ValueError, match="there is no task 'segmnt'"):
        train("segmnt", data, tmp_path / "run")
    with pytest.raises(ValueError, match="there is no setting 'epochs'"):
        train("segment", data, tmp_path / "run", epochs=3)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        train("segment", data, tmp_path / "run", steps=0)
    with pytest.raises(ValueError, match="augment must be one of"):
        Settings(augment="wild")
    with pytest.raises(ValueError, match="minutes must be a number above 0"):
        Settings(minutes=0)
    with pytest.raises(ValueError, match="ema must be at least 0 and below 1"):
        Settings(ema=1.0)
    with pytest.raises(ValueError, match=r"precision must be one of auto, float32, .* got 'float16'"):
        Settings(precision="float16")
    for value in ("yes", None, 1):
        with pytest.raises(ValueError, match=f"jit_compile must be True, False or 'auto', got {value!r}"):
            Settings(jit_compile=value)
    with pytest.raises(DataError, match="not a run folder"):
        resume(tmp_path)
    with pytest.raises(DataError, match="no sample has a mask"):
        train("segment", read_samples(data).map(lambda sample: type(sample)(sample.id, sample.image)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("weight_decay", value) for value in (-0.1, float("nan"), float("inf"), True, "0.1")),
        *(("learning_rate", value) for value in (0, -1e-3, float("nan"), float("inf"), None)),
        *(("seed", value) for value in (-1, 2**32, 1.5, True)),
    ],
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value!r}\."):
        Settings(**{name: value})
    assert Settings(weight_decay=0, learning_rate=1, seed=2**32 - 1).weight_decay == 0


class Average(keras.callbacks.Callback):
    """Average the weights of a training by hand, and look at what is validated."""

    def __init__(self, decay):
        super().__init__()
        self.decay, self.average, self.by_epoch, self.validated = decay, None, [], []

    def weights(self):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        return [np.array(keras.ops.convert_to_numpy(weight)) for weight in self.model.trainable_weights]

    def on_train_batch_end(self, batch, logs=None):
        own = self.weights()
        before = own if self.average is None else self.average
        self.average = [self.decay * old + (1 - self.decay) * new for old, new in zip(before, own, strict=True)]

    def on_test_begin(self, logs=None):
        self.validated.append(distance(self.weights(), self.average))

    def on_epoch_end(self, epoch, logs=None):
        self.by_epoch.append((self.average, distance(self.weights(), self.average)))


def distance(first, second):
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory):
    seen = Average(0.8)
    return train("segment", data, tmp_path_factory.mktemp("averaged") / "run", ema=0.8, callbacks=[seen], **TINY), seen


def test_the_average_of_the_weights_is_validated_and_saved(averaged):
    run, seen = averaged
    assert max(seen.validated) < 1e-5
    assert min(away for _, away in seen.by_epoch) > 1e-4  # training goes on with its own weights
    best = runs.read_json(run.model_card)["best_epoch"]
    saved = keras.saving.load_model(run.model)
    assert distance([np.asarray(weight) for weight in saved.trainable_weights], seen.by_epoch[best - 1][0]) < 1e-5


@pytest.mark.slow
def test_an_interrupted_average_goes_on_as_if_nothing_had_happened(averaged, data, tmp_path):
    whole, _ = averaged
    with pytest.raises(KeyboardInterrupt):
        train("segment", data, tmp_path / "interrupted", ema=0.8, callbacks=[StopAfter(1)], **TINY)
    again = resume(tmp_path / "interrupted")
    first, second = (keras.saving.load_model(run.model).get_weights() for run in (whole, again))
    assert distance(first, second) < 1e-3


def test_copies_of_one_photograph_stay_together_without_any_ids(data, tmp_path):
    known = read_samples(data)
    rows = [dataclasses.replace(sample, lesion_id=None) for sample in known[::2]]  # two photographs a lesion: one of each
    copies = []
    for sample in rows:
        copy = tmp_path / f"copy_of_{sample.image.stem}.jpg"
        Image.open(sample.image).convert("RGB").save(copy, quality=85)
        copies.append(dataclasses.replace(sample, id=f"copy_of_{sample.id}", image=copy))
    looked = []
    with pytest.warns(UserWarning, match="neither lesion nor patient.*near-duplicates are"):
        run = train(
            "segment",
            dataclasses.replace(known, rows=[*rows, *copies]),
            tmp_path / "run",
            on_decode=lambda done, total: looked.append((done, total)),
            **{**TINY, "steps": 1},
        )
    split = Split.load(run.split)
    part_of = {key: part for part, ids in split.parts.items() for key in ids}
    assert set(part_of.values()) == {"train", "validation", "test"}
    assert [part_of[sample.id] for sample in rows] == [part_of[sample.id] for sample in copies]
    assert split.group == "duplicates"
    assert looked[len(rows) + len(copies) - 1] == (len(rows) + len(copies),) * 2


def test_known_lesions_need_no_look_for_copies(data, monkeypatch):
    monkeypatch.setattr(run_data, "read_image", None)
    assert run_data._duplicates(read_samples(data), None) is None


def test_steps_become_epochs():
    plan = Settings(steps=7000, batch_size=32, max_epochs=100)
    assert plan.epochs(5964) == 38
    assert plan.epochs(200) == 100
    assert plan.epochs(10) == 100
    assert Settings(steps=1).epochs(100_000) == 1


def test_every_task_is_listed_under_its_name():
    assert all(get_task(name).name == name for name in TASKS)


def test_a_builder_argument_that_is_none_leaves_no_run_behind(data, tmp_path):
    with pytest.raises(ValueError, match=r"model: .*fliters.*See dermaseg\.models\.build_unet\."):
        train("segment", data, tmp_path / "run", **{**TINY, "model": {"fliters": (8, 16)}})
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_run_is_evaluated_from_any_folder(finished, monkeypatch):
    monkeypatch.chdir(finished.path.parent)
    assert evaluate_run("run").figures["jaccard"].count > 0


def test_the_mean_of_two_runs_is_a_run_with_decisions_of_its_own(finished, data, tmp_path):
    first = finished
    second = train("segment", data, tmp_path / "second", start=first.path, **{**TINY, "augment": "strong"})
    mean = average_runs([first.path, second], tmp_path / "mean")
    weights = [load_model(run.model).get_weights() for run in (first, second, mean)]
    for one, other, both in zip(*weights, strict=True):
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    card = runs.read_json(mean.model_card)
    assert card["mean_of"] == [str(first.path), str(second.path)]
    assert card["decisions"]["mask_rejection"] != runs.read_json(second.model_card)["decisions"]["mask_rejection"]
    assert evaluate_run(mean).figures["jaccard"].count > 0
    assert "mean of the weights of" in (mean.path / "MODEL_CARD.md").read_text()
    assert resume(mean.path) == mean
    with pytest.raises(DataError, match="is not empty"):
        average_runs([first, second], mean.path)
    with pytest.raises(ValueError, match="two at least"):
        average_runs([first], tmp_path / "other")
    with pytest.raises(ValueError, match="was begun with the task 'segment'; give that one, or none"):
        average_runs([first, second], tmp_path / "other", task="segment-fuzzy")
    with pytest.warns(UserWarning, match="photographs that validate and test this run"):  # of the split of another seed
        third = train("segment", data, tmp_path / "third", start=first.path, **{**TINY, "seed": 6, "steps": 1})
    with pytest.raises(DataError, match=r"differs from .* in its split"):
        average_runs([first, third], tmp_path / "other")
    second.model.unlink()
    with pytest.raises(DataError, match="not finished"):
        average_runs([first, second], tmp_path / "other")


def test_two_processes_do_not_train_in_one_folder(interrupted):
    run = runs.RunFolder.open(interrupted)
    with run.locked():
        runs.write_json(run.settings, runs.read_json(run.settings))  # as a training does that has planned its steps
        with pytest.raises(DataError, match="another process is training here"):
            resume(run.path)
    with run.locked():  # again, once the other has ended
        pass


@pytest.mark.parametrize(("speck", "tidy"), [(0.9, True), (0.1, False)])
def test_masks_are_tidied_where_the_validation_part_gains_by_it(speck, tidy):
    true = np.zeros((2, 12, 12, 1))
    true[:, 3:9, 3:9] = 1
    if not tidy:
        true[:, 5, 5] = 0  # a hole that is none of the network's making
    probability = np.where(true > 0, [[[[0.9]]], [[[0.8]]]], 0.1).astype("float32")
    probability[:, 0, 0] = speck
    decided = fit_mask_decisions([(true, probability)])
    assert decided["tidy_masks"] == tidy
    assert decided["mask_rejection"].risk == 0  # of the masks as they are read


@pytest.fixture
def interruptible():
    """Interrupts reach Python, also where a shell had them ignored, as it does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_swallowed_interrupt_is_raised_after_the_batch():
    before = signal.getsignal(signal.SIGINT)
    with callbacks.StopOnInterrupt() as interrupt:
        interrupt.on_train_batch_end(0)
        with contextlib.suppress(KeyboardInterrupt):  # as a library does that calls Python from its own code
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.on_train_batch_end(1)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_garbage_is_collected_waits_for_the_end_of_the_batch(capfd):
    def collected(phase, info):
        if phase == "stop":
            signal.raise_signal(signal.SIGINT)

    with callbacks.StopOnInterrupt() as interrupt:
        gc.callbacks.append(collected)
        gc.collect()
        gc.callbacks.remove(collected)
        with pytest.raises(KeyboardInterrupt):
            interrupt.on_train_batch_end(0)
    assert "KeyboardInterrupt" not in capfd.readouterr().err
