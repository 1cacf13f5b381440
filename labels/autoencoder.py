"""The LSTM auto-encoder: sequence to code to sequence.

The encoder reads the tokens and leaves a code; the decoder is given the code at every step and,
teacher-forced, the token before, of which a share is hidden from it so that it has to look at the
code. Embedding, LSTM routes and noise are the classifier's.
Legend: B documents, T tokens, E embedding, H hidden units, C the code, V token ids.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from labels.config import EncodeConfig
from model.lstm import build_lstm, run_lstm
from model.noise import uniform_rows
from model.pooling import max_inside, sum_inside
from model.step import Outcome
from model.words import Table, TakeRows

_MOST_WHOLE = 2_048
"""Token ids up to which the loss is over all of them; above, over a sample of as many."""
_SPREAD = 0.5
"""Of the first embeddings: from the classifier's .05 the codes take hundreds of steps to part."""


class Autoencoder(keras.layers.Layer):
    """The network; `route` decides how its LSTMs are computed, never what they compute."""

    def __init__(self, config: EncodeConfig, *, vocab_size: int, unknown_id: int, route: str):
        """Makes all weights at once."""
        super().__init__(name="autoencoder")
        self.config, self.route = config, route
        self.vocab_size, self.unknown_id = vocab_size, unknown_id
        seed, size = config.seed, config.code_dim
        self.embedding = keras.layers.Embedding(
            vocab_size,
            config.embedding_dim,
            name="embedding",
            embeddings_initializer=keras.initializers.RandomUniform(-_SPREAD, _SPREAD, seed),
        )
        self.embedding.build((None, None))
        directions = ("forward", "backward")
        self.encoders = [
            build_lstm(config.hidden, "float32", f"encoder_{name}", seed + 10 * number)
            for number, name in enumerate(directions)
        ]
        for layer in self.encoders:
            layer.build((None, None, config.embedding_dim))
        self.to_code = keras.layers.Dense(
            size, name="code", kernel_initializer=keras.initializers.GlorotUniform(seed + 1)
        )
        self.to_code.build((None, 4 * config.hidden))
        self.decoder = build_lstm(config.hidden, "float32", "decoder", seed + 100)
        self.decoder.build((None, None, config.embedding_dim + size))
        self.dense = keras.layers.Dense(
            vocab_size, name="logits", kernel_initializer=keras.initializers.GlorotUniform(seed + 2)
        )
        self.dense.build((None, config.hidden + size))
        self.built = True

    @property
    def weights_by_name(self) -> dict[str, tf.Variable]:
        """The weights in Keras's layouts."""
        named = {"embedding": self.embedding.embeddings}
        for layer in (*self.encoders, self.decoder):
            named[f"{layer.name}/kernel"] = layer.cell.kernel
            named[f"{layer.name}/recurrent_kernel"] = layer.cell.recurrent_kernel
            named[f"{layer.name}/bias"] = layer.cell.bias
        for layer in (self.to_code, self.dense):
            named[f"{layer.name}/kernel"], named[f"{layer.name}/bias"] = layer.kernel, layer.bias
        return {name: variable.value for name, variable in named.items()}

    def encode(self, token_ids: tf.Tensor, lengths: tf.Tensor, table=None) -> tf.Tensor:
        """int[B, T], int[B] → codes float32[B, C]; padding has no part in them."""
        table = self.embedding.embeddings.value if table is None else table
        x_TBE = tf.transpose(tf.gather(table, token_ids), [1, 0, 2])
        lengths = tf.cast(lengths, tf.int32)
        forward = run_lstm(self.encoders[0], x_TBE, self.route)
        turned = tf.reverse_sequence(x_TBE, lengths, seq_axis=0, batch_axis=1)
        turned = run_lstm(self.encoders[1], turned, self.route)
        backward = tf.reverse_sequence(turned, lengths, seq_axis=0, batch_axis=1)
        x_TBH = tf.concat([forward, backward], axis=-1)
        inside_TB1 = (tf.range(tf.shape(x_TBH)[0])[:, tf.newaxis] < lengths)[:, :, tf.newaxis]
        mean = sum_inside(x_TBH, inside_TB1) / tf.cast(lengths, tf.float32)[:, tf.newaxis]
        return self.to_code(tf.concat([max_inside(x_TBH, inside_TB1), mean], axis=-1))

    def decode(self, codes: tf.Tensor, given_ids: tf.Tensor, table=None) -> tf.Tensor:
        """float32[B, C], tokens to see int[B, T] → float32[B, T, H + C], to tell each token from.

        Place t has seen given_ids[:, :t], the tokens before it alone, and the code.
        """
        table = self.embedding.embeddings.value if table is None else table
        x_TBE = tf.transpose(tf.gather(table, given_ids), [1, 0, 2])
        x_TBE = tf.concat([tf.zeros_like(x_TBE[:1]), x_TBE[:-1]], axis=0)
        # not `tile`, whose gradient transposes integers, which makes oneDNN complain on stderr
        code_TBC = codes[tf.newaxis] + tf.zeros([tf.shape(x_TBE)[0], 1, 1])
        states_TBH = run_lstm(self.decoder, tf.concat([x_TBE, code_TBC], axis=-1), self.route)
        return tf.transpose(tf.concat([states_TBH, code_TBC], axis=-1), [1, 0, 2])

    def find_rows(self, token_ids: tf.Tensor, take: TakeRows) -> tuple[tf.Tensor, Table]:
        """int32[B, T] as places among the rows that `take` gives, the unknown word's the first."""
        unknown = tf.constant([self.unknown_id])
        flat = tf.concat([unknown, tf.reshape(token_ids, [-1])], axis=0)
        table, places = take("embedding", flat)
        return tf.reshape(places[1:], tf.shape(token_ids)), table

    def reconstruct(self, batch: Any, noise, first_row, num_blocks, found) -> Outcome:
        """The loss of each document, a mean over its tokens: for `model.step`."""
        token_ids, table = (batch.token_ids, None) if found is None else found
        num_docs, width = tf.shape(token_ids)[0], tf.shape(token_ids)[1]
        losses = []
        for block in range(num_blocks):
            rows = slice(num_docs * block // num_blocks, num_docs * (block + 1) // num_blocks)
            longest = tf.reduce_max(tf.concat([batch.lengths[rows], [1]], axis=0))
            args = token_ids[rows, :longest], batch.token_ids[rows, :longest], batch.lengths[rows]
            losses.append(self._row_losses(*args, (noise, first_row + rows.start, width), table))
        losses = tf.concat(losses, axis=0)
        return Outcome(losses, losses, tf.zeros_like(losses))

    def _row_losses(self, places, token_ids, lengths, noise, table) -> tf.Tensor:
        """float32[B].

        Args:
          places: int32[B, T], of the tokens in `table`.
          token_ids: the same as token ids.
        """
        seen = self._hide(places, noise, 0, self.config.noise, table)
        codes = self.encode(seen, lengths, table)
        given = self._hide(places, noise, 1, self.config.hidden_share, table)
        states_BTH = self.decode(codes, given, table)
        inside_BT = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
        rows = tf.where(inside_BT)[:, 0]
        losses = self._token_losses(
            tf.boolean_mask(states_BTH, inside_BT), tf.boolean_mask(token_ids, inside_BT)
        )
        totals = tf.math.unsorted_segment_sum(losses, rows, tf.shape(lengths)[0])
        return totals / tf.cast(lengths, tf.float32)

    def _hide(self, places, noise, site: int, share: float, table) -> tf.Tensor:
        """A share of the tokens as unknown words; which, hangs on the step and the row alone."""
        if not share:
            return places
        (seed, first_row, width) = noise
        with tf.device("CPU:0"):
            seed = tf.stack([seed[0], seed[1] * 2 + site])
        uniform = uniform_rows(tf.shape(places)[0], width, seed, first_row)
        hidden = uniform[:, : tf.shape(places)[1]] < share
        unknown = 0 if table is not None else self.unknown_id
        return tf.where(hidden, tf.constant(unknown, places.dtype), places)

    def _token_losses(self, states: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of states float32[N, H + C] against targets int32[N]: float32[N]."""
        kernel, bias = self.dense.kernel.value, self.dense.bias.value
        if self.vocab_size <= _MOST_WHOLE:
            logits = tf.matmul(states, kernel) + bias
            return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.nn.sampled_softmax_loss(
            tf.transpose(kernel), bias, tf.cast(targets, tf.int64)[:, tf.newaxis], states,
            num_sampled=self.config.sampled, num_classes=self.vocab_size, seed=self.config.seed,
        )  # fmt: skip

    def guess(self, codes: tf.Tensor, token_ids: tf.Tensor) -> tf.Tensor:
        """The likeliest token at each place, the ones before it given: int64[B, T]."""
        states_BTH = self.decode(codes, token_ids)
        return tf.argmax(tf.matmul(states_BTH, self.dense.kernel.value) + self.dense.bias.value, -1)
