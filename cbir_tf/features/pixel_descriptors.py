"""Descriptors of pixel values: histograms of brightness, of colour and of oriented gradients."""

from __future__ import annotations

import numpy as np
from PIL import Image

ORIENTATIONS, CELL, BLOCK = 9, 8, 2
CLIP, EPSILON = 0.2, 1e-5


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis scaled to length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def gray(pixels: np.ndarray) -> np.ndarray:
    """Luma as of Pillow's convert("L"): (..., 3) uint8 RGB -> (...) uint8 (ITU-R BT.601)."""
    weighted = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def gray_histogram(images: np.ndarray, bins: int = 256) -> np.ndarray:
    """Histogram of the gray values.

    The square roots of the shares, a vector of length 1, so that the cosine similarity of two is
    the Bhattacharyya coefficient of the histograms.

    Args:
        images: (B, H, W) uint8.
        bins: number of bins of equal width over 0..255.

    Returns:
        (B, bins) float64.

    Example:
        >>> gray_histogram(np.array([[[0, 0], [0, 255]]], np.uint8), bins=2).round(2).tolist()
        [[0.87, 0.5]]
    """
    return _roots(_shares(_bins(images, bins), bins))


def color_histogram(pixels: np.ndarray, bins: int = 8, joint: bool = True) -> np.ndarray:
    """Histogram of the colours, normalised as in `gray_histogram`.

    Args:
        pixels: (B, H, W, 3) uint8.
        bins: number of bins of equal width in each channel.
        joint: true: one joint histogram, in which bins r, g, b have the position
            (r * bins + g) * bins + b; false: one histogram for each channel, concatenated.

    Returns:
        (B, bins * bins * bins) float64, or (B, 3 * bins).
    """
    binned = _bins(pixels, bins)
    if joint:
        combined = (binned[..., 0] * bins + binned[..., 1]) * bins + binned[..., 2]
        return _roots(_shares(combined, bins**3))
    shares = [_shares(binned[..., channel], bins) for channel in range(3)]
    return _roots(np.hstack(shares) / 3)


def _bins(values: np.ndarray, bins: int) -> np.ndarray:
    numbers: np.ndarray = values.astype(np.int64) * bins // 256
    return numbers


def _roots(shares: np.ndarray) -> np.ndarray:
    roots: np.ndarray = np.sqrt(shares)
    return roots


def _shares(numbers: np.ndarray, bins: int) -> np.ndarray:
    """(B, H, W) integers below `bins` -> (B, bins) share of each."""
    counts = [np.bincount(image.ravel(), minlength=bins) for image in numbers]
    pixels = numbers.shape[1] * numbers.shape[2]
    shares: np.ndarray = np.array(counts).reshape(len(numbers), bins) / pixels
    return shares


def hog(images: np.ndarray, side: int = 32) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005), equal to scikit-image's `hog`.

    Nine unsigned orientations in cells of 8 x 8 pixels; each pixel votes for one orientation with
    the magnitude of its gradient (the central difference, zero at the border). Overlapping blocks
    of 2 x 2 cells are scaled to length 1, clipped at 0.2 and scaled again.

    Args:
        images: (B, H, W) uint8, of any size.
        side: of the square that each image is scaled to, in pixels; a multiple of 8.

    Returns:
        (B, D) float64, D = `hog_size(side)`; each vector of length 1, or zero for an image of one
        brightness.
    """
    vectors = [_hog(_square(image, side).astype(np.float64)) for image in images]
    return unit(np.array(vectors).reshape(len(images), hog_size(side)))


def hog_size(side: int) -> int:
    """Number of dimensions of a `hog` vector: 324 for a side of 32."""
    return (side // CELL - BLOCK + 1) ** 2 * BLOCK**2 * ORIENTATIONS


def _square(image: np.ndarray, side: int) -> np.ndarray:
    if image.shape == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def _hog(image: np.ndarray) -> np.ndarray:
    down, across = np.zeros_like(image), np.zeros_like(image)
    down[1:-1] = image[2:] - image[:-2]
    across[:, 1:-1] = image[:, 2:] - image[:, :-2]
    degrees = np.rad2deg(np.arctan2(down, across)) % 180
    orientation = (degrees // (180 / ORIENTATIONS)).astype(np.int64) % ORIENTATIONS
    cells = len(image) // CELL
    cell = np.arange(len(image)) // CELL
    place = (cell[:, np.newaxis] * cells + cell) * ORIENTATIONS + orientation
    votes = np.bincount(
        place.ravel(), np.hypot(down, across).ravel(), minlength=cells**2 * ORIENTATIONS
    )
    histograms = votes.reshape(cells, cells, ORIENTATIONS) / CELL**2
    blocks = np.lib.stride_tricks.sliding_window_view(histograms, (BLOCK, BLOCK), axis=(0, 1))
    # sliding_window_view puts the window's axes last; in a block cells come before orientations.
    vectors = blocks.transpose(0, 1, 3, 4, 2).reshape(-1, BLOCK**2 * ORIENTATIONS)
    return _scaled(np.minimum(_scaled(vectors), CLIP)).ravel()


def _scaled(blocks: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = blocks / np.sqrt((blocks**2).sum(axis=1, keepdims=True) + EPSILON**2)
    return scaled
