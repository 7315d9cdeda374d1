"""Search-enhanced recommendation on RecBole: SESRec, GSERec and the models they are compared with."""

__version__ = "0.1.0"
