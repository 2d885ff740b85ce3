"""What the fuzzy rules of a gate learned, and where in a photograph each of them fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.plots.style import COLOURS, GREY, line_looks, new_figure

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dermaseg.layers import FuzzySkipGate

__all__ = ["firing_maps", "membership_functions"]


def membership_functions(gate: FuzzySkipGate, *, rules: int = 4, channels: int = 6) -> Figure:
    """Draw the Gaussian sets of a gate's strongest rules, and what each of its rules lets pass.

    A rule j says "where channel r of q is about c_jr, for every r, let g_j of the skip pass". The first picture shows the last
    part, g_jc = 2 sigmoid(gain theta_jc), over the skip's channels c: the range, the middle half and the median; 1 changes
    nothing. The others show the first part, exp(-1/2 (s_jr (q_r - c_jr))^2), for the channels r in which the rules differ
    most. In grey, how q is spread there over the training pictures, by the mean and deviation that its normalisation gives
    it: what a set says outside of the grey it says of nothing.

    Args:
        gate: A built gate, as `model.get_layer("gate_0")`.
        rules: Rules whose sets are drawn: those whose theta is longest, that is, which change the skip most.
        channels: Channels drawn: those with the largest sum_j (s_jr (c_jr - mean c_r))^2 over these rules.

    Returns:
        A figure of its own, for `save_figure`: what the rules let pass, then the sets over each of the chosen channels.

    Raises:
        ValueError: If the gate is not built or has no Gaussian sets (`quadratic=False`), or a number is below 1.

    Examples:
        >>> from dermaseg.models import build_fuzzy_unet
        >>> figure = membership_functions(build_fuzzy_unet(filters=(8, 16)).get_layer("gate_0"), rules=2, channels=3)
        >>> [axis.get_title() for axis in figure.axes[1:]] == [axis.get_title() for axis in figure.axes[1:] if axis.lines]
        True
    """
    for name, value in (("rules", rules), ("channels", channels)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    if not gate.built:
        raise ValueError(f"gate {gate.name!r} is not built: it has no rules yet. Take it out of a model.")
    if not gate.quadratic:
        raise ValueError(f"gate {gate.name!r} was made with quadratic=False: its rules have no Gaussian sets to draw.")
    center, scale, theta = _sets(gate)
    strongest = np.argsort(-np.linalg.norm(theta, axis=1), kind="stable")[:rules]
    own, sharpness = center[:, strongest], scale[:, strongest]
    apart = np.sum(np.square(sharpness * (own - own.mean(axis=1, keepdims=True))), axis=1)
    drawn = np.argsort(-apart, kind="stable")[:channels]
    looks = _rule_looks(gate.rules)
    columns = min(4, len(drawn) + 1)
    rows = -(-(len(drawn) + 1) // columns)
    with new_figure(2.7 * columns, 2.2 * rows + 0.4) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(drawn) + 1 :]:
            axis.axis("off")
        _draw_consequents(axes.flat[0], 2.0 / (1.0 + np.exp(-gate.gain * theta)), strongest, looks)
        mean, deviation = _spread(gate)
        for channel, axis in zip(drawn.tolist(), axes.flat[1:], strict=False):
            reach = max(4.0, abs(mean[channel]) + 3 * deviation[channel])
            q = np.linspace(-min(reach, 8.0), min(reach, 8.0), 241)  # the gate clips q to 8
            axis.fill_between(q, np.exp(-0.5 * ((q - mean[channel]) / deviation[channel]) ** 2), color="#E4E4E4", label="_q")
            for rule in strongest.tolist():
                membership = np.exp(-0.5 * (scale[channel, rule] * (q - center[channel, rule])) ** 2)
                axis.plot(q, membership, label=f"rule {rule}", linewidth=1.5, **looks[rule])
            axis.set(title=f"q, channel {channel}", ylim=(0, 1.05), ylabel="membership")
        handles, labels = axes.flat[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return figure


def firing_maps(model: keras.Model, image: np.ndarray, gate_name: str = "gate_0") -> Figure:
    """Show where in a photograph each rule of a gate fires, beside the photograph and the rule that is strongest at each place.

    The firing strengths w_j are at least 0 and sum to 1 over the rules at each place, so that the maps share one scale. They
    are what the gate computes, at its own grid, not smoothed.

    Args:
        model: A functional model with `FuzzySkipGate` layers, as `build_fuzzy_unet` makes.
        image: `(height, width, 3)`, values 0 to 255, at the size that the model works at: a rule that looks at 200 pixels sees
            something else in a photograph four times as wide.
        gate_name: Name of the gate: `gate_0` is the finest skip's.

    Returns:
        A figure of its own, for `save_figure`: the photograph, the strongest rule at each place, then a map for each rule.

    Raises:
        ValueError: If the image is of another shape, the model takes more than an image, or it has no such gate.

    Examples:
        >>> from dermaseg.models import build_fuzzy_unet
        >>> figure = firing_maps(build_fuzzy_unet(filters=(8, 16), rules=3), np.zeros((40, 60, 3), "uint8"))
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['photograph', 'strongest rule']
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be (height, width, 3), got the shape {image.shape}.")
    strengths = _firing_strengths(model, image, gate_name)
    rules = strengths.shape[-1]
    looks = _rule_looks(rules)
    columns = min(5, rules + 2)
    rows = -(-(rules + 2) // columns)
    aspect = float(np.clip(image.shape[0] / image.shape[1], 0.4, 1.6))
    with new_figure(2.1 * columns + 0.5, (2.1 * aspect + 0.35) * rows) as figure:
        from matplotlib.colors import ListedColormap

        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        photo, strongest, *maps = axes.flat[: rules + 2]
        photo.imshow(np.clip(image, 0, 255).astype(np.uint8))
        photo.set_title("photograph")
        colours = ListedColormap([look["color"] for look in looks])
        strongest.imshow(strengths.argmax(axis=-1), cmap=colours, vmin=-0.5, vmax=rules - 0.5, interpolation="nearest")
        strongest.set_title("strongest rule")
        for rule, axis in enumerate(maps):
            shown = axis.imshow(strengths[..., rule], cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
            # The frame is the key to the colours of the strongest rule.
            axis.spines[:].set(visible=True, color=looks[rule]["color"], linewidth=3)
            axis.set_title(f"rule {rule} (mean {strengths[..., rule].mean():.2f})")
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, aspect=30, ticks=[0, 0.5, 1])
        bar.set_label("firing strength")
        return figure


def _rule_looks(count: int) -> list[dict[str, Any]]:
    """Return the looks of lines, with yellow for the eighth rule: eight are the default, and they shall not share a colour."""
    from matplotlib.patheffects import withStroke

    looks = line_looks(count)
    if count > 7:
        looks[7] = {"color": COLOURS["yellow"], "path_effects": [withStroke(linewidth=3, foreground="#333333")]}
    return looks


def _sets(gate: FuzzySkipGate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres and inverse widths, `(channels, rules)`, and theta, `(rules, skip channels)`, as float32 arrays."""
    from keras import ops

    from dermaseg.layers.fuzzy import _positive

    center, scale = ops.convert_to_numpy(gate.center), ops.convert_to_numpy(_positive(ops.convert_to_tensor(gate.rho)))
    return center, scale, np.asarray(ops.convert_to_numpy(gate.theta), dtype=np.float32)


def _spread(gate: FuzzySkipGate) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and deviation of each channel of q: what batch normalisation leaves, at the data it was fitted to."""
    from keras import ops

    return ops.convert_to_numpy(gate.norm.beta), np.maximum(np.abs(ops.convert_to_numpy(gate.norm.gamma)), 1e-3)


def _draw_consequents(axis: Axes, gates: np.ndarray, strongest: np.ndarray, looks: list[dict[str, Any]]) -> None:
    axis.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    for rule, values in enumerate(gates):
        low, quarter, median, three_quarters, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        colour = looks[rule]["color"] if rule in strongest else "#BBBBBB"
        axis.plot([low, high], [rule, rule], color=colour, linewidth=1)
        axis.plot([quarter, three_quarters], [rule, rule], color=colour, linewidth=4, solid_capstyle="butt")
        axis.plot(median, rule, "o", color="white", markeredgecolor=colour, markersize=5)
    axis.set_yticks(range(len(gates)), [f"rule {rule}" for rule in range(len(gates))])
    axis.invert_yaxis()
    spread = max(0.1, float(np.abs(gates - 1.0).max()) * 1.1)
    axis.set(title="what each rule lets pass", xlabel="gate g (1 changes nothing)", xlim=(1 - spread, 1 + spread))


def _firing_strengths(model: keras.Model, image: np.ndarray, gate_name: str) -> np.ndarray:
    """Return w on the photograph's own pixels, `(height, width, rules)`; a cell of the gate's grid stays one flat square."""
    import keras
    from keras import ops

    from dermaseg.layers import FuzzySkipGate
    from dermaseg.layers.padding import covered_size

    if len(model.inputs) != 1:
        raise ValueError(f"model must have one input, the image; it has {len(model.inputs)}.")
    gates = {layer.name: layer for layer in model.layers if isinstance(layer, FuzzySkipGate)}
    if gate_name not in gates:
        raise ValueError(f"gate_name must be one of {', '.join(gates) or '(the model has no fuzzy gate)'}, got {gate_name!r}.")
    gate = gates[gate_name]
    features = keras.Model(model.inputs[0], gate.input)
    encoder, decoder = features(ops.convert_to_tensor(image[np.newaxis], dtype="float32"), training=False)
    strengths = ops.convert_to_numpy(gate.firing_strengths(encoder, decoder))[0]
    height, width = image.shape[:2]
    grid = strengths.shape[:2]
    rows, columns = (side // cells for side, cells in zip(covered_size((height, width), grid), grid, strict=True))
    return strengths.repeat(rows, axis=0).repeat(columns, axis=1)[:height, :width]
