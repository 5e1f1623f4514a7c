"""Bag of visual words: SIFT descriptors of an image, counted by their nearest word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from cbir_tf.config.descriptors import VisualWords
from cbir_tf.errors import UserError
from cbir_tf.features.pixel_descriptors import unit
from cbir_tf.progress import logger

SIFT_SIZE = 128
PATCH = 16
# A SIFT descriptor covers a square of 4 x 4 histograms, each 1.5 times as wide as the keypoint.
KEYPOINT_DIAMETER = PATCH / 6
SAMPLE, BATCH, JUDGED = 200_000, 2048, 20_000
"""Numbers of descriptors: sample to cluster (100 MB), batch, sample of the Davies-Bouldin index."""


def import_opencv() -> ModuleType:
    """OpenCV.

    Raises:
        UserError: not installed.
    """
    try:
        import cv2
    except ImportError:
        raise UserError(
            "descriptors: visual_words needs OpenCV; pip install 'cbir-tf[opencv]'"
        ) from None
    return cv2


def local_descriptors(image: np.ndarray, grid: int | None) -> np.ndarray:
    """SIFT descriptors (Lowe 2004) of one image, by OpenCV.

    Each is scaled to a sum of 1, then its square root is taken (RootSIFT, Arandjelovic and
    Zisserman 2012), so that the euclidean distance compares descriptors as histograms.

    Args:
        image: (H, W) uint8.
        grid: pixels between the centres of upright 16 x 16 patches (Lazebnik et al. 2006), without
            patches of one brightness. None: keypoints found by SIFT.

    Returns:
        (N, 128) float32; N may be 0.
    """
    cv2 = import_opencv()
    sift = cv2.SIFT_create()
    if grid is None:
        _, found = sift.detectAndCompute(image, None)
    else:
        height, width = image.shape
        keypoints = [
            cv2.KeyPoint(x, y, KEYPOINT_DIAMETER, 0)
            for y in np.arange(grid / 2, height, grid).tolist()
            for x in np.arange(grid / 2, width, grid).tolist()
        ]
        _, found = sift.compute(image, keypoints)
    if found is None:
        return np.empty((0, SIFT_SIZE), np.float32)
    sums = found.sum(axis=1, keepdims=True)
    seen = sums[:, 0] > 0
    roots: np.ndarray = np.sqrt(found[seen] / sums[seen])
    return roots


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Visual words and their inverse document frequency.

    Attributes:
        words: (K, 128) float32.
        rarity: (K,) float32, log(N / n) of a word that occurs in n of N training images (Sivic and
            Zisserman 2003); ones where the weighting does not use it.
    """

    words: np.ndarray
    rarity: np.ndarray

    def nearest(self, descriptors: np.ndarray) -> np.ndarray:
        """(N,) index of the word nearest to each of (N, 128) descriptors."""
        halves = (self.words**2).sum(axis=1) / 2
        words: np.ndarray = np.argmin(halves - descriptors @ self.words.T, axis=1)
        return words

    def counts(self, descriptors: np.ndarray) -> np.ndarray:
        """(K,) number of descriptors nearest to each word."""
        return np.bincount(self.nearest(descriptors), minlength=len(self.words))

    def encode(self, descriptors: np.ndarray, weighting: str) -> np.ndarray:
        """The vector of an image, of length 1; zero without descriptors.

        Args:
            descriptors: (N, 128) float32, from `local_descriptors`.
            weighting: plain: counts; tf_idf: counts times rarity; vlad: see `vlad`.

        Returns:
            (K,) or, with vlad, (K * 128,) float32.
        """
        if weighting == "vlad":
            return vlad(descriptors, self.nearest(descriptors), self.words)
        return unit(self.counts(descriptors) * self.rarity).astype(np.float32)


