"""The FT-Transformer: every column a token, attention between them, prediction from the [CLS] token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_utils._validation import check_int
from course_utils.tabular._inputs import split_columns
from course_utils.tabular._layers import linear, uniform_parameter

__all__ = ["FTTransformer", "FeatureTokenizer", "MultiheadSelfAttention"]


class FeatureTokenizer(nn.Module):
    """Turn every column into a token, a vector of length d_token, and put the learned [CLS] token before them.

    A number x of column j becomes x·w_j + b_j; category c of column j becomes row c of the column's table, plus b_j.
    Input (batch, n_numeric + n_categorical), output (batch, 1 + n_numeric + n_categorical, d_token).

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        d_token: length of a token, at least 1.
        generator: draws the initial weights from U(±1/√d_token); ``None`` is torch's global stream.

    Attributes:
        weight: (n_numeric, d_token).
        table: (sum of the cardinalities, d_token), the columns' tables one below the other. The rows of code 0, the
            unknown category of `preprocessing.make_preprocessor`, start at 0: never seen in training, it says nothing.
        bias: (n_numeric + n_categorical, d_token).
        cls: (d_token,).

    Source: Gorishniy et al. 2021, section 3.3 and figure 2a. Differs: the rows of code 0 start at 0.
    """

    offset: Tensor

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        d_token: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_numeric = n_numeric
        self.cardinalities = tuple(cardinalities)
        sizes = torch.tensor(self.cardinalities, dtype=torch.long)
        self.register_buffer("offset", sizes.cumsum(0) - sizes)
        self.weight = uniform_parameter((n_numeric, d_token), d_token, generator)
        self.table = uniform_parameter((sum(self.cardinalities), d_token), d_token, generator)
        self.bias = uniform_parameter((n_numeric + len(sizes), d_token), d_token, generator)
        self.cls = uniform_parameter((d_token,), d_token, generator)
        with torch.no_grad():
            self.table[self.offset] = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, 1 + columns, d_token) for ``inputs`` of shape (batch, columns).

        Raises:
            ValueError: another width, or a code outside its column's range.
        """
        numeric, codes = split_columns(inputs, self.n_numeric, self.cardinalities)
        tokens = torch.cat([numeric[:, :, None] * self.weight, self.table[codes + self.offset]], dim=1) + self.bias
        return torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)


class MultiheadSelfAttention(nn.Module):
    """Scaled dot-product attention of tokens to each other, in several heads.

    A head turns every token into a query q, a key k and a value v of length d_head = d_token / n_heads. Token i takes
    in Σ_j a_ij v_j, with weights a_i = softmax over j of q_i·k_j/√d_head; a last linear map mixes the heads' results.

    Args:
        d_token: length of a token.
        n_heads: number of heads, a divisor of ``d_token``.
        dropout: probability of dropping an attention weight, in [0, 1).
        generator: draws the initial weights; biases start at 0.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(
        self, d_token: int, n_heads: int, *, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if n_heads < 1 or d_token % n_heads != 0:
            raise ValueError(f"n_heads must divide d_token, got n_heads={n_heads} and d_token={d_token}")
        self.n_heads = n_heads
        self.query_key_value = linear(d_token, 3 * d_token, generator)
        self.dropout = nn.Dropout(dropout)
        self.output = linear(d_token, d_token, generator)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, *, n_queries: int | None = None) -> tuple[Tensor, Tensor]:
        """Return what the first ``n_queries`` tokens take in, and from where.

        Args:
            tokens: (batch, tokens, d_token).
            n_queries: ``None`` means all tokens.

        Returns:
            The result, (batch, n_queries, d_token), and the attention weights before dropout,
            (batch, heads, n_queries, tokens), each row of which sums to 1.
        """
        heads = self.query_key_value(tokens).unflatten(2, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, d_head)
        scores = query[:, :, :n_queries] @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        weights = scores.softmax(dim=3)
        taken = self.dropout(weights) @ value  # (batch, heads, n_queries, d_head)
        return self.output(taken.transpose(1, 2).flatten(2)), weights


class _ReGLU(nn.Module):
    """One half of the features, gated by the other: (…, 2·d) -> (…, d)."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * gate.relu()


