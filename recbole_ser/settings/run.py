"""The settings that every run has, whatever its model: of data, histories, training, evaluation and the run itself."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from recbole_ser.settings.codes import CodesSettings
from recbole_ser.settings.declaration import Settings, setting
from recbole_ser.settings.texts import TextsSettings
from recbole_ser.settings.types import Count, Length
from recbole_ser.settings.wording import InWords

Names = list[str]
Columns = dict[str, Literal["*"] | list[str]]
Name = Annotated[str, Field(pattern=r"^[^\s:]+$"), InWords("the name of a column")]
Place = Annotated[str, Field(pattern=r"^[^\x00]+$"), InWords("a path")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


def _interval(text: str) -> str:
    number = r"\s*[-+]?(\d+\.?\d*|\.\d+|inf)([eE][-+]?\d+)?\s*"
    for part in text.split(";"):
        ends = re.fullmatch(rf"\s*[\[(]({number}),({number})[\])]\s*", part)
        if ends is None:
            raise ValueError("write an interval such as [5,inf) or (0,1];[3,4)")
        if float(ends[1]) > float(ends[4]):
            raise ValueError("an interval begins at its lower end")
    return text


Interval = Annotated[str, AfterValidator(_interval), InWords("an interval such as [5,inf)")]


class DataSettings(Settings):
    """Which files and columns are read, and which of their rows."""

    data_path: Place = setting("folder that holds one folder per data set")
    field_separator: Annotated[str, Field(min_length=1, max_length=1)] = setting("separator of columns in atomic files")
    seq_separator: Annotated[str, Field(min_length=1, max_length=1)] = setting("separator of the values of a list")
    USER_ID_FIELD: Name = setting("column of users")
    ITEM_ID_FIELD: Name = setting("column of items")
    TIME_FIELD: Name = setting("column of times")
    QUERY_ID_FIELD: Name = setting("column of queries")
    TERMS_FIELD: Name = setting("column of the words of a query")
    CLICKED_ITEMS_FIELD: Name = setting("column of the items clicked in a search")
    CLICK_TIMES_FIELD: Name = setting("column of the times of these clicks")
    SOURCE_FIELD: Name = setting("column of where a search came from")
    load_col: Columns | None = setting("columns that are read of each file; '*': all; files without an entry are not")
    unload_col: dict[str, Names] | None = setting("columns of each file that are not read")
    additional_feat_suffix: str | Names | None = setting("files that are read besides X.inter, X.item and X.user")
    seq_len: dict[str, Count] | None = setting("how many values are kept of an item's or user's list, by its column")
    rm_dup_inter: Literal["first", "last"] | None = setting("which one is kept of a user's interactions with an item")
    val_interval: dict[str, Interval | Names] | None = setting("rows are kept whose values lie in these intervals")
    filter_inter_by_user_or_item: bool = setting("interactions of users and items that X.user, X.item lack are dropped")
    user_inter_num_interval: Interval | None = setting("users are kept with so many interactions")
    item_inter_num_interval: Interval | None = setting("items are kept with so many interactions")
    alias_of_user_id: Names | None = setting("columns whose values are users")
    alias_of_item_id: Names | None = setting("columns whose values are items")
    preload_weight: dict[str, str] | None = setting("columns of vectors, by the column of the ids that they belong to")
    normalize_field: Names | None = setting("columns of numbers that are scaled to [0, 1] instead of standardised")
    normalize_all: bool | None = setting("whether all columns of numbers are scaled to [0, 1]")
    codes_file: Place | None = setting(
        "file of the users' codes; ~: X.codes beside the data set, made if it is missing"
    )
    codes: CodesSettings = setting("how the users' codes are made, for models that read them")
    texts_folder: Place | None = setting(
        "folder of the vectors of the texts of items and users; ~: X.texts beside the data set, made if it is missing"
    )
    texts: TextsSettings = setting("how the vectors of texts are made, for models that read them")


class HistorySettings(Settings):
    """What a model sees of a user's history."""

    MAX_ITEM_LIST_LENGTH: Length = setting("L, how many of the latest interactions a model sees")
    max_search_length: Length = setting("S, how many of the latest searches a model sees")
    max_clicks_per_search: Annotated[int, Field(ge=1, le=1_000)] = setting("first clicks of a search that are kept")
    max_terms_per_query: Annotated[int, Field(ge=1, le=10_000)] = setting("first words of a query that are kept")
    session_gap: Annotated[float, Field(gt=0)] | None = setting(
        "a longer pause, in the unit of the times, ends a session; ~: events are not divided into sessions"
    )
    require_both_histories: bool = setting("targets are only interactions with an earlier interaction and search")
    NEG_PREFIX: Name = setting("what the names of the negatives' fields begin with in a batch")
    LABEL_FIELD: Name = setting("field of the labels in a batch")
    LIST_SUFFIX: Name = setting("what the name of the field of the interaction history ends with in a batch")
    ITEM_LIST_LENGTH_FIELD: Name = setting("field of the number of interactions in a batch")


