"""Trains the detector on rendered trays: `train.py TRAIN_FOLDER OUT.pt [--views N]`. One thread, no GPU, seeded."""

import argparse
import copy
import math
import time

import numpy as np
import torch
from torch.nn import functional as F

import trays
from network import STRIDE, Detector, cell_centres

BATCH = 16
RATE = 2e-3


def augment(images, boxes, random):
    """Flips and light: the view is from above, so every flip of a tray is a tray. Returns floats and new boxes."""
    out, moved = [], []
    for image, rows in zip(images, boxes):
        rows = rows.copy()
        if random.random() < 0.5:
            image, rows[:, [0, 2]] = image[:, :, ::-1], trays.WIDTH - rows[:, [2, 0]]
        if random.random() < 0.5:
            image, rows[:, [1, 3]] = image[:, ::-1], trays.HEIGHT - rows[:, [3, 1]]
        gain = random.uniform(0.85, 1.15) * random.uniform(0.96, 1.04, (3, 1, 1))
        out.append(np.clip(image * gain.astype(np.float32) / 255, 0, 1))
        moved.append(rows)
    return torch.from_numpy(np.stack(out).astype(np.float32)), moved


def targets(boxes, classes, height, width):
    """Score maps with one bell per defect, box corners and weights per cell."""
    x, y = cell_centres(height, width)
    heat = torch.zeros(len(boxes), classes, height, width)
    corners = torch.zeros(len(boxes), 4, height, width)
    weight = torch.zeros(len(boxes), height, width)
    for at, rows in enumerate(boxes):
        # Large boxes first, so that a small defect on a large one keeps its cells.
        for row in sorted(rows.tolist(), key=lambda r: -(r[2] - r[0]) * (r[3] - r[1])):
            x0, y0, x1, y1, kind = row
            cx = (math.floor((x0 + x1) / 2 / STRIDE) + 0.5) * STRIDE
            cy = (math.floor((y0 + y1) / 2 / STRIDE) + 0.5) * STRIDE
            sx, sy = max((x1 - x0) / 6, 0.55 * STRIDE), max((y1 - y0) / 6, 0.55 * STRIDE)
            bell = torch.exp(-((x - cx) ** 2) / (2 * sx * sx) - (y - cy) ** 2 / (2 * sy * sy))
            heat[at, int(kind)] = torch.maximum(heat[at, int(kind)], bell)
            near = bell > 0.35
            weight[at][near] = bell[near]
            for edge, value in enumerate((x0, y0, x1, y1)):
                corners[at, edge][near] = value
    return heat, corners, weight


def score_loss(logits, heat):
    """Focal loss of CenterNet (Zhou et al. 2019): a cell near a peak is a weak negative."""
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive = (heat == 1).float()
    gain = positive * (1 - p) ** 2 * p.log() + (1 - positive) * (1 - heat) ** 4 * p**2 * (1 - p).log()
    return -gain.sum() / positive.sum().clamp(min=1)


def box_loss(distance, corners, weight):
    """Generalised IoU (Rezatofighi et al. 2019) of the cells around each centre."""
    chosen = weight > 0
    if not chosen.any():
        return distance.sum() * 0
    x, y = cell_centres(*weight.shape[1:])
    centre = torch.stack([x, y, x, y]).expand(len(weight), 4, -1, -1)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(1, 4, 1, 1)
    a = (centre + sign * distance).permute(0, 2, 3, 1)[chosen]
    b = corners.permute(0, 2, 3, 1)[chosen]
    area = lambda r: (r[:, 2] - r[:, 0]).clamp(min=0) * (r[:, 3] - r[:, 1]).clamp(min=0)
    meet = area(torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], 1))
    hull = area(torch.cat([torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])], 1))
    union = area(a) + area(b) - meet
    giou = meet / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
    w = weight[chosen]
    return ((1 - giou) * w).sum() / w.sum()


def train(folder, views, seed=1):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    _, images, boxes = trays.load(folder)
    model = Detector(len(trays.CLASSES)).to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(images)} trays", flush=True)
    smooth = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    steps, start = views // BATCH, time.time()
    order = np.concatenate([random.permutation(len(images)) for _ in range(views // len(images) + 1)])
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.param_groups[0]["lr"] = rate
        chosen = order[step * BATCH : (step + 1) * BATCH]
        image, rows = augment(images[chosen], [boxes[i] for i in chosen], random)
        heat, corners, weight = targets(rows, len(trays.CLASSES), trays.HEIGHT // STRIDE, trays.WIDTH // STRIDE)
        logits, distance = model(image.to(memory_format=torch.channels_last))
        scores, edges = score_loss(logits, heat), box_loss(distance, corners, weight)
        optimizer.zero_grad()
        (scores + 2 * edges).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        keep = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for old, new in zip(smooth.state_dict().values(), model.state_dict().values()):
                old.copy_(new if not old.is_floating_point() else old * keep + new * (1 - keep))
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step}/{steps} score {scores:.3f} box {edges:.3f} {time.time() - start:.0f} s", flush=True)
    return smooth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--views", type=int, default=15000)
    arguments = parser.parse_args()
    model = train(arguments.folder, arguments.views)
    torch.save(model.state_dict(), arguments.out)
