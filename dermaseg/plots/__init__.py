"""Pictures for reports and papers: plain arrays in, a Matplotlib `Figure` out, in one colour-blind-safe style.

matplotlib is loaded when a chart is drawn, not before. Figures stand alone: pyplot does not know them, so none stays open
and a loop over a thousand photographs leaks nothing. Write one with `save_figure`, or put it into a `dermaseg.html.Page`; a
notebook shows it once it has imported `matplotlib.pyplot`.

What is uncertain looks uncertain in all of them: hollow marks stand for few samples.
"""

from dermaseg.plots.calibration import reliability_diagram, risk_coverage_plot
from dermaseg.plots.classification import confusion_matrix_plot, roc_curves
from dermaseg.plots.heatmaps import heatmap_panel
from dermaseg.plots.masks import cases, choose_cases, overlay, panel
from dermaseg.plots.rules import firing_maps, membership_functions
from dermaseg.plots.style import COLOURS, save_figure
from dermaseg.plots.subgroups import forest_plot
from dermaseg.plots.training import training_curves

__all__ = [
    "COLOURS",
    "cases",
    "choose_cases",
    "confusion_matrix_plot",
    "firing_maps",
    "forest_plot",
    "heatmap_panel",
    "membership_functions",
    "overlay",
    "panel",
    "reliability_diagram",
    "risk_coverage_plot",
    "roc_curves",
    "save_figure",
    "training_curves",
]