class Negatives(Settings):
    """The block ``train_neg_sample_args``."""

    distribution: Literal["candidates", "uniform", "popularity"] = setting("candidates: the same as the evaluation's")
    sample_num: Annotated[int, Field(ge=1, le=10_000)] = setting("negatives of each positive")
    alpha: Annotated[float, Field(ge=0, le=10)] = setting("power of popularity that they are drawn by", default=1.0)


class ClipGradNorm(Settings):
    """Arguments of ``torch.nn.utils.clip_grad_norm_``."""

    max_norm: Annotated[float, Field(gt=0)] = setting("the largest norm")
    norm_type: Annotated[float, Field(gt=0)] = setting("which norm", default=2.0)
    error_if_nonfinite: bool = setting("whether a norm that is not finite is an error", default=False)


class LrPlateau(Settings):
    """The learning rate falls when the validation metric no longer rises."""

    factor: Annotated[float, Field(gt=0, lt=1)] = setting("what the rate is multiplied by")
    patience: Annotated[int, Field(ge=0)] = setting("evaluations without a better value before that")
    min_lr: Annotated[float, Field(ge=0)] = setting("the rate falls no further")


class TrainingSettings(Settings):
    """How a model is trained."""

    epochs: Count = setting("the most epochs")
    train_batch_size: Annotated[int, Field(ge=1, le=10_000_000)] = setting("positives in a batch")
    shuffle: bool = setting("whether the training instances are shuffled in every epoch")
    learner: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"] = setting("optimiser")
    learning_rate: Annotated[float, Field(gt=0, le=10)] = setting("step size of the optimiser")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = setting("weight of the L2 term of the optimiser")
    train_neg_sample_args: Negatives | None = setting("negatives of training")
    clip_grad_norm: ClipGradNorm | None = setting("gradients are clipped; ~: they are not")
    lr_plateau: LrPlateau | None = setting("the learning rate falls on a plateau; ~: it stays")
    eval_step: Count = setting("epochs between evaluations")
    stopping_step: Annotated[int, Field(ge=0, le=1_000_000)] = setting(
        "evaluations without a better validation metric before training stops"
    )
    enable_amp: bool = setting("whether to train in mixed precision")

    @model_validator(mode="after")
    def _something_is_evaluated(self) -> Self:
        if self.eval_step > self.epochs:
            raise ValueError(f"eval_step is {self.eval_step}, more than epochs, {self.epochs}: no epoch is evaluated")
        return self


