"""Rendered trays as arrays: reads what `render_trays` wrote and brings it into the network's form.

The preprocessing here is the reference that the Rust pipeline must reproduce (golden check): decode, bilinear resize
with pixel centres at one half and without anti-aliasing, letterbox, round to bytes, divide by 255.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 256
LETTERBOX = (114, 114, 114)
CLASSES = ["foreign_body", "seal_contamination", "over_bake", "crack"]


def place(width, height):
    """Size and offset of an image of width x height centred in the network's input."""
    scale = min(WIDTH / width, HEIGHT / height)
    w, h = round(width * scale), round(height * scale)
    return w, h, (WIDTH - w) // 2, (HEIGHT - h) // 2


def resize_bilinear(image, width, height):
    """Two-by-two bilinear resize of an (h, w, 3) byte image, as OpenCV's INTER_LINEAR computes it in floats."""

    def taps(size, new):
        at = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)

    top, bottom, fy = taps(image.shape[0], height)
    left, right, fx = taps(image.shape[1], width)
    image = image.astype(np.float32)
    rows = image[top] * (1 - fy)[:, None, None] + image[bottom] * fy[:, None, None]
    both = rows[:, left] * (1 - fx)[:, None] + rows[:, right] * fx[:, None]
    return np.floor(both + 0.5).astype(np.uint8)


def network_image(path):
    """Reads a JPEG and returns the (3, HEIGHT, WIDTH) bytes that the network sees."""
    image = np.asarray(Image.open(path).convert("RGB"))
    w, h, x, y = place(image.shape[1], image.shape[0])
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    out[:] = LETTERBOX
    out[y : y + h, x : x + w] = resize_bilinear(image, w, h)
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def load(folder):
    """Returns (file names, images as bytes, boxes per image as rows of x0 y0 x1 y1 class in network pixels)."""
    names, images, boxes = [], [], []
    for line in (Path(folder) / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        w, _, x, y = place(label["width"], label["height"])
        scale = w / label["width"]
        rows = [
            [d["x0"] * scale + x, d["y0"] * scale + y, d["x1"] * scale + x, d["y1"] * scale + y, CLASSES.index(d["class"])]
            for d in label["defects"]
        ]
        names.append(label["file"])
        images.append(network_image(Path(folder) / label["file"]))
        boxes.append(np.array(rows, np.float32).reshape(-1, 5))
    return names, np.stack(images), boxes
