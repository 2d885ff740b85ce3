"""One network for the mask and the diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import layers, ops

from dermaseg.distribution import replica_count
from dermaseg.layers.fuzzy import FuzzySkipGate
from dermaseg.layers.padding import PadToStride
from dermaseg.layers.pooling import BorderPooling, LesionPooling
from dermaseg.layers.uncertainty import UncertaintyWeights
from dermaseg.models.blocks import decode, dense_head
from dermaseg.models.unet import Pyramid, build_masks, build_pyramid
from dermaseg.pretrained import with_weights

__all__ = ["UncertaintyWeightedModel", "build_hybrid"]

# Finer maps know colours and edges, not yet what they mean; coarser ones alone have too few places for a border.
_FINEST_POOLED_STRIDE = 16


@keras.saving.register_keras_serializable(package="dermaseg")
class UncertaintyWeightedModel(keras.Model):
    """A functional model with several outputs that learns how much the loss of each counts.

    It is compiled with one `keras.losses.Loss` for each output, trains on their sum by `UncertaintyWeights`, and reports
    each as `<output>_loss`. The learned weights are saved with the model; predictions do not depend on them.

    A sample without a target for an output takes part with the sample weight 0 there, and any finite target in its
    place (0 times NaN is NaN). The weights of an output are 0 or more; None stands for 1.

    Args:
        *args: As for `keras.Model(inputs, outputs)`, the outputs a dict.
        **kwargs: As for `keras.Model`.

    Examples:
        >>> images = keras.Input((4,))
        >>> outputs = {"a": layers.Dense(1, name="a")(images), "b": layers.Dense(1, name="b")(images)}
        >>> model = UncertaintyWeightedModel(images, outputs)
        >>> model.compile("sgd", loss={"a": keras.losses.MeanSquaredError(), "b": keras.losses.MeanAbsoluteError()})
        >>> figures = model.train_on_batch(ops.ones((2, 4)), {"a": ops.ones((2, 1)), "b": ops.ones((2, 1))}, return_dict=True)
        >>> sorted(figures)
        ['a_loss', 'b_loss', 'loss']

    References:
        As `UncertaintyWeights`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.uncertainty = UncertaintyWeights(len(self.output), name="uncertainty")
        self._trackers = {name: keras.metrics.Mean(name=f"{name}_loss") for name in sorted(self.output)}

    def compile(self, optimizer: Any = "rmsprop", loss: Mapping[str, keras.losses.Loss] | None = None, **kwargs: Any) -> None:
        """Compile, with a loss for each output.

        Raises:
            ValueError: If `loss` is not a dict with a `keras.losses.Loss` for each output, or `loss_weights` are given.
        """
        names = set(self._trackers)
        if not isinstance(loss, Mapping) or set(loss) != names or not all(map(_is_loss, loss.values())):
            raise ValueError(f"loss must hold a keras.losses.Loss for each of {', '.join(sorted(names))}, got {loss!r}.")
        if kwargs.get("loss_weights") is not None:
            raise ValueError("loss_weights are learned by this model; for fixed ones build it with learned_weights=False.")
        self._losses_by_output = dict(loss)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as saved; Keras leaves this to a model that overrides `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the weighted sum of the outputs' losses, and what regularisers add."""
        replicas = replica_count()
        losses, shares = [], []
        for name, tracker in self._trackers.items():
            weight = None if sample_weight is None else sample_weight.get(name)
            loss = self._losses_by_output[name](y[name], y_pred[name], sample_weight=weight)
            # Keras has divided by the replicas, whose gradients it will sum. The learned weights are to see a loss as it is.
            loss = loss * replicas
            tracker.update_state(loss, sample_weight=ops.shape(y_pred[name])[0])  # a smaller last batch counts for less
            losses.append(ops.cast(loss, "float32"))
            shares.append(ops.ones(()) if weight is None else ops.mean(ops.cast(ops.greater(weight, 0), "float32")))
        total = self.uncertainty(ops.stack(losses), ops.stack(shares))
        return sum(self.losses, start=total) / replicas


def build_hybrid(
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int,
    filters: Sequence[int] | None = None,
    stem_stride: int = 2,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    fuzzy: bool = False,
    mask_guidance: bool | Literal["input"] = True,
    stop_gradient: bool = True,
    learned_weights: bool = True,
    dropout: float = 0.0,
    classifier_activation: str | None = "auto",
    weights: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a network that outlines the lesion and names it.

    One encoder, the decoder of `build_unet`, and a classifier on the encoder's maps at stride 16 and coarser. Of each map it
    reads three means: over every place, over the lesion (`LesionPooling`) and over its border (`BorderPooling`), where the
    mask that the network itself predicts says what is lesion and border. So the diagnosis looks where a dermatologist does,
    and still sees the skin around.

    Args:
        input_shape: As for `build_unet`: any height and width.
        num_classes: Diagnoses: 1 for a yes or no (sigmoid), more for exclusive classes (softmax).
        filters: As for `build_unet`.
        stem_stride: As for `build_unet`.
        encoder: As for `build_unet`.
        encoder_weights: As for `build_unet`.
        fuzzy: Put a `FuzzySkipGate` on each skip, as `build_fuzzy_unet` does.
        mask_guidance: False leaves the classifier the means over every place alone. `"input"` guides it by a mask that is
            given as a second input, `(batch, height, width, 1)` named `guide`: the true one measures how much a better
            mask could help, one of another sample whether it is the mask that helps.
        stop_gradient: Keep the gradient of the diagnosis from the mask, which then says where the lesion is and nothing
            else. False lets the diagnosis move the mask.
        learned_weights: True returns an `UncertaintyWeightedModel`, which learns how much each loss counts; False a plain
            model, whose `compile` takes fixed `loss_weights`.
        dropout: Rate, 0 to 1, before the classifier's dense layer.
        classifier_activation: Activation of the diagnosis: `"auto"`, the name of an activation, or None for logits.
        weights: None, or the name of a preset, `dermaseg.list_presets()`, whose weights to start from; a head with
            another number of classes keeps its random weights; one with the same number takes the preset's, even if the classes
            differ.
        name: Name of the model.

    Returns:
        An uncompiled model from `(batch, height, width, 3)`, 0 to 255, to a dict of `mask`, `(batch, height, width, 1)`, and
        `label`, `(batch, num_classes)`, both float32. It trains on samples that have a mask or a label alone: give each output
        its sample weights, 0 where a target is missing, and any finite target there.

    Raises:
        ValueError: If an argument is outside its range.

    Examples:
        >>> model = build_hybrid(num_classes=7, filters=(8, 16))
        >>> outputs = model(ops.zeros((1, 45, 60, 3)))
        >>> outputs["mask"].shape == (1, 45, 60, 1), outputs["label"].shape == (1, 7)
        (True, True)

    References:
        As `build_unet`, `LesionPooling` and `UncertaintyWeights`. Mask-guided pooling: Xie et al., 2020, "A mutual
        bootstrapping model for automated skin lesion segmentation and classification", here within one network.
    """
    if mask_guidance not in (True, False, "input"):
        raise ValueError(f"mask_guidance must be True, False or 'input', got {mask_guidance!r}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}.")
    images = keras.Input(input_shape, name="images")
    pyramid = build_pyramid(
        images, filters=filters, stem_stride=stem_stride, encoder=encoder, encoder_weights=encoder_weights, dropout=0.0
    )
    mask = build_masks(
        decode(pyramid.features, pyramid.decoder_filters, skip_gate=_fuzzy_gate if fuzzy else None),
        images,
        stride=pyramid.stride,
        num_classes=1,
        deep_supervision=False,
        classifier_activation="auto",
    )
    inputs: Any = images
    guide = None
    if mask_guidance == "input":
        guide = keras.Input((*input_shape[:2], 1), name="guide")
        inputs = {"images": images, "guide": guide}
    elif mask_guidance:
        guide = ops.stop_gradient(mask) if stop_gradient else mask
    label = dense_head(
        _pool(pyramid, guide),
        num_classes=num_classes,
        dropout=dropout,
        classifier_activation=classifier_activation,
        name="label",
    )
    build = UncertaintyWeightedModel if learned_weights else keras.Model
    return with_weights(build(inputs, {"mask": mask, "label": label}, name=name or "hybrid"), weights)


def _fuzzy_gate(skip: Any, decoded: Any, name: str) -> Any:
    return FuzzySkipGate(stride=2, decoder_stride=2, name=name)(skip, decoded)  # as in build_fuzzy_unet


def _pool(pyramid: Pyramid, guide: Any | None) -> Any:
    """Return what the classifier reads, `(batch, channels)`, float32."""
    strides = [pyramid.stride * 2**level for level in range(len(pyramid.features))]
    pooled = []
    for stride, features in zip(strides, pyramid.features, strict=True):
        if stride < min(_FINEST_POOLED_STRIDE, strides[-1]):
            continue
        pooled.append(layers.GlobalAveragePooling2D(dtype="float32", name=f"global_pool_{stride}")(features))
        if guide is not None:
            # Mirrored out as far as the map's cells reach, so that mask and map lie on one grid.
            padded = PadToStride(max(stride, pyramid.multiple), dtype="float32", name=f"guide_{stride}_pad")(guide)
            fraction = layers.AveragePooling2D(stride, dtype="float32", name=f"guide_{stride}")(padded)
            pooled.append(LesionPooling(dtype="float32", name=f"lesion_pool_{stride}")(features, fraction))
            pooled.append(BorderPooling(dtype="float32", name=f"border_pool_{stride}")(features, fraction))
    return layers.Concatenate(dtype="float32", name="pooled")(pooled) if len(pooled) > 1 else pooled[0]


def _is_loss(value: Any) -> bool:
    return isinstance(value, keras.losses.Loss)
