"""The equations of SRJGraph's docstring, one node after another, for trees that are given."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

USER, ITEM = 0, 1


class Tree(NamedTuple):
    """A node, the query of the edge that led to it, and what was drawn around it."""

    node: int
    query: int
    children: list[Tree]


class Graph:
    """Neighbours of each node, in the order of the edges."""

    def __init__(self, edges: list[tuple[int, int, int]]) -> None:
        self.near: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for user, query, item in edges:
            self.near.setdefault((USER, user), []).append((item, query))
            self.near.setdefault((ITEM, item), []).append((user, query))

    def spaced(self, kind: int, node: int, query: int, fan_outs: list[int]) -> Tree:
        """(1) in evaluation: the middles of equal parts of the list of neighbours."""
        near = self.near.get((kind, node), []) if fan_outs else []
        size = fan_outs[0] if near else 0
        chosen = [near[(2 * part + 1) * len(near) // (2 * size)] for part in range(size)]
        return Tree(node, query, [self.spaced(1 - kind, *neighbour, fan_outs[1:]) for neighbour in chosen])


class Reference:
    """Uses the embeddings and the parameters of ``model``, so that gradients arrive there."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def x(self, kind: int, node: int) -> Tensor:
        return (self.model.users if kind == USER else self.model.items)(torch.tensor([node]))[0]

    def z(self, query: int) -> Tensor:
        return self.model.queries(torch.tensor([query]))[0] if query else self.model.no_query

    def h(self, kind: int, tree: Tree, hop: int, upstream: Tensor, intention: Tensor, hidden: set[int]) -> Tensor:
        """(4) of a node that is ``hop`` away from the root; the neighbours in ``hidden`` do not exist."""
        own = self.x(kind, tree.node)
        if hop == len(self.model.fan_outs):
            return own
        part, width = self.model.aggregators[hop][kind], len(own)
        messages, votes = [], []
        for child in tree.children:
            if child.node in hidden:
                continue
            turn_back = {tree.node} if hop == 0 else set()
            h = self.h(1 - kind, child, hop + 1, own, intention, turn_back)
            both = part.near(h) + part.edge(self.z(child.query))
            messages.append(both[:width])  # (2)
            seen = both[width:] + part.own(own)[width:] + part.context(torch.cat([intention, upstream]))
            votes.append(part.vote(F.leaky_relu(seen))[0])  # (3)
        total = part.own(own)[:width]
        for weight, message in zip(torch.softmax(torch.stack(votes), 0) if votes else [], messages):
            total = total + weight * message
        return F.leaky_relu(total)

    def logit(self, user: Tree, item: Tree, query: int, hidden: tuple[set[int], set[int]]) -> Tensor:
        """(5) with what is hidden from the user and what from the item."""
        intention = self.z(query)
        h_user = self.h(USER, user, 0, self.x(USER, user.node), intention, hidden[0])
        h_item = self.h(ITEM, item, 0, self.x(ITEM, item.node), intention, hidden[1])
        hidden_layer = self.model.mlp.first(torch.cat([intention, h_user, h_item]))
        for layer in self.model.mlp.others:
            hidden_layer = layer(F.relu(hidden_layer))
        return hidden_layer[0]
