"""Deterministic image operations: uint8 (H, W, 3) in, uint8 (H, W, 3) out.

Colour operations follow Pillow's ImageEnhance and ImageOps.
"""

from __future__ import annotations

import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray, ITU-R 601-2."""


def to_bytes(values: tf.Tensor) -> tf.Tensor:
    """Round and clip to uint8."""
    return tf.saturate_cast(tf.round(values), tf.uint8)


def scale_to(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The image scaled to height x width pixels, bilinear."""
    return to_bytes(tf.image.resize(image, (height, width)))


def affine(image: tf.Tensor, matrix: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """An affine transformation about the centre; pixels outside are filled by reflection.

    The output pixel at offset p from the centre is the input pixel at offset `matrix` p + `shift`.

    Args:
        image: uint8 (H, W, 3).
        matrix: float32 (2, 2), for offsets (x, y).
        shift: float32 (2,), x and y in pixels.
    """
    height, width, _ = image.shape
    centre = tf.constant([[(width - 1) / 2], [(height - 1) / 2]])
    offset = centre + shift[:, None] - matrix @ centre
    rows = tf.concat([matrix, offset], axis=1)
    # As float, because the kernel truncates integers.
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[None], tf.float32),
        transforms=tf.concat([tf.reshape(rows, (1, 6)), tf.zeros((1, 2))], axis=1),
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return to_bytes(moved[0])


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Rotate about the centre, counter-clockwise."""
    angle = degrees * (3.141592653589793 / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return affine(image, tf.stack([[cosine, -sine], [sine, cosine]]), tf.zeros(2))


def shear(image: tf.Tensor, along_x: tf.Tensor, along_y: tf.Tensor) -> tf.Tensor:
    """Shear by `along_x` and `along_y` pixels for each pixel of distance from the centre."""
    return affine(image, tf.stack([[1.0, along_x], [along_y, 1.0]]), tf.zeros(2))


def translate(image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Move the image to the left by `x` and up by `y` pixels."""
    return affine(image, tf.eye(2), tf.stack([x, y]))


def window(image: tf.Tensor, top: tf.Tensor, left: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The rectangle of `size` (height, width) at (top, left), int32.

    Pixels outside are filled by reflection, at most side - 1 pixels beyond each border.
    """
    rows = _reflect(top + tf.range(size[0]), image.shape[0])
    columns = _reflect(left + tf.range(size[1]), image.shape[1])
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def gray(image: tf.Tensor) -> tf.Tensor:
    """Luma in all three channels."""
    return tf.repeat(to_bytes(_luma(image)), 3, axis=-1)


def recolor(
    image: tf.Tensor,
    brightness: float | tf.Tensor = 1.0,
    contrast: float | tf.Tensor = 1.0,
    saturation: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Change brightness, then contrast, then saturation; a factor of 1 changes nothing.

    Brightness 0 gives black, contrast 0 the mean gray, saturation 0 a gray image. All three are
    linear and applied as one matrix, so that values are clipped to 0..255 only at the end.
    """
    values = tf.cast(image, tf.float32)
    to_gray = tf.repeat(tf.constant(LUMA)[:, None], 3, axis=1)
    mean_gray = brightness * tf.tensordot(tf.reduce_mean(values, axis=(0, 1)), LUMA, 1)
    matrix = brightness * contrast * (saturation * tf.eye(3) + (1 - saturation) * to_gray)
    return to_bytes(tf.tensordot(values, matrix, 1) + (1 - contrast) * mean_gray)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Change the sharpness: 0 gives the smoothed image, 1 the original; the border is unchanged."""
    values = tf.cast(image, tf.float32)
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(kernel[:, :, None, None], (1, 1, 3, 1))
    smooth = tf.nn.depthwise_conv2d(values[None], kernel, (1, 1, 1, 1), "VALID")[0]
    inner = to_bytes(smooth + (values[1:-1, 1:-1] - smooth) * factor)
    rows = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], rows, image[-1:]], axis=0)


def hue(image: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Shift the hue by this share of the colour circle."""
    return to_bytes(tf.image.adjust_hue(tf.cast(image, tf.float32) / 255, shift) * 255)


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel to 0..255."""
    values = tf.cast(image, tf.float32)
    low = tf.reduce_min(values, axis=(0, 1))
    high = tf.reduce_max(values, axis=(0, 1))
    stretched = to_bytes((values - low) * tf.math.divide_no_nan(255.0, high - low))
    return tf.where(high > low, stretched, image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Make the histogram of each channel flat."""
    return tf.stack([_equalize_channel(image[..., channel]) for channel in range(3)], axis=-1)


def _equalize_channel(channel: tf.Tensor) -> tf.Tensor:
    indices = tf.cast(channel, tf.int32)
    counts = tf.math.bincount(tf.reshape(indices, (-1,)), minlength=256, maxlength=256)
    brightest = counts[tf.reduce_max(indices)]
    step = (tf.reduce_sum(counts) - brightest) // 255
    below = tf.cumsum(counts, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.where(step > 0, tf.cast(tf.gather(table, indices), tf.uint8), channel)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest bits (int32, 1 to 8) of each value."""
    step = tf.bitwise.left_shift(1, 8 - bits)
    values = tf.cast(image, tf.int32)
    return tf.cast(values // step * step, tf.uint8)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the values at or above a threshold."""
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def _reflect(index: tf.Tensor, size: int) -> tf.Tensor:
    return size - 1 - tf.abs(size - 1 - tf.abs(index))


def _luma(image: tf.Tensor) -> tf.Tensor:
    """float32 (H, W, 1)."""
    return tf.tensordot(tf.cast(image, tf.float32), tf.constant(LUMA), 1)[..., None]
