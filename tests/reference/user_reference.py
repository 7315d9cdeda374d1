"""USER one user, one session, one candidate at a time: slow, and plain enough to be checked by eye.

It reads the weights of a model by name and nothing else of it.  There is no padding and no mask: a session is a list
of vectors, and what is appended to the history is appended to a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from reference.sesrec_reference import Reference, softmax, total
from torch import Tensor


@dataclass
class Event:
    item: int  # 0: a search
    session: int  # how many sessions ago
    query: int = 0
    clicks: tuple[int, ...] = ()


@dataclass
class Row:
    user: int
    events: list[Event]  # oldest first
    candidates: list[int]  # the positive first
    query: int = 0  # of a search instance


class USERReference(Reference):
    def event(self, event: Event) -> Tensor:
        types = self.weights["types.weight"]
        return self.item(event.item) + types[0] if event.item else self.record(event) + types[1]

    def record(self, event: Event) -> Tensor:
        """(1)"""
        if not event.clicks:
            return self.query(event.query)
        table = self.weights["queries.attributes.0.table.weight"]
        terms = [int(term) for term in self.dataset.query_terms[event.query] if term != 0]
        words = [self.linear("words", table[term]) for term in terms] or [self.query(event.query)]
        items = [self.item(click) for click in event.clicks]
        affinity = [[torch.tanh(word @ self.weights["affinity"] @ item) for item in items] for word in words]
        of_words = softmax([total(row) for row in affinity])
        of_items = softmax([total([row[column] for row in affinity]) for column in range(len(items))])
        mean_word = total([weight * word for weight, word in zip(of_words, words)])
        mean_item = total([weight * item for weight, item in zip(of_items, items)])
        return self.linear("search_record", torch.cat([mean_word, mean_item]))

    def intents(self, row: Row) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(2)-(3): the intents of the session and of the history, and the states of past sessions' events."""
        ages = self.weights["ages.weight"]
        if row.query:
            intent = self.query(row.query)
        else:
            user = self.entity("users", row.user, list(self.dataset.user_attributes.values()))
            intent = self.linear("user_intent", user)
        intent = intent + self.weights["types.weight"][2] + ages[0]
        inputs = [self.event(event) + ages[len(row.events) - place] for place, event in enumerate(row.events)]
        past = []
        for number in sorted({event.session for event in row.events if event.session}, reverse=True):
            past += self.encoder("session", [x for x, event in zip(inputs, row.events) if event.session == number])
        present = [x for x, event in zip(inputs, row.events) if event.session == 0]
        of_session = self.encoder("session", [*present, intent])[-1]
        return of_session, self.layer("history", [*past, of_session])[-1], past

    def scores(self, row: Row) -> list[Tensor]:
        """(4)-(5)"""
        of_session, of_history, past = self.intents(row)
        temperature = 0.01 + torch.log1p(torch.exp(100 * self.weights["temperature.raw"])) / 100
        scores = []
        for candidate in row.candidates:
            item = self.item(candidate)
            aware = self.layer("history", [*past, item])[-1]
            cosines = [cosine(x, intent) for x in (item, aware) for intent in (of_session, of_history)]
            hidden = self.linear("mlp.0", torch.stack(cosines) / temperature).clamp(min=0)
            scores.append(self.linear("mlp.2", hidden)[0])
        return scores

    def loss(self, rows: list[Row]) -> Tensor:
        pairs = []
        for row in rows:
            for number, score in enumerate(self.scores(row)):
                pairs.append(torch.log1p(torch.exp(-score if number == 0 else score)))
        return total(pairs) / len(pairs)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return first @ second / (first.norm() * second.norm())
