"""Skin and camera: the ground that a synthetic lesion lies on, its light, focus and noise."""

import math

import numpy as np
from PIL import Image, ImageFilter

from dermdistill.data.synthetic_lesion import Colour
from dermdistill.data.synthetic_texture import Field, dots, fractal_noise, ridges, smooth_noise

# From very fair to brown. Most people in the public sets are fair, and the dermatoscope shows them pink.
_TONES = np.array([[0.92, 0.79, 0.78], [0.87, 0.66, 0.67], [0.81, 0.63, 0.59], [0.70, 0.51, 0.45], [0.52, 0.36, 0.30]])


def skin_tone(rng: np.random.Generator) -> Colour:
    """A skin colour, RGB in [0, 1]: anywhere between very fair and brown, more often fair."""
    place = 4 * rng.beta(1.3, 2.6)
    tone = [float(np.interp(place, np.arange(5), _TONES[:, channel])) for channel in range(3)]
    red, green, blue = (np.asarray(tone) * np.exp(rng.normal(0, (0.02, 0.035, 0.05)))).clip(0, 1).tolist()
    return red, green, blue


def skin_field(rng: np.random.Generator, shape: tuple[int, int], tone: Colour) -> Field:
    """A field of skin: blotches of blood and pigment, furrows, fine grain, a few freckles.

    Args:
        rng: source of everything drawn.
        shape: height and width in pixels.
        tone: mean RGB in [0, 1].

    Returns:
        float32 [height, width, 3] about [0, 1].
    """
    blood = fractal_noise(rng, shape, rng.uniform(3, 7), octaves=4, gain=0.75) * np.float32(rng.uniform(0.01, 0.035))
    pigment = fractal_noise(rng, shape, rng.uniform(4, 12), octaves=3, gain=0.8) * np.float32(rng.uniform(0.005, 0.025))
    relief = smooth_noise(rng, shape, 45) * np.float32(rng.uniform(0.005, 0.025))
    relief += smooth_noise(rng, shape, 100) * np.float32(rng.uniform(0.003, 0.015))
    relief += ridges(rng, shape, rng.uniform(10, 18)) * np.float32(rng.uniform(-0.02, 0.045))
    if rng.random() < 0.2:
        pigment += _freckles(rng, shape) * np.float32(rng.uniform(0.1, 0.35))
    field = np.empty((*shape, 3), dtype=np.float32)
    # How much each channel loses to haemoglobin and to melanin.
    for channel, (by_blood, by_pigment) in enumerate(((0.25, 0.6), (1.0, 1.0), (0.9, 1.25))):
        loss = np.float32(by_blood) * blood + np.float32(by_pigment) * pigment
        field[:, :, channel] = np.float32(tone[channel]) * (1 - loss + relief)
    return field


def _freckles(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    count = int(rng.integers(4, 25))
    centres = rng.random((count, 2)) * (shape[1], shape[0])
    radii = min(shape) * rng.uniform(0.006, 0.022, (count, 1)) * rng.uniform(0.7, 1.3, (count, 2))
    return dots(shape, centres, radii, rng.uniform(0.3, 1, count))


def light(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Illumination: exposure, colour cast, a slope and a fall-off to the edges.

    Returns:
        float32 [height, width, 3], a factor about 1.
    """
    height, width = shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    turn = rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(0, 0.1) * (math.cos(turn) * x + math.sin(turn) * y)
    fall = rng.uniform(0, 0.13) * (x**2 + y**2)
    cast = np.exp(rng.normal(0.03, 0.08) + rng.normal(0, (0.02, 0.03, 0.05)))
    factor = (1 + slope - fall).astype(np.float32)
    return np.asarray(factor[:, :, None] * cast.astype(np.float32), dtype=np.float32)


def expose(rng: np.random.Generator, scene: Field, *, blur: bool = True) -> Image.Image:
    """What the camera makes of a scene: focus, sensor noise, eight bits.

    Args:
        rng: source of focus and noise.
        scene: float32 [height, width, 3] in about [0, 1]; what is beyond is clipped.
        blur: whether the focus may be off.
    """
    height, width = scene.shape[:2]
    values = scene * np.float32(255)
    values += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(0.5, 3))
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    softness = (0.3 + abs(rng.normal(0, 0.45))) * min(height, width) / 120
    return picture.filter(ImageFilter.GaussianBlur(softness)) if blur and softness > 0.2 else picture
