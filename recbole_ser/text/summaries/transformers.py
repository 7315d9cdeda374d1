"""Summaries by a language model in a local folder, run here with Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from recbole_ser.errors import ConfigError
from recbole_ser.files import sha256
from recbole_ser.text.cache import key_of
from recbole_ser.text.model_folder import in_model_folder
from recbole_ser.text.openai_api import UnusableAnswer
from recbole_ser.text.summaries.prompted import PromptedSummariser

# The values in the published code; sampling is as the published model (DeepSeek-R1-Distill-Qwen-7B) recommends.
PUBLISHED: dict[str, Any] = {
    "do_sample": True, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 10_000, "seed": 2025
}  # fmt: skip


class TransformersSummariser(PromptedSummariser):
    """Asks a causal language model about one user after the other.

    An answer depends on nothing but the prompt and the seed, so a run that was interrupted ends like one that was
    not.  For many users, serve the model with vLLM and use the back-end ``openai``, which is many times as fast.

    Args:
        cache: file of answers, see ``text.cache``.
        path: folder with the model (safetensors only) and its tokenizer; nothing is downloaded, and no code in the
            folder is run.
        device: PyTorch's name of the device; by default a GPU if there is one.
        parameters: parameters of ``generate``, and the ``seed``, that replace those in ``PUBLISHED``; ``None`` leaves
            one out.
        ask_again, on_failure, factors: see ``PromptedSummariser``.

    Raises:
        ConfigError: an argument is wrong.
    """

    backend = "transformers"

    def __init__(
        self,
        cache: str | Path,
        path: str | Path,
        device: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        ask_again: int = 2,
        on_failure: str = "error",
        factors: Sequence[str] = (),
    ) -> None:
        self._path = Path(path)
        if not (self._path / "config.json").is_file():
            raise ConfigError(f"path: '{path}' is no folder with a model: it holds no config.json")
        files = {file.name: sha256(file) for file in sorted(self._path.iterdir()) if file.is_file()}
        model = {"model": self._path.resolve().name, "model_hash": key_of(**files)}
        super().__init__(cache, model, {**PUBLISHED, **(parameters or {})}, ask_again, on_failure, factors)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The tokenizer and the model, loaded when the first question is asked."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._path, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._path, local_files_only=True, trust_remote_code=False, use_safetensors=True, torch_dtype="auto"
        )
        return tokenizer, model.to(self._device).eval()

    def _answer(self, text: str, parameters: dict[str, Any]) -> str:
        with in_model_folder(self._path):
            return self._generated(text, parameters)

    def _generated(self, text: str, parameters: dict[str, Any]) -> str:
        tokenizer, model = self._model
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        asked = tokenizer(text, return_tensors="pt", add_special_tokens=not tokenizer.chat_template).to(self._device)
        settings = {name: value for name, value in parameters.items() if name != "seed"}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(parameters.get("seed", 0))
            output = model.generate(**asked, **settings, pad_token_id=tokenizer.eos_token_id)
        tokens = output[0, asked["input_ids"].shape[1] :].tolist()
        answer = tokenizer.decode(tokens, skip_special_tokens=True)
        ends = model.generation_config.eos_token_id
        if not tokens or tokens[-1] not in (ends if isinstance(ends, list) else [ends]):
            raise UnusableAnswer("the answer is cut off at the limit of tokens", answer)
        return answer

    def _each(self, ask: Callable[[int], str], rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        return ((place, ask(row)) for place, row in enumerate(rows))
