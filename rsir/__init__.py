"""rsir: recommenders that improve themselves (Recursive Self-Improving Recommendation, arXiv 2602.15659)."""

__version__ = "0.1.0"
