"""The figures of the papers from finished runs and sweeps, one file for each; see ``recbole-ser figure``."""
