"""Summaries by a language model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, OpenAI itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ser.text.openai_api import Client, api_key
from recbole_ser.text.summaries.prompted import PromptedSummariser

# Published code; the sampling is what the published model (DeepSeek-R1-Distill-Qwen-7B) recommends.
PUBLISHED: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 10_000, "seed": 2025}


class OpenAISummariser(PromptedSummariser):
    """Asks a server, several users at once.

    Args:
        cache: file of answers, see ``codes.cache``.
        base_url, model, timeout, concurrency, retries, requests_per_minute: see ``Client``.
        api_key_variable: the environment variable that holds the key; by default none is sent.
        parameters: of the generation, over ``PUBLISHED``; ``None`` leaves one out.
        ask_again, on_failure: see ``PromptedSummariser``.

    Raises:
        ConfigError: an argument is wrong, or the variable is not set.
    """

    backend = "openai"

    def __init__(
        self,
        cache: str | Path,
        base_url: str,
        model: str,
        api_key_variable: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        ask_again: int = 2,
        on_failure: str = "error",
        timeout: float = 600.0,
        concurrency: int = 8,
        retries: int = 5,
        requests_per_minute: float | None = None,
    ) -> None:
        key = api_key(api_key_variable)
        super().__init__(cache, {"model": model}, {**PUBLISHED, **(parameters or {})}, ask_again, on_failure)
        self._client = Client(base_url, model, key, timeout, concurrency, retries, requests_per_minute)

    def _answer(self, text: str, parameters: dict[str, Any]) -> str:
        return self._client.chat([{"role": "user", "content": text}], **parameters)

    def _each(self, ask: Callable[[int], str], rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        return self._client.each(ask, rows)
