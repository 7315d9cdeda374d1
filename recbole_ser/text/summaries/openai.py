"""Summaries by a language model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, OpenAI itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ser.text.openai_api import Client
from recbole_ser.text.summaries.prompted import PromptedSummariser

# The values in the published code; sampling is as the published model (DeepSeek-R1-Distill-Qwen-7B) recommends.
PUBLISHED: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 10_000, "seed": 2025}


class OpenAISummariser(PromptedSummariser):
    """Asks a server about several users at once.

    Args:
        cache: file of answers, see ``text.cache``.
        client: client of the server.
        parameters: parameters of the generation that replace those in ``PUBLISHED``; ``None`` leaves one out.
        ask_again, on_failure, factors: see ``PromptedSummariser``.

    Raises:
        ConfigError: an argument is wrong.
    """

    backend = "openai"

    def __init__(
        self,
        cache: str | Path,
        client: Client,
        parameters: Mapping[str, Any] | None = None,
        ask_again: int = 2,
        on_failure: str = "error",
        factors: Sequence[str] = (),
    ) -> None:
        parameters = {**PUBLISHED, **(parameters or {})}
        super().__init__(cache, {"model": client.model}, parameters, ask_again, on_failure, factors)
        self._client = client

    def _answer(self, text: str, parameters: dict[str, Any]) -> str:
        return self._client.chat([{"role": "user", "content": text}], **parameters)

    def _each(self, ask: Callable[[int], str], rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        return self._client.each(ask, rows)
