"""From probabilities to statements: calibrated, with operating thresholds and doubts, chosen on the validation part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dermaseg.conformal import ConformalClassifier, Rejection

__all__ = ["Decisions", "fit_label_decisions", "fit_mask_decisions"]

WANTED_COVERAGE = 0.9
REFERRED_SHARE = 0.1

MAJORITY_ADVICE = (
    "Look at the labels, then at learning_rate (ten times less or more), size (is the lesion still to be seen?) and steps."
)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a model's validation part says about reading its probabilities.

    Args:
        prior_factors: For each class, what its probability is multiplied by, before all others sum to one again: trained as
            if rare classes were less rare, a network gives them too much, and these restore the training part's shares
            (Menon et al., 2021, section 4.1). Empty where it was trained on the classes as they come.
        temperature: Divides the logits of the classes; above 1 where the network was too sure (Guo et al., 2017).
        thresholds: For each class, the calibrated probability from which a photograph counts as it, one class against the
            rest, so that the share `sensitivity` of the class's validation photographs do; classes without one have none.
        sensitivity: The share that the thresholds were chosen for.
        conformal: The sets that hold the true class for nine photographs in ten on average, or None.
        label_rejection: The entropy of the classes, in bits, above which to refer, or None.
        mask_rejection: The doubt about the mask, 1 - `expected_jaccard`, above which to refer, or None.
        tidy_masks: Keep the largest region of each mask and fill its holes: whether the validation part is outlined better so.

    References:
        Guo et al., 2017, "On calibration of modern neural networks". Menon et al., 2021, "Long-tail learning via logit
        adjustment".
    """

    prior_factors: tuple[float, ...] = ()
    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sensitivity: float = 0.9
    conformal: ConformalClassifier | None = None
    label_rejection: Rejection | None = None
    mask_rejection: Rejection | None = None
    tidy_masks: bool = False

    def calibrate(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities of classes with the true shares, at the fitted temperature; same shape, float32."""
        restored = _restore(probabilities, self.prior_factors)
        if self.temperature == 1.0:
            return np.asarray(restored, np.float32)
        from dermaseg.metrics import apply_temperature

        return np.asarray(apply_temperature(restored, self.temperature), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        content = asdict(self)
        if self.conformal is not None:
            content["conformal"] = self.conformal.to_dict()
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Decisions:
        """Read what `to_dict` gave; fields may be missing, and unknown ones are left out with a warning."""
        names = {each.name for each in fields(cls)}
        if unknown := sorted(content.keys() - names):
            warnings.warn(
                f"decisions: left out {', '.join(unknown)}, which this dermaseg does not know: written by a newer dermaseg? "
                "Update it to read them.",
                stacklevel=2,
            )
        known = {name: value for name, value in content.items() if name in names and value is not None}
        known["prior_factors"] = tuple(known.get("prior_factors", ()))
        if not known.keys() & {"conformal", "label_rejection", "mask_rejection"}:
            return cls(**known)
        from dermaseg.conformal import ConformalClassifier, Rejection

        readers: dict[str, Callable[[Any], Any]] = {
            "conformal": ConformalClassifier.from_dict,
            "label_rejection": Rejection.from_dict,
            "mask_rejection": Rejection.from_dict,
        }
        return cls(**{name: readers.get(name, lambda same: same)(value) for name, value in known.items()})


def fit_label_decisions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    prior_factors: Sequence[float] = (),
    sensitivity: float = 0.9,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Choose temperature, thresholds, conformal sets and the level of doubt on a part that neither trained nor reports.

    Warns when the probabilities name classes no better than always naming the commonest one. Where they name all of them right,
    the temperature is 1: such a part sets no bound to how sure one may be.

    Args:
        labels: `(samples,)`, integers.
        probabilities: `(samples, classes)`, as the network gives them.
        class_names: One name a class.
        prior_factors: As in `Decisions`.
        sensitivity: The share of each class's photographs that its threshold must reach, above 0 and at most 1.
        groups: `(samples,)`, the lesion of each photograph. Conformal sets are fitted on one photograph of each, for those of
            one lesion are not exchangeable. None takes each photograph for itself.

    Returns:
        Fields of `Decisions`.
    """
    from dermaseg.conformal import ConformalClassifier
    from dermaseg.metrics import choose_threshold, classification_scores, fit_temperature
    from dermaseg.uncertainty import entropy_bits

    restored = _restore(probabilities, prior_factors)
    scores = classification_scores(labels, restored)
    if scores["accuracy"] <= scores["majority_share"]:
        warnings.warn(
            f"the model names the class right in {scores['accuracy']:.1%} of the validation part, no more than always "
            f"naming the commonest class would ({scores['majority_share']:.1%}). {MAJORITY_ADVICE}",
            stacklevel=2,
        )
    # Where every photograph is named right, ever surer probabilities are ever likelier: there is nothing to learn from.
    temperature = fit_temperature(labels, restored) if scores["accuracy"] < 1 else 1.0
    # As prediction has them: the photograph that settles a threshold must reach it there too.
    calibrated = Decisions(prior_factors=tuple(prior_factors), temperature=temperature).calibrate(probabilities)
    thresholds = {
        name: choose_threshold(labels == index, calibrated[:, index], sensitivity=sensitivity)
        for index, name in enumerate(class_names)
        if (labels == index).any()
    }
    wrong = (calibrated.argmax(axis=1) != labels).astype(float)
    one_each = slice(None) if groups is None else np.unique(groups, return_index=True)[1]
    return {
        "prior_factors": tuple(prior_factors),
        "temperature": temperature,
        "thresholds": thresholds,
        "sensitivity": sensitivity,
        "conformal": ConformalClassifier.fit(labels[one_each], calibrated[one_each], coverage=WANTED_COVERAGE),
        "label_rejection": _rejection(wrong, entropy_bits(calibrated)),
    }


def fit_mask_decisions(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Choose whether masks are tidied, by their mean Jaccard index, and the level of doubt above which one is referred.

    That level is exceeded by the tenth of the validation part with the most doubt.

    Args:
        pairs: Batches of true masks and probabilities, both `(batch, height, width, 1)`.

    Returns:
        Fields of `Decisions`; no level where all photographs are equally doubtful.
    """
    from dermaseg.masks import clean_mask
    from dermaseg.metrics import jaccard_index
    from dermaseg.uncertainty import expected_jaccard

    plain, tidy, doubts = [], [], []
    for true, probabilities in pairs:
        doubts.append(1 - expected_jaccard(probabilities))
        for inside, probability in zip(true[..., 0] > 0, probabilities[..., 0], strict=True):
            found = probability > 0.5
            plain.append(jaccard_index(inside, found))
            tidy.append(jaccard_index(inside, clean_mask(found, largest_component=True, fill_holes=True)))
    helps = float(np.mean(tidy)) > float(np.mean(plain))
    return {"tidy_masks": helps, "mask_rejection": _rejection(1 - np.array(tidy if helps else plain), np.concatenate(doubts))}


def _restore(probabilities: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Return probabilities times a factor a class, each row with the sum 1 again."""
    if not len(factors):
        return probabilities
    scaled = np.asarray(probabilities, np.float64) * np.asarray(factors)
    return scaled / scaled.sum(axis=1, keepdims=True)


def _rejection(errors: np.ndarray, doubts: np.ndarray) -> Rejection | None:
    from dermaseg.conformal import choose_rejection

    try:
        return choose_rejection(errors, doubts, share=REFERRED_SHARE)
    except ValueError:
        return None  # all are equally doubtful: no level tells them apart
