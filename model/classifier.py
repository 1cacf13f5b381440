"""Token ids to logits: words → stacked LSTM → pooling → dense, and past the LSTM the bag of words
and of pairs.

Legend: B documents, T tokens, E embedding, H hidden units (of all directions), P a pair's vector,
C classes, F features.
"""

from __future__ import annotations

from functools import partial

import keras
import tensorflow as tf

from model.config import ModelConfig
from model.linear import LinearPath
from model.lstm import build_lstm, run_lstm, run_stack
from model.noise import dropout, dropout_tokens, uniform_rows
from model.pooling import max_inside, sum_inside
from model.words import Found, TakeRows, WordParts, Words

_SITES = 16  # random tables of a step: word dropout, then one a layer
_FORGOTTEN = 0.3  # of the tokens that are dropped: not even their stem is left


class Classifier(keras.layers.Layer):
    """The network; `route` decides how its LSTMs are computed, never what they compute."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        vocab_size: int,
        num_classes: int,
        unknown_id: int,
        route: str,
        precision: str = "float32",
        seed: int = 0,
        parts: WordParts | None = None,
    ):
        """Makes all weights at once, under the strategy scope the caller is in.

        Args:
          parts: of the vocabulary's words, without which words have neither stems nor pieces.
        """
        super().__init__(name="classifier", dtype=precision)
        self.config, self.route = config, route
        self.vocab_size, self.num_classes = vocab_size, num_classes
        self._make_twin = partial(
            Classifier, config, vocab_size=vocab_size, num_classes=num_classes,
            unknown_id=unknown_id, route=route, precision=precision, seed=seed, parts=parts,
        )  # fmt: skip
        self.words = Words(config, vocab_size, unknown_id, parts, seed)
        directions = ("forward", "backward") if config.bidirectional else ("forward",)
        self.lstms: list[list[keras.layers.LSTM]] = []
        width = config.embedding_dim
        for depth in range(config.num_layers):
            layers = []
            for number, direction in enumerate(directions):
                layer_seed = seed + 1000 * (depth + 1) + 10 * number
                name = f"lstm_{depth}_{direction}"
                layer = build_lstm(config.hidden, precision, name, layer_seed)
                layer.build((None, None, width))
                layers.append(layer)
            self.lstms.append(layers)
            width = config.hidden * len(directions)
        self.dense = keras.layers.Dense(
            num_classes,
            name="logits",
            dtype="float32",
            kernel_initializer=keras.initializers.GlorotUniform(seed + 1),
        )
        num_features = 2 * width if config.pooling == "max_mean" else width
        num_features += config.embedding_dim if config.bag else 0
        num_features += config.pairs_dim if config.pairs else 0
        self.dense.build((None, num_features))
        self.twin: Classifier | None = None
        """Of a network that learns no more: one of the same settings, whose logits and its own are
        averaged."""
        self.linear: LinearPath | None = None
        """What adds to the logits then."""
        self.built = True

    def add_twin(self) -> Classifier:
        """Makes the twin, under the strategy scope the caller is in; its weights are new."""
        self.twin = self._make_twin()
        return self.twin

    @property
    def weights_by_name(self) -> dict[str, tf.Variable]:
        """The weights in Keras's layouts, by a name that does not depend on the route."""
        named: dict[str, keras.Variable] = dict(self.words.tables)
        for layers in self.lstms:
            for layer in layers:
                named[f"{layer.name}/kernel"] = layer.cell.kernel
                named[f"{layer.name}/recurrent_kernel"] = layer.cell.recurrent_kernel
                named[f"{layer.name}/bias"] = layer.cell.bias
        named["logits/kernel"], named["logits/bias"] = self.dense.kernel, self.dense.bias
        return {name: variable.value for name, variable in named.items()}

    @property
    def state_by_name(self) -> dict[str, tf.Variable]:
        """The weights, and what else a checkpoint has of the network."""
        return self.weights_by_name | self.words.fixed_by_name

    def call(
        self, token_ids, lengths, dropout_seed=None, first_row=0, num_blocks=1,
        found: Found | None = None,
    ) -> tf.Tensor:  # fmt: skip
        """int32[B, T], int32[B] → logits float32[B, C].

        Args:
          dropout_seed: int64[2] in training, None without dropout.
          first_row: the global batch's row that is row 0 here (0 on a single replica).
          num_blocks: computes the rows in so many parts, side by side on the cores of a CPU, each
            cut to its own longest text: worth most where the rows are sorted by length. At most B,
            as the fused kernel's gradient for no rows at all is whatever is in memory.
          found: the tokens and their rows, as of `find`, which is called where it is None.
        """
        # A GPU has next to no int32 kernels: TensorFlow would fetch the numbers at every step
        lengths = tf.cast(lengths, tf.int64)
        found = self.find(token_ids) if found is None else found
        vectors = found.vectors()
        num_docs, num_tokens = tf.shape(found.token_ids)[0], tf.shape(found.token_ids)[1]
        if num_blocks == 1:
            noise = dropout_seed, first_row, num_tokens
            logits = self._logits(found, vectors, lengths, noise)
            return self._add_others(logits, token_ids, lengths, num_blocks)
        parts = []
        for block in range(num_blocks):
            rows = slice(num_docs * block // num_blocks, num_docs * (block + 1) // num_blocks)
            width = tf.cast(tf.reduce_max(tf.concat([lengths[rows], [1]], axis=0)), tf.int32)
            part = found._replace(token_ids=found.token_ids[rows, :width])
            if found.pairs is not None:
                part = part._replace(pairs=found.pairs[rows, :width])
            noise = dropout_seed, first_row + rows.start, num_tokens
            parts.append(self._logits(part, vectors, lengths[rows], noise))
        return self._add_others(tf.concat(parts, axis=0), token_ids, lengths, num_blocks)

    def _add_others(self, logits, token_ids, lengths, num_blocks) -> tf.Tensor:
        if self.twin is not None:
            theirs = self.twin.call(token_ids, lengths, num_blocks=num_blocks)
            logits = (logits + theirs) / 2.0
        if self.linear is not None:
            logits += self.linear.values(token_ids, lengths)
        return logits

    def find(self, token_ids: tf.Tensor) -> Found:
        """int32[B, T] → the batch's tokens, and the rows of the tables that it reads."""
        token_ids = tf.cast(token_ids, tf.int64)
        # On a GPU, finding out which rows those are would take longer than reading all
        is_whole = self.route == "cudnn" or not self.words.has_parts
        return self.words.find(token_ids) if is_whole else self.words.find_rows(token_ids)

    def find_rows(self, token_ids: tf.Tensor, take: TakeRows) -> Found:
        """What `call` needs of int32[B, T], from the rows of tables that `take` gives."""
        return self.words.find_rows(tf.cast(token_ids, tf.int64), take)

    def _logits(self, found: Found, vectors_UE, lengths, noise) -> tf.Tensor:
        """As `call`; noise: dropout_seed, first_row, and the tokens that the batch is padded to."""
        dropout_seed, first_row, row_tokens = noise
        config = self.config
        token_ids = self._drop_words(found, noise)
        # A gather, where a transpose of integers makes oneDNN complain on stderr
        num_docs, num_tokens = tf.shape(token_ids)[0], tf.shape(token_ids)[1]
        first_B = _range(num_docs) * tf.shape(token_ids, tf.int64)[1]
        ids_TB = tf.gather(tf.reshape(token_ids, [-1]), _range(num_tokens)[:, tf.newaxis] + first_B)
        words_TBE = tf.gather(vectors_UE, ids_TB)
        x_TBH = tf.cast(words_TBE, self.compute_dtype)
        is_dropping = dropout_seed is not None and config.dropout > 0
        one_by_one = self.lstms
        if self._is_one_call(is_dropping):
            x_TBH = run_stack([layers[0] for layers in self.lstms], x_TBH)
            one_by_one = []
        for depth, layers in enumerate(one_by_one):
            outputs = [run_lstm(layers[0], x_TBH, self.route)]
            if len(layers) == 2:
                turned = tf.reverse_sequence(x_TBH, lengths, seq_axis=0, batch_axis=1)
                turned = run_lstm(layers[1], turned, self.route)
                outputs.append(tf.reverse_sequence(turned, lengths, seq_axis=0, batch_axis=1))
            x_TBH = tf.concat(outputs, axis=-1) if len(outputs) == 2 else outputs[0]
            if is_dropping and depth < config.num_layers - 1:
                seed = _site(dropout_seed, depth + 1)
                x_TBH = dropout_tokens(x_TBH, config.dropout, seed, first_row, row_tokens)
        features_BF = self._features(found, words_TBE, x_TBH, lengths)
        if is_dropping:
            seed = _site(dropout_seed, config.num_layers)
            features_BF = dropout(features_BF, config.dropout, seed, first_row)
        return tf.matmul(features_BF, self.dense.kernel.value) + self.dense.bias.value

    def _drop_words(self, found: Found, noise) -> tf.Tensor:
        """int64[B, T] of `found`, in training some of them as their stems, or unknown."""
        dropout_seed, first_row, row_tokens = noise
        rate = self.config.word_dropout
        if dropout_seed is None or not rate:
            return found.token_ids
        num_docs, num_tokens = tf.shape(found.token_ids)[0], tf.shape(found.token_ids)[1]
        uniform = uniform_rows(num_docs, row_tokens, _site(dropout_seed, 0), first_row)
        uniform = uniform[:, :num_tokens]
        token_ids = found.token_ids
        if found.stems is not None:
            token_ids = tf.where(uniform < rate, tf.gather(found.stems, token_ids), token_ids)
            rate *= _FORGOTTEN
        return tf.where(uniform < rate, tf.constant(found.unknown_id, tf.int64), token_ids)

    def _features(self, found: Found, words_TBE, x_TBH, lengths) -> tf.Tensor:
        """float32[B, F]: what the classifier sees of the texts; padding has no part in it.

        Sums over the words are divided by the root of their number: in a mean, the one word of a
        long text that tells its class would hardly count. On 93,000 texts of 45 words and 307
        classes, that was the difference between .24 and .36 macro-F1 (bench/LOG.md).
        """
        features = [tf.cast(self._pool(x_TBH, lengths), tf.float32)]
        if not (self.config.bag or found.pairs is not None):
            return features[0]
        length_B1 = tf.cast(lengths, tf.float32)[:, tf.newaxis]
        positions = _range(tf.shape(words_TBE)[0])[:, tf.newaxis]
        if self.config.bag:
            inside_TB1 = (positions < lengths)[:, :, tf.newaxis]
            features.append(sum_inside(words_TBE, inside_TB1) / tf.sqrt(length_B1))
        if found.pairs is not None:
            is_pair_TB1 = (positions < lengths - 1)[:, :, tf.newaxis]
            flat = tf.reshape(found.pairs, [-1])
            first_B = _range(tf.shape(found.pairs)[0]) * tf.shape(found.pairs, tf.int64)[1]
            pairs_TBP = tf.gather(found.pair_rows, tf.gather(flat, positions + first_B))
            total_BP = sum_inside(pairs_TBP, is_pair_TB1)
            features.append(total_BP / tf.sqrt(tf.maximum(length_B1 - 1.0, 1.0)))
        return tf.concat(features, axis=1)

    def _is_one_call(self, is_dropping: bool) -> bool:
        """Whether cuDNN can run all layers at once.

        Not with dropout between them: cuDNN's own keeps its state inside, and could not be resumed.
        Nor from both ends: a call with lengths, which that needs, is slower (bench/LOG.md).
        """
        between = is_dropping and self.config.num_layers > 1
        return self.route == "cudnn" and not between and not self.config.bidirectional

    def _pool(self, x_TBH: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """float[T, B, H] → float[B, H], or [B, 2H] for max_mean; padding has no part in it."""
        if self.config.pooling == "last":
            last = tf.stack([lengths - 1, _range(tf.shape(lengths)[0])], axis=1)
            if not self.config.bidirectional:
                return tf.gather_nd(x_TBH, last)
            forward, backward = tf.split(x_TBH, 2, axis=-1)
            return tf.concat([tf.gather_nd(forward, last), backward[0]], axis=-1)
        inside_TB1 = (_range(tf.shape(x_TBH)[0])[:, tf.newaxis] < lengths)[:, :, tf.newaxis]
        largest = max_inside(x_TBH, inside_TB1)
        if self.config.pooling == "max":
            return largest
        total = sum_inside(tf.cast(x_TBH, tf.float32), inside_TB1)
        mean = total / tf.cast(lengths, tf.float32)[:, tf.newaxis]
        return tf.concat([tf.cast(largest, tf.float32), mean], axis=-1)


def _range(limit: tf.Tensor) -> tf.Tensor:
    """int64[limit], of an int32 limit on the host, where a range begins and ends."""
    with tf.device("CPU:0"):
        return tf.range(tf.cast(limit, tf.int64))


def _site(seed: tf.Tensor, site: int) -> tf.Tensor:
    with tf.device("CPU:0"):  # random numbers begin on the host
        return tf.stack([seed[0], seed[1] * _SITES + site])
