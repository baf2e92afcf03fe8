"""From files, arrays and texts to answers: what every predictor gives, and what it is asked with."""

from samo.prediction.decoded import Decoded
from samo.prediction.network import Network
from samo.prediction.prediction import NOT_SURE, Answer, Prediction, PredictionList, Window, answers_of
from samo.prediction.predictor import ModelFacts, ModelPredictor, Predictor, TrainedModel

__all__ = [
    "NOT_SURE",
    "Answer",
    "Decoded",
    "ModelFacts",
    "ModelPredictor",
    "Network",
    "Prediction",
    "PredictionList",
    "Predictor",
    "TrainedModel",
    "Window",
    "answers_of",
]
