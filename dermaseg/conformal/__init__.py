"""Statements that hold for new photographs: sets of classes, masks that miss little, and whom to refer. No backend.

Each is fitted on a part that neither trained the model nor reports it, and holds on average over photographs that come from
where that part came from. One photograph per lesion: two of one lesion are one piece of evidence, not two.
"""

from dermaseg.conformal.classes import ConformalClassifier, coverage_interval
from dermaseg.conformal.masks import MaskRiskControl
from dermaseg.conformal.rejection import Rejection, choose_rejection

__all__ = ["ConformalClassifier", "MaskRiskControl", "Rejection", "choose_rejection", "coverage_interval"]
