"""The models that can be run: ours, RecBole's, and those that other packages register."""

from __future__ import annotations

import difflib
import importlib
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_ser.errors import ConfigError

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

ENTRY_POINT_GROUP = "recbole_ser.models"


@dataclass(frozen=True)
class ModelSpec:
    """One model: where its class is, which histories it reads, and where it was published.

    Args:
        name: name of the model for ``--model``; also the name of its YAML file.
        path: ``module:Class``; the module is imported only when the model is asked for.
        reads: what the model reads with its default settings besides the recommendation history: any of ``search``,
            ``text`` (the words of queries), ``codes`` and ``texts`` (the vectors of the texts of items and users).
        paper: authors, venue and year of the paper.
    """

    name: str
    path: str
    reads: tuple[str, ...] = ()
    paper: str = ""

    def load(self) -> type[AbstractRecommender]:
        from recbole_ser.compat import keep_anomaly_mode  # slow, and not needed to list the models

        module, _, class_name = self.path.partition(":")
        with keep_anomaly_mode():
            return getattr(importlib.import_module(module), class_name)


_SEARCH_AWARE = "recbole_ser.model.search_aware"
_SEQUENTIAL = "recbole_ser.model.sequential"
_GENERAL = "recbole_ser.model.general"
_RECBOLE_SEQUENTIAL = "recbole.model.sequential_recommender"
_BOTH = ("search", "text")

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in [
        ModelSpec("GSERec", f"{_SEARCH_AWARE}.gserec:GSERec", (*_BOTH, "codes"), "Shi et al., CIKM'25"),
        ModelSpec("SESRec", f"{_SEARCH_AWARE}.sesrec:SESRec", _BOTH, "Si et al., SIGIR'23"),
        ModelSpec("UniSAR", f"{_SEARCH_AWARE}.unisar:UniSAR", _BOTH, "Shi et al., SIGIR'24"),
        ModelSpec("UnifiedSSR", f"{_SEARCH_AWARE}.unified_ssr:UnifiedSSR", _BOTH, "Xie et al., WWW'24"),
        ModelSpec("USER", f"{_SEARCH_AWARE}.user:USER", _BOTH, "Yao et al., CIKM'21"),
        ModelSpec("QuerySeqRec", f"{_SEARCH_AWARE}.query_seqrec:QuerySeqRec", _BOTH, "He et al., CIKM'22"),
        ModelSpec("IV4REC", f"{_SEARCH_AWARE}.iv4rec:IV4REC", _BOTH, "Si et al., WWW'22, TOIS'23"),
        ModelSpec("SRJGraph", f"{_SEARCH_AWARE}.srjgraph:SRJGraph", _BOTH, "Zhao et al., WSDM'22"),
        ModelSpec("NRHUB", f"{_SEARCH_AWARE}.nrhub:NRHUB", _BOTH, "Wu et al., EMNLP'19"),
        ModelSpec("JSR", f"{_SEARCH_AWARE}.jsr:JSR", _BOTH, "Zamani and Croft, DESIRES'18"),
        ModelSpec("DIN", f"{_SEARCH_AWARE}.din:DIN", paper="Zhou et al., KDD'18"),
        ModelSpec("DIEN", f"{_SEQUENTIAL}.dien:DIEN", paper="Zhou et al., AAAI'19"),
        ModelSpec("FMLPRec", f"{_SEQUENTIAL}.fmlp_rec:FMLPRec", paper="Zhou et al., WWW'22"),
        ModelSpec("BERT4Rec", f"{_SEQUENTIAL}.bert4rec:BERT4Rec", paper="Sun et al., CIKM'19"),
        ModelSpec("SASRecAll", f"{_SEQUENTIAL}.sasrec_all:SASRecAll", paper="Kang and McAuley, ICDM'18"),
        ModelSpec("CL4SRec", f"{_SEQUENTIAL}.cl4srec:CL4SRec", paper="Xie et al., ICDE'22"),
        ModelSpec("KAR", f"{_SEQUENTIAL}.kar:KAR", ("texts",), "Xi et al., RecSys'24"),
        ModelSpec("LLMESR", f"{_SEQUENTIAL}.llm_esr:LLMESR", ("texts",), "Liu et al., NeurIPS'24"),
        ModelSpec("SASRec", f"{_RECBOLE_SEQUENTIAL}:SASRec", paper="Kang and McAuley, ICDM'18"),
        ModelSpec("GRU4Rec", f"{_RECBOLE_SEQUENTIAL}:GRU4Rec", paper="Tan et al., DLRS'16"),
        ModelSpec("STAMP", f"{_RECBOLE_SEQUENTIAL}:STAMP", paper="Liu et al., KDD'18"),
        ModelSpec("LightGCN", f"{_GENERAL}.lightgcn:LightGCN", paper="He et al., SIGIR'20"),
        ModelSpec("SGL", f"{_GENERAL}.sgl:SGL", paper="Wu et al., SIGIR'21"),
        ModelSpec("SimGCL", f"{_GENERAL}.simgcl:SimGCL", paper="Yu et al., SIGIR'22"),
        ModelSpec("BPR", "recbole.model.general_recommender:BPR", paper="Rendle et al., UAI'09"),
        ModelSpec("Pop", f"{_GENERAL}.pop:Pop"),
    ]
}


def available_models() -> dict[str, ModelSpec]:
    """Every registered model by name; a model from an entry point does not replace one of ours."""
    outside = {
        point.name: ModelSpec(point.name, point.value)
        for point in entry_points(group=ENTRY_POINT_GROUP)
    }  # fmt: skip
    return {**outside, **MODELS}


def is_model(value: Any) -> bool:
    """Whether ``value`` is the class of a model."""
    from recbole.model.abstract_recommender import AbstractRecommender  # slow, and not needed to list the models

    return isinstance(value, type) and issubclass(value, AbstractRecommender)


def registered_name(model_class: type) -> str | None:
    """The name under which ``model_class`` is registered; ``None`` if it is not."""
    spec = available_models().get(model_class.__name__)
    return spec.name if spec is not None and spec.load() is model_class else None


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def find_model(name: str) -> type[AbstractRecommender]:
    """The class of model ``name``, which may also be the path ``package.module:Class`` of a model of one's own.

    Of a registered name, capitals and hyphens do not matter: ``sesrec`` and ``FMLP-Rec`` are found as well.

    Raises:
        ConfigError: there is no such model (the message names the most similar one), or it cannot be imported.
    """
    models = available_models()
    if name in models:
        return models[name].load()
    alike = [spec for known, spec in models.items() if _plain(known) == _plain(name)]
    if len(alike) == 1:
        return alike[0].load()
    if all(name.partition(":")):
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)  # an installed command does not search the working directory
        try:
            found = ModelSpec(name, name).load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"model '{name}' cannot be imported: {error}") from error
        if not is_model(found):
            raise ConfigError(f"'{name}' is no model: it must be a subclass of SearchRecommender or of a RecBole model")
        return found
    near = difflib.get_close_matches(name, models, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ConfigError(
        f"there is no model '{name}': {hint}known are {', '.join(sorted(models))}; or package.module:Class"
    )
