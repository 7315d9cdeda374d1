"""Studies: models with settings, on data sets, with seeds, each perhaps tuned first, as one command.

``declaration.py`` reads what is to be run, and ``cells.py`` says what each run is made of and what is left to do;
``jobs.py`` does it in processes, whose own side is ``worker.py``, and ``cluster.py`` hands them to a Ray cluster;
``progress.py`` shows it; ``estimate.py`` measures what it will cost at most; ``study.py`` is the whole.
"""