class _Block(nn.Module):
    """Norm → attention → add, norm → feed-forward → add."""

    def __init__(
        self,
        d_token: int,
        *,
        n_heads: int,
        d_hidden: int,
        attention_dropout: float,
        ffn_dropout: float,
        first: bool,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        # The paper found it crucial that the first block takes the tokens as they are (its section 3.3).
        self.norm1 = nn.Identity() if first else nn.LayerNorm(d_token)
        self.attention = MultiheadSelfAttention(d_token, n_heads, dropout=attention_dropout, generator=generator)
        self.norm2 = nn.LayerNorm(d_token)
        self.feed_forward = nn.Sequential(
            linear(d_token, 2 * d_hidden, generator),
            _ReGLU(),
            nn.Dropout(ffn_dropout),
            linear(d_hidden, d_token, generator),
        )

    def forward(self, tokens: Tensor, n_queries: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the first ``n_queries`` tokens, changed, and the attention weights."""
        taken, weights = self.attention(self.norm1(tokens), n_queries=n_queries)
        tokens = tokens[:, :n_queries] + taken
        return tokens + self.feed_forward(self.norm2(tokens)), weights


class FTTransformer(nn.Module):
    """Feature Tokenizer + Transformer: columns become tokens that attend to each other; [CLS] gathers the prediction.

    `FeatureTokenizer` → blocks (norm → attention → add, norm → ReGLU network → add) → the [CLS] token alone:
    LayerNorm → ReLU → Linear. Tokens carry no position: the order of the columns means nothing.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, out_features), without a last activation. Time and memory of the attention grow with the
    square of the number of columns.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of the output, at least 1.
        n_blocks: number of blocks, at least 1.
        d_token: length of a token, a multiple of ``n_heads``.
        n_heads: heads of each attention, at least 1.
        attention_dropout: probability of dropping an attention weight, in [0, 1).
        ffn_dropout: probability of dropping a hidden activation of a block's network, in [0, 1).
        generator: draws the initial weights; ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2021, *Revisiting Deep Learning Models for Tabular Data*, section 3.3; the defaults are its
    appendix's default configuration. Differs: as `FeatureTokenizer`; the hidden width of a block's network is 4/3 of
    ``d_token``, and what a block adds to a token is never dropped.
    """

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        out_features: int,
        *,
        n_blocks: int = 3,
        d_token: int = 192,
        n_heads: int = 8,
        attention_dropout: float = 0.2,
        ffn_dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_int(n_blocks, "n_blocks", minimum=1)
        self.tokenizer = FeatureTokenizer(n_numeric, cardinalities, d_token, generator=generator)
        self.blocks = nn.ModuleList(
            _Block(
                d_token,
                n_heads=n_heads,
                d_hidden=max(1, d_token * 4 // 3),
                attention_dropout=attention_dropout,
                ffn_dropout=ffn_dropout,
                first=index == 0,
                generator=generator,
            )
            for index in range(n_blocks)
        )
        self.output = nn.Sequential(nn.LayerNorm(d_token), nn.ReLU(), linear(d_token, out_features, generator))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, or a code outside its column's range.
        """
        tokens = self.tokenizer(inputs)
        for index, block in enumerate(self.blocks, start=1):
            # After the last block only [CLS] is read.
            tokens, _ = block(tokens, n_queries=1 if index == len(self.blocks) else None)
        output: Tensor = self.output(tokens[:, 0])
        return output

    @torch.no_grad()
    def attention_maps(self, inputs: Tensor) -> Tensor:
        """Return who attends to whom, in evaluation mode: (n_blocks, batch, heads, tokens, tokens).

        Token 0 is [CLS], token j + 1 is column j; ``[block, :, :, 0, 1:]`` is how [CLS] weighs the columns. Each row
        along the last axis sums to 1. The modules' modes stay as they were.

        Args:
            inputs: as for the forward pass.
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            tokens, maps = self.tokenizer(inputs), []
            for block in self.blocks:
                tokens, weights = block(tokens)
                maps.append(weights)
        finally:
            for module, training in modes.items():
                module.training = training
        return torch.stack(maps)
