"""Recommendations of a trained model, to users of its data or for histories that come in a file."""

from recbole_ser.inference.recommender import Recommender, Retriever, recommend

__all__ = ["Recommender", "Retriever", "recommend"]