class Split(Settings):
    """Which targets are held out: exactly one of the three."""

    LS: Literal["valid_and_test"] | None = setting(
        "a user's last target is for test, the one before it for validation", default=None
    )
    RS: Annotated[list[Annotated[int | float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = setting(
        "shares of each user's targets, in time order, for training, validation and test", default=None
    )
    TS: Annotated[list[int | float | str], Field(min_length=2, max_length=2)] | None = setting(
        "the points in time, for all users, at which validation and test begin: shares of all interactions, dates, or "
        "times in the data's unit", default=None,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(given := [name for name in ("LS", "RS", "TS") if getattr(self, name) is not None]) != 1:
            raise ValueError(
                f"a split is one of LS, RS and TS, not {' and '.join(given) or 'none'}: write eval_args.split as "
                "{LS: valid_and_test}, {RS: [0.8, 0.1, 0.1]} or {TS: [0.8, 0.9]}"
            )
        return self

    @model_validator(mode="after")
    def _points_in_time(self) -> Self:
        points = self.TS or []
        for point in points:
            if isinstance(point, str) and not _is_date(point):
                raise ValueError(f"'{point}' is no date: write it like 2014-05-01 or 2014-05-01T12:00:00+00:00")
        numbers = [point for point in points if not isinstance(point, str)]
        shares = [point for point in numbers if 0 < point < 1]
        if any(point <= 0 for point in numbers) or (shares and len(shares) < len(points)):
            raise ValueError("TS takes two shares between 0 and 1, or two times: dates or numbers in the data's unit")
        if len(numbers) == 2 and numbers[0] >= numbers[1]:
            raise ValueError("TS: validation begins before test, so its first number is the smaller one")
        return self


def _is_date(text: str) -> bool:
    if re.search(r"[.,][0-9]{7}", text):  # Python would drop what is finer than a microsecond
        return False
    try:
        datetime.datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        return False
    return True


Mode = Annotated[str, Field(pattern=r"^(full|(uni|pop)[1-9]\d{0,5})$"), InWords("uni<N>, pop<N> or full")]


class Modes(Settings):
    """Different candidates for both splits."""

    valid: Mode | None = setting("of validation", default=None)
    test: Mode | None = setting("of test", default=None)

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.valid is None and self.test is None:
            raise ValueError("give the candidates of valid, of test, or of both")
        return self


class EvalArgs(Settings):
    """The block ``eval_args``."""

    split: Split = setting("which targets are held out")
    mode: Mode | Modes = setting("candidates: N drawn uniformly or by popularity, or the full catalogue")


class EvaluationSettings(Settings):
    """How a model is evaluated."""

    eval_args: EvalArgs = setting("the protocol")
    candidate_seed: Seed = setting("seed of the candidates, which are the same for every model and run")
    eval_batch_size: Annotated[int, Field(ge=1, le=10_000_000)] = setting("targets that are ranked at a time")
    metrics: str | Annotated[Names, Field(min_length=1)] = setting("metrics that are computed")
    topk: Count | Annotated[list[Count], Field(min_length=1)] = setting("lengths of the lists that they look at")
    valid_metric: str = setting("the validation metric that chooses the checkpoint")
    average_over: Literal["targets", "users"] = setting("metrics are means over targets, or over users' means")


class RunSettings(Settings):
    """Where and how a run works."""

    seed: Seed = setting("of everything that is random, except the candidates")
    reproducibility: bool = setting("whether PyTorch uses deterministic algorithms on a GPU")
    run_dir: Place | None = setting("folder of the run; ~: saved/<data set>/<model>-<time>-<seed>")
    row_name: Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,100}$"), InWords("a short line")] | None = setting(
        "name of the run's row in a comparison; ~: the model, and the settings by which its rows differ"
    )
    data_cache: Literal[False] | Place | None = setting(
        "folder of what was made of large data sets, so that they load at once; ~: .cache beside the data set; false: "
        "nothing is kept"
    )
    num_threads: Annotated[int, Field(ge=1, le=1_024)] | None = setting("of PyTorch on the CPU; ~: all cores")
    use_gpu: bool = setting("whether to use a GPU, if there is one")
    gpu_id: Annotated[int, Field(ge=0, le=1_024)] | Annotated[str, Field(pattern="^[^,]*$"), InWords("its name")] = (
        setting("number of the GPU, unless CUDA_VISIBLE_DEVICES names it")
    )
    show_progress: bool = setting("whether to show progress bars on a terminal")
    state: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting("what is logged")
    log_wandb: bool = setting("whether to log to Weights & Biases")
    wandb_project: str = setting("the project there")
    log_mlflow: bool = setting("whether to log to MLflow, at the place that MLFLOW_TRACKING_URI names")
    mlflow_experiment: Annotated[str, Field(min_length=1)] = setting("the experiment there")


GROUPS: dict[str, type[Settings]] = {
    "Data": DataSettings, "Histories": HistorySettings, "Training": TrainingSettings,
    "Evaluation": EvaluationSettings, "The run": RunSettings,
}  # fmt: skip


class AllSettings(DataSettings, HistorySettings, TrainingSettings, EvaluationSettings, RunSettings):
    """All of them."""


# RecBole's keys that have one possible value here, by their path: the value, why, and what to use instead.
FIXED: dict[str, tuple[Any, str]] = {
    "eval_args.order": ("TO", "histories are what came before, so events are in time order"),
    "eval_args.group_by": (
        "user",
        "histories are those of users; for one point in time for all use split: {TS: ...}",
    ),
    "train_neg_sample_args.dynamic": (False, "negatives are drawn anew in every epoch, whatever their scores are"),
    "train_neg_sample_args.candidate_num": (0, "it belongs to dynamic negatives, which there are not here"),
    "repeatable": (True, "items of the history are ranked like any other; sampled candidates never contain them"),
    "worker": (0, "batches are gathered from arrays in memory and need no worker processes"),
    "checkpoint_dir": ("saved", "a run keeps its checkpoints in its own folder: set run_dir"),
    "save_dataset": (False, "what is made of large data sets is kept without it: see data_cache"),
    "dataset_save_path": (None, "what is made of large data sets is kept without it: see data_cache"),
    "save_dataloaders": (False, "batches and candidates follow from the data and the seeds"),
    "dataloaders_save_path": (None, "batches and candidates follow from the data and the seeds"),
    "loss_decimal_place": (4, "metrics.jsonl has losses in full precision"),
    "metric_decimal_place": (4, "result.json has metrics in full precision"),
    "valid_metric_bigger": (True, "it follows from valid_metric"),
    "enable_scaler": (False, "gradients are scaled where enable_amp needs it"),
    "transform": (None, "what is done to batches belongs to the model"),
    "RATING_FIELD": ("rating", "interactions have no ratings here: filter by them with val_interval"),
    "threshold": (None, "every interaction is a positive: filter with val_interval"),
    "numerical_features": ([], "columns of numbers are read as they are: name them in load_col"),
    "discretization": (None, "columns of numbers are read as they are: write a token column for a discrete one"),
    "unused_col": (None, "what is not used need not be loaded: name it in unload_col"),
    "POSITION_FIELD": ("position_id", "batches have no field of positions"),
    "benchmark_filename": (None, "histories are built here, from X.inter: see eval_args.split for the splits"),
    "alias_of_entity_id": (None, "there are no knowledge graphs here"),
    "alias_of_relation_id": (None, "there are no knowledge graphs here"),
    "HEAD_ENTITY_ID_FIELD": ("head_id", "there are no knowledge graphs here"),
    "TAIL_ENTITY_ID_FIELD": ("tail_id", "there are no knowledge graphs here"),
    "RELATION_ID_FIELD": ("relation_id", "there are no knowledge graphs here"),
    "ENTITY_ID_FIELD": ("entity_id", "there are no knowledge graphs here"),
    "kg_reverse_r": (False, "there are no knowledge graphs here"),
    "entity_kg_num_interval": ("[0,inf)", "there are no knowledge graphs here"),
    "relation_kg_num_interval": ("[0,inf)", "there are no knowledge graphs here"),
    "require_pow": (False, "LightGCN and SimpleX alone have it"),
}


def without_fixed(key: str, value: Any) -> Any:
    """The value of ``key`` without the parts of it that ``FIXED`` has."""
    parts = {path.partition(".")[2] for path in FIXED if path.startswith(f"{key}.")}
    return {name: part for name, part in value.items() if name not in parts} if isinstance(value, dict) else value
