"""A small convolutional classifier in numpy: forward, backward, Adam; no framework.

Every 2x2 pixels become one with four times the channels; then three 3x3 convolutions with ReLU, 2x2 maxima
after the first two, a hidden layer, and class logits: about 0.14 M parameters. Convolutions are matrix
products over unfolded windows (im2col), so BLAS does the work. Pictures are [B, H, W, C] float32, H and W
divisible by 8.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CHANNELS = (32, 64, 64)
POOLED = (True, True, False)
HIDDEN = 32


class SmallCnn:
    """The classifier's weights with their Adam moments; `parameters` counts the weights."""

    def __init__(self, side_px: int, channels_in: int, classes: int, rng: np.random.Generator) -> None:
        sizes = (4 * channels_in, *CHANNELS)
        flat = (side_px // 8) ** 2 * CHANNELS[-1]
        shapes = [(9 * sizes[i], sizes[i + 1]) for i in range(3)] + [(flat, HIDDEN), (HIDDEN, classes)]
        # He initialisation: variance 2 / fan-in keeps the scale through ReLU.
        self.weights = [rng.normal(0.0, np.sqrt(2.0 / rows), (rows, columns)).astype(np.float32)
                        for rows, columns in shapes]
        self.biases = [np.zeros(shape[1], np.float32) for shape in shapes]
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in (*self.weights, *self.biases)]
        self._step = 0

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(array.size for array in (*self.weights, *self.biases))

    def probabilities(self, pictures: Floats, batch: int = 64) -> Floats:
        """[N, classes] softmax for pictures [N, H, W, C]."""
        if len(pictures) == 0:
            return np.zeros((0, self.biases[-1].size), np.float32)
        parts = [_softmax(self._forward(pictures[i : i + batch])[0]) for i in range(0, len(pictures), batch)]
        return np.concatenate(parts)

    def train_step(self, pictures: Floats, labels: npt.NDArray[np.int64], rate: float) -> float:
        """One Adam step on the mean cross-entropy of a batch, labels [B]; returns the loss before it."""
        logits, saved = self._forward(pictures)
        share = _softmax(logits)
        rows = np.arange(len(labels))
        loss = float(-np.log(share[rows, labels] + 1e-9).mean())
        share[rows, labels] -= 1.0
        self._adam(self._backward(share / np.float32(len(labels)), saved), rate)
        return loss

    def _forward(self, x: Floats) -> tuple[Floats, list[tuple[Floats, ...]]]:
        """Logits [B, classes], and what the backward pass needs of every layer."""
        saved: list[tuple[Floats, ...]] = []
        x = np.concatenate(_quarters(x), axis=-1)  # [B, H/2, W/2, 4*C]
        for weight, bias, pools in zip(self.weights[:3], self.biases[:3], POOLED, strict=True):
            columns = _unfold(x)  # [B*H*W, 9*C]
            out = np.maximum(columns @ weight + bias, 0.0).reshape(*x.shape[:3], -1)
            pooled = _maximum_2x2(out) if pools else out
            saved.append((columns, out, pooled))
            x = pooled
        flat = x.reshape(len(x), -1)
        hidden = np.maximum(flat @ self.weights[3] + self.biases[3], 0.0)
        saved += [(flat,), (hidden,)]
        return hidden @ self.weights[4] + self.biases[4], saved

    def _backward(self, d_logits: Floats, saved: list[tuple[Floats, ...]]) -> list[Floats]:
        """Gradients in the order weights, biases."""
        d_weights: list[Floats] = [np.empty(0, np.float32)] * 5
        d_biases: list[Floats] = [np.empty(0, np.float32)] * 5
        hidden, flat = saved[4][0], saved[3][0]
        d_weights[4], d_biases[4] = hidden.T @ d_logits, d_logits.sum(axis=0)
        d_hidden = (d_logits @ self.weights[4].T) * (hidden > 0)
        d_weights[3], d_biases[3] = flat.T @ d_hidden, d_hidden.sum(axis=0)
        d_pooled: Floats = np.asarray(d_hidden @ self.weights[3].T, np.float32).reshape(saved[2][2].shape)
        for layer in (2, 1, 0):
            columns, out, pooled = saved[layer]
            d_out = _maximum_2x2_gradient(d_pooled, out, pooled) if POOLED[layer] else d_pooled
            d_out = d_out * (out > 0)
            d_rows: Floats = d_out.reshape(-1, out.shape[-1])
            d_weights[layer], d_biases[layer] = columns.T @ d_rows, d_rows.sum(axis=0)
            if layer:
                d_pooled = _fold(d_rows @ self.weights[layer].T, out.shape[:3])
        return [*d_weights, *d_biases]

    def _adam(self, gradients: list[Floats], rate: float, decay: float = 1e-4) -> None:
        """Adam (Kingma and Ba, 2015) with decoupled weight decay on the matrices."""
        self._step += 1
        correction = np.sqrt(1.0 - 0.999**self._step) / (1.0 - 0.9**self._step)
        arrays = [*self.weights, *self.biases]
        for array, gradient, (mean, square) in zip(arrays, gradients, self._moments, strict=True):
            mean += np.float32(0.1) * (gradient - mean)
            square += np.float32(0.001) * (gradient * gradient - square)
            if array.ndim == 2:
                array *= np.float32(1.0 - rate * decay)
            array -= np.float32(rate * correction) * mean / (np.sqrt(square) + np.float32(1e-8))


def _unfold(x: Floats) -> Floats:
    """[B*H*W, 9*C]: the 3x3 neighbourhood of every pixel, zeros outside."""
    batch, height, width, channels = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = np.empty((batch, height, width, 9, channels), np.float32)
    for k in range(9):
        columns[:, :, :, k] = padded[:, k // 3 : k // 3 + height, k % 3 : k % 3 + width]
    return columns.reshape(-1, 9 * channels)


def _fold(columns: Floats, shape: tuple[int, ...]) -> Floats:
    """The transpose of `_unfold`: [B*H*W, 9*C] summed back to [B, H, W, C]; `shape` is (B, H, W)."""
    batch, height, width = shape
    windows = columns.reshape(batch, height, width, 9, -1)
    padded = np.zeros((batch, height + 2, width + 2, windows.shape[-1]), np.float32)
    for k in range(9):
        padded[:, k // 3 : k // 3 + height, k % 3 : k % 3 + width] += windows[:, :, :, k]
    return padded[:, 1:-1, 1:-1]


def _quarters(x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The four pixels of every 2x2 block, each [B, H/2, W/2, C], as views."""
    return x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]


def _maximum_2x2(x: Floats) -> Floats:
    """[B, H/2, W/2, C] maximum of every 2x2 block."""
    a, b, c, d = _quarters(x)
    return np.maximum(np.maximum(a, b), np.maximum(c, d))


def _maximum_2x2_gradient(d_pooled: Floats, x: Floats, pooled: Floats) -> Floats:
    """The gradient to the first maximal pixel of each block.

    Only the first: in a binarised picture most blocks tie, and a gradient to all four would count four times.
    """
    gradient = np.zeros_like(x)
    free = np.ones(pooled.shape, bool)
    for source, target in zip(_quarters(x), _quarters(gradient), strict=True):
        chosen = free & (source == pooled)
        target[...] = d_pooled * chosen
        free &= ~chosen
    return gradient


def _softmax(logits: Floats) -> Floats:
    """Row-wise softmax [B, classes]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
