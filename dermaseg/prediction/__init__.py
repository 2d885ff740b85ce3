"""From a photograph to a mask at its own size and to the probabilities of classes."""

from dermaseg.masks import clean_mask
from dermaseg.prediction.predictor import Predictor
from dermaseg.prediction.result import Prediction

__all__ = ["Prediction", "Predictor", "clean_mask"]
