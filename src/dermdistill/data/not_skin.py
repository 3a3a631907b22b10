"""Pictures that show no skin, drawn from a seed: what a gate must refuse before the network answers.

They are drawings, not photographs, so that they can travel and be made again: textures in any colour and in colours of
skin, documents, faces, landscapes, charts, noise, flat colours and gradients. Half of all that noise alone does not
fill gets uneven light, blur and sensor noise, so that nothing is told apart by being too clean to be a photograph.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dermdistill.data.synthetic_skin import expose, light, skin_tone
from dermdistill.data.synthetic_texture import Field, fractal_noise, smooth_noise
from dermdistill.errors import ConfigError

Painter = Callable[[np.random.Generator, int, bool], Field]
Images = npt.NDArray[np.uint8]

_SUPERSAMPLING = 3
_CANVAS = 192  # side of what is drawn with pens, before the supersampling; text is legible there
_INK = (0.12, 0.12, 0.16)


def _colour(rng: np.random.Generator, skin: bool) -> Field:
    """RGB float32 [3] in [0, 1]: any colour, or one between fair skin and the brown of a lesion."""
    values = np.asarray(skin_tone(rng)) * rng.uniform(0.45, 1.05) if skin else rng.random(3)
    return np.asarray(values.clip(0, 1), dtype=np.float32)


def _between(share: npt.ArrayLike, first: Field, second: Field) -> Field:
    """A field [S, S, 3] from the first colour (share 0) to the second (share 1)."""
    weight = np.clip(np.asarray(share, dtype=np.float32), 0, 1)[:, :, None]
    return np.asarray(first + weight * (second - first), dtype=np.float32)


def _axes(rng: np.random.Generator, size: int, tilt: float = 0.0) -> tuple[Field, Field]:
    """Coordinates over [0, 1] across the picture, turned by up to ``tilt`` radians about the middle."""
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = np.meshgrid(line, line)
    angle = rng.uniform(-tilt, tilt)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * (x - 0.5) - sin * (y - 0.5) + 0.5, sin * (x - 0.5) + cos * (y - 0.5) + 0.5


def _brick(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, 0.15)
    rows = rng.integers(4, 11)
    row = np.floor(y * rows)
    across = x * rows / 2 + 0.5 * (row % 2)
    joint = (np.abs(y * rows % 1 - 0.5) > 0.42) | (np.abs(across % 1 - 0.5) > 0.46)
    shade = 1 + 0.18 * np.sin(37.0 * row + 91.0 * np.floor(across)) + 0.06 * smooth_noise(rng, (size, size), 25)
    wall = _between(joint, _colour(rng, skin), _colour(rng, skin))
    return np.asarray(wall * shade[:, :, None], dtype=np.float32)


def _wood(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, math.pi)
    bend = smooth_noise(rng, (size, size), 3)
    rings = np.sin(rng.uniform(30, 90) * (x + 0.08 * bend)) + 0.4 * np.sin(rng.uniform(100, 180) * (x + 0.02 * bend))
    return _between(0.5 + 0.3 * rings + 0.05 * np.sin(9 * y), _colour(rng, skin), _colour(rng, skin))


def _weave(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, 0.5)
    threads = rng.uniform(8, 22)
    over = (np.floor(x * threads) + np.floor(y * threads)) % 2
    height = np.where(over > 0, np.sin(math.pi * (x * threads % 1)), np.sin(math.pi * (y * threads % 1)))
    first, second = _colour(rng, skin), _colour(rng, skin)
    return np.asarray(_between(over, first, second) * (0.55 + 0.45 * height)[:, :, None], dtype=np.float32)


def _marble(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, math.pi)
    turbulence = fractal_noise(rng, (size, size), rng.uniform(2, 5), octaves=4, gain=0.6)
    veins = np.abs(np.sin(rng.uniform(4, 12) * (x + 0.3 * y) + 1.6 * turbulence))
    return _between(1 - veins ** rng.uniform(0.3, 1.2), _colour(rng, skin), _colour(rng, skin))


def _checker(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, 0.6)
    cells = rng.uniform(3, 14)
    return _between((np.floor(x * cells) + np.floor(y * cells)) % 2, _colour(rng, skin), _colour(rng, skin))


def _stripes(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, _ = _axes(rng, size, math.pi)
    wave = np.sin(2 * math.pi * rng.uniform(3, 16) * x)
    return _between(0.5 + rng.uniform(0.5, 4) * wave, _colour(rng, skin), _colour(rng, skin))


def _clouds(rng: np.random.Generator, size: int, skin: bool) -> Field:
    noise = fractal_noise(rng, (size, size), rng.uniform(2, 6), octaves=4, gain=rng.uniform(0.4, 0.7))
    return _between(0.5 + 0.35 * noise, _colour(rng, skin), _colour(rng, skin))


def _flat(rng: np.random.Generator, size: int, skin: bool) -> Field:
    return np.broadcast_to(_colour(rng, skin), (size, size, 3))


def _gradient(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size, math.pi)
    share = x if rng.random() < 0.6 else 1.6 * np.hypot(x - rng.random(), y - rng.random())
    return _between(share, _colour(rng, skin), _colour(rng, skin))


def _drawn(size: int, ground: Field, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> Field:
    """What a pen paints on a ground of one colour, on a fixed canvas of ``_CANVAS`` units, then reduced to ``size``."""
    side = _CANVAS * _SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), _rgb(ground))
    paint(ImageDraw.Draw(canvas), _SUPERSAMPLING)
    small = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def _rgb(colour: npt.ArrayLike) -> tuple[int, int, int]:
    red, green, blue = np.rint(255 * np.clip(np.asarray(colour, dtype=np.float64), 0, 1)).astype(int).tolist()
    return red, green, blue


def _paper(rng: np.random.Generator) -> Field:
    return np.asarray(rng.uniform(0.88, 1.0) - rng.uniform(0, 0.06, 3), dtype=np.float32)


def _text(rng: np.random.Generator, size: int, skin: bool) -> Field:
    """Lines of strokes that look like writing from afar."""

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        step = rng.uniform(7, 16)
        for top in np.arange(rng.uniform(4, 20), _CANVAS - 6, step):
            left, end = rng.uniform(8, 14), _CANVAS - rng.uniform(8, 14) - (rng.random() < 0.2) * rng.uniform(0, 100)
            while left < end:
                width = rng.uniform(4, 22)
                for stroke in np.arange(left, min(left + width, end), step * 0.22):
                    height = step * rng.choice([0.35, 0.35, 0.55])
                    line = [k * stroke, k * (top + 0.6 * step - height), k * stroke, k * (top + 0.6 * step)]
                    pen.line(line, fill=_rgb(_INK), width=max(1, round(k * step * 0.09)))
                left += width + step * 0.45

    return _drawn(size, _paper(rng), paint)


def _table(rng: np.random.Generator, size: int, skin: bool) -> Field:
    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        rows, columns = int(rng.integers(5, 14)), int(rng.integers(2, 7))
        tall, wide = (_CANVAS - 16) / rows, (_CANVAS - 16) / columns
        font = ImageFont.load_default(size=max(6, k * tall * 0.5))
        for row, column in np.ndindex(rows, columns):
            left, top = 8 + column * wide, 8 + row * tall
            fill = (215, 225, 240) if row == 0 else None
            box = [k * left, k * top, k * (left + wide), k * (top + tall)]
            pen.rectangle(box, fill=fill, outline=_rgb(_INK), width=k)
            number = f"{rng.uniform(0, 1000):.{rng.integers(0, 3)}f}"
            pen.text((k * (left + 2), k * (top + 0.2 * tall)), number, fill=_rgb(_INK), font=font)

    return _drawn(size, _paper(rng), paint)


def _letters(rng: np.random.Generator, size: int, skin: bool) -> Field:
    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for _ in range(int(rng.integers(1, 14))):
            signs = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXYZabdeghkmnqrt0123456789"), rng.integers(1, 6)))
            font = ImageFont.load_default(size=k * rng.uniform(14, 90))
            place = (k * rng.uniform(-5, 0.8 * _CANVAS), k * rng.uniform(-5, 0.85 * _CANVAS))
            pen.text(place, signs, fill=_rgb(_colour(rng, skin)), font=font)

    return _drawn(size, _colour(rng, skin), paint)


def _face(rng: np.random.Generator, size: int, skin: bool) -> Field:
    """A cartoon of a face in a colour of skin: the picture that a phone takes by mistake."""
    tone = _colour(rng, True)

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        middle, half = _CANVAS / 2 + rng.uniform(-12, 12, 2), rng.uniform(48, 78) * np.array([1.0, 1.25])

        def oval(x: float, y: float, wide: float, tall: float, fill: npt.ArrayLike) -> None:
            centre = middle + half * (x, y)
            corners = np.concatenate([centre - half * (wide, tall), centre + half * (wide, tall)]) * k
            pen.ellipse(corners.tolist(), fill=_rgb(fill))

        hair = rng.random(3) * 0.5
        oval(0, -0.25, 1.12, 0.95, hair)
        oval(0, 0.05, 1, 1, tone)
        for side in (-1, 1):
            oval(0.4 * side, -0.15, 0.17, 0.09, (0.97, 0.97, 0.97))
            oval(0.4 * side, -0.15, 0.08, 0.085, rng.random(3) * 0.6)
            oval(0.4 * side, -0.36, 0.2, 0.035, hair)
        oval(0, 0.2, 0.09, 0.16, 0.85 * tone)
        oval(0, 0.58, rng.uniform(0.2, 0.4), rng.uniform(0.04, 0.13), tone * (0.9, 0.45, 0.45))

    return _drawn(size, _colour(rng, False), paint)


def _landscape(rng: np.random.Generator, size: int, skin: bool) -> Field:
    x, y = _axes(rng, size)
    blue, haze = np.array([[0.25, 0.45, 0.85], [0.85, 0.9, 0.97]], dtype=np.float32)
    scene = _between(y * 1.6, blue * np.float32(rng.uniform(0.7, 1.1)), haze)
    bases = np.sort(rng.uniform(0.35, 0.9, 3))
    for base, green in zip(bases, ((0.4, 0.5, 0.5), (0.25, 0.45, 0.2), (0.15, 0.3, 0.1)), strict=True):
        coarse, fine = np.sin(rng.uniform(3, 12) * x + rng.uniform(0, 6)), np.sin(rng.uniform(20, 50) * x)
        ridge = base + 0.08 * coarse + 0.02 * fine
        shade = 1 + 0.12 * fractal_noise(rng, (size, size), 12)
        scene = np.where((y > ridge)[:, :, None], np.array(green, dtype=np.float32) * shade[:, :, None], scene)
    return np.asarray(scene, dtype=np.float32)


def _line_chart(rng: np.random.Generator, size: int, skin: bool) -> Field:
    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for place in np.linspace(20, _CANVAS - 20, int(rng.integers(4, 9))):
            pen.line([20 * k, k * place, (_CANVAS - 12) * k, k * place], fill=(215, 215, 215), width=k)
        pen.line([20 * k, 12 * k, 20 * k, (_CANVAS - 20) * k], fill=_rgb(_INK), width=k)
        pen.line([20 * k, (_CANVAS - 20) * k, (_CANVAS - 12) * k, (_CANVAS - 20) * k], fill=_rgb(_INK), width=k)
        across = np.linspace(20, _CANVAS - 14, 40)
        for _ in range(int(rng.integers(1, 5))):
            up = (_CANVAS / 2 + np.cumsum(rng.normal(0, 8, 40))).clip(14, _CANVAS - 22)
            points = (k * np.stack([across, up], axis=1)).ravel().tolist()
            pen.line(points, fill=_rgb(_colour(rng, False)), width=round(k * rng.uniform(1, 3)))

    return _drawn(size, _paper(rng), paint)


def _uniform_noise(rng: np.random.Generator, size: int, skin: bool) -> Field:
    return rng.random((size, size, 3), dtype=np.float32)


def _gaussian_noise(rng: np.random.Generator, size: int, skin: bool) -> Field:
    channels = rng.choice([1, 3])
    noise = rng.standard_normal((size, size, channels), dtype=np.float32) * np.float32(rng.uniform(0.08, 0.35))
    return np.asarray(_colour(rng, bool(rng.random() < 0.5)) + noise, dtype=np.float32)


def _salt_and_pepper(rng: np.random.Generator, size: int, skin: bool) -> Field:
    share, draw = rng.uniform(0.05, 0.5), rng.random((size, size, 1))
    ground = _colour(rng, bool(rng.random() < 0.5))
    return np.where(draw < share / 2, 0, np.where(draw > 1 - share / 2, 1, ground)).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, skin: bool) -> Field:
    cells = rng.uniform(2, 9)
    channels = [0.5 + 0.22 * smooth_noise(rng, (size, size), cells) for _ in range(3)]
    return np.asarray(np.stack(channels, axis=-1), dtype=np.float32)


# Name -> painter, whether in colours of skin, whether a camera may have taken it (noise needs none).
_KINDS: dict[str, tuple[Painter, bool, bool]] = {
    "brick": (_brick, False, True),
    "wood": (_wood, False, True),
    "weave": (_weave, False, True),
    "marble": (_marble, False, True),
    "checker": (_checker, False, True),
    "stripes": (_stripes, False, True),
    "clouds": (_clouds, False, True),
    "gradient": (_gradient, False, True),
    "flat": (_flat, False, True),
    "skin_weave": (_weave, True, True),
    "skin_marble": (_marble, True, True),
    "skin_stripes": (_stripes, True, True),
    "skin_clouds": (_clouds, True, True),
    "skin_gradient": (_gradient, True, True),
    "skin_flat": (_flat, True, True),
    "text": (_text, False, True),
    "table": (_table, False, True),
    "letters": (_letters, False, True),
    "face": (_face, False, True),
    "landscape": (_landscape, False, True),
    "line_chart": (_line_chart, False, True),
    "uniform_noise": (_uniform_noise, False, False),
    "gaussian_noise": (_gaussian_noise, False, False),
    "salt_and_pepper": (_salt_and_pepper, False, False),
    "smooth_noise": (_smooth_noise, False, False),
}
KINDS: tuple[str, ...] = tuple(_KINDS)
SMALLEST = 16


def not_skin(count: int, size: int, seed: int) -> tuple[Images, list[str]]:
    """Pictures that show no skin; the kinds take turns, so their counts differ by one at most.

    A picture depends on the seed and its place alone: more of them leave the earlier ones as they were.

    Args:
        count: how many, N.
        size: side S in pixels.
        seed: of everything drawn.

    Returns:
        uint8 [N, S, S, 3], RGB, and the kind of each, one of ``KINDS``.

    Raises:
        ConfigError: a negative count or seed, or a side below 16.
    """
    if count < 0 or seed < 0 or size < SMALLEST:
        problem = f"{count} pictures of side {size} from seed {seed}"
        raise ConfigError(problem, rule=f"count and seed are 0 or more, the side at least {SMALLEST}")
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    kinds = [KINDS[place % len(KINDS)] for place in range(count)]
    for place, kind in enumerate(kinds):
        images[place] = _picture(np.random.default_rng((seed, place)), kind, size)
    return images, kinds


def _picture(rng: np.random.Generator, kind: str, size: int) -> Images:
    painter, skin, by_camera = _KINDS[kind]
    field = painter(rng, size, skin)
    if by_camera and rng.random() < 0.5:
        return np.asarray(expose(rng, field * light(rng, (size, size))))
    return np.asarray(np.rint(255 * field.clip(0, 1)), dtype=np.uint8)