def vlad(descriptors: np.ndarray, nearest: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Vector of locally aggregated descriptors (Jegou et al. 2010).

    The differences between the descriptors and their nearest word are summed for each word. Each
    value v becomes sign(v) sqrt(|v|) (power law, Jegou et al. 2012), then the part of each word is
    scaled to length 1 (intra-normalisation, Arandjelovic and Zisserman 2013), then the whole.

    Args:
        descriptors: (N, D).
        nearest: (N,) index of each descriptor's nearest word.
        words: (K, D).

    Returns:
        (K * D,) float32.
    """
    sums = np.zeros(words.shape, np.float64)
    np.add.at(sums, nearest, descriptors.astype(np.float64) - words[nearest])
    powered = np.sign(sums) * np.sqrt(np.abs(sums))
    return unit(unit(powered).ravel()).astype(np.float32)


def fit_vocabulary(
    config: VisualWords, images: Callable[[str], Iterator[np.ndarray]], count: int, seed: int
) -> tuple[Vocabulary, dict[str, float]]:
    """Cluster a sample of the training images' descriptors (scikit-learn's MiniBatchKMeans).

    Args:
        config: sizes and weighting.
        images: starts a pass over the training images, (H, W) uint8 each; its argument is the
            description of the progress bar.
        count: number of images.
        seed: of sampling and clustering.

    Returns:
        The vocabulary, and the Davies-Bouldin index of each size (lower is better), computed on
        20,000 descriptors.

    Raises:
        UserError: OpenCV is not installed, or the descriptors are too few or all identical.
    """
    described = (local_descriptors(image, config.grid) for image in images("keypoints"))
    sample = sample_descriptors(described, count, seed)
    if len(sample) <= max(config.words):
        raise UserError(
            f"descriptors: the {count} training images have {len(sample)} keypoints, too few for "
            f"{max(config.words)} words; set fewer words or a smaller grid"
        )
    fitted = {size: _cluster(sample, size, seed) for size in dict.fromkeys(config.words)}
    scores = {str(size): score for size, (_, score) in fitted.items()}
    best = min(fitted, key=lambda size: fitted[size][1])
    vocabulary = Vocabulary(fitted[best][0], np.ones(best, np.float32))
    if config.weighting == "tf_idf":
        every = (local_descriptors(image, config.grid) for image in images("words"))
        counts = (vocabulary.counts(each) for each in every)
        vocabulary = Vocabulary(vocabulary.words, inverse_document_frequency(counts, best))
    return vocabulary, scores


def sample_descriptors(
    described: Iterable[np.ndarray], images: int, seed: int, size: int = SAMPLE
) -> np.ndarray:
    """At most `size` descriptors (but one per image), about equally many of each: (N, 128)."""
    random = np.random.default_rng(seed)
    each = max(1, size // max(1, images))
    chosen = [one[random.permutation(len(one))[:each]] for one in described]
    return np.concatenate([np.empty((0, SIFT_SIZE), np.float32), *chosen])


def inverse_document_frequency(
    counts: Iterable[Sequence[int] | np.ndarray], words: int
) -> np.ndarray:
    """log(N / n) of each word, which occurs in n of N images: (words,) float32.

    Args:
        counts: (words,) for each image.
        words: number of words; a word that occurs in no image counts as in one.
    """
    images, having = 0, np.zeros(words, np.int64)
    for each in counts:
        images += 1
        having += np.asarray(each) > 0
    return np.log(images / np.maximum(having, 1)).astype(np.float32)


def _cluster(sample: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, float]:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import davies_bouldin_score
    from threadpoolctl import threadpool_limits

    logger.info("clustering %d descriptors to %d words", len(sample), size)
    clustering = MiniBatchKMeans(size, batch_size=BATCH, n_init=3, random_state=seed)
    # Spinning threads make the clustering many times slower on a busy machine.
    with threadpool_limits(1):
        clustering.fit(sample)
    words = clustering.cluster_centers_.astype(np.float32)
    judged = sample[np.random.default_rng(seed).permutation(len(sample))[:JUDGED]]
    nearest = Vocabulary(words, np.ones(size, np.float32)).nearest(judged)
    if len(np.unique(nearest)) < 2:
        raise UserError(
            "descriptors: the keypoints of the training images are all alike, so that they form "
            "no words; check data.path"
        )
    return words, float(davies_bouldin_score(judged, nearest))
