"""What made a score of a trained model: which events of the user's histories moved it, and by how much."""

from recbole_ser.explanation.explain import Explanation, explain

__all__ = ["Explanation", "explain"]
