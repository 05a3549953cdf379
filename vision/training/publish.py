"""Turns trained weights into a model that may go live: `publish.py WEIGHTS.pt CALIBRATE_FOLDER TEST_FOLDER MODEL_FOLDER`.

Exports ONNX, chooses each class's threshold on the calibration trays, measures on the test trays (which nothing was
chosen on), and writes manifest, golden files and model card.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import trays
from network import Detector, Exported

NAME, VERSION, LICENCE = "tray-defects", "1.0.0", "Apache-2.0"
SEVERITY = {"foreign_body": "critical", "seal_contamination": "critical", "over_bake": "major", "crack": "major"}
# A quarter of the 1 % of clean trays that may be rejected, for each of the four classes.
FALSE_REJECT_PER_CLASS = 0.0025


def export(weights, path):
    model = Detector(len(trays.CLASSES))
    model.load_state_dict(torch.load(weights))
    image = torch.zeros(1, 3, trays.HEIGHT, trays.WIDTH)
    exported = Exported(model, trays.HEIGHT, trays.WIDTH).eval()
    torch.onnx.export(
        exported, (image,), str(path), opset_version=17, dynamo=False, input_names=["image"], output_names=["defects"]
    )
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"name": NAME, "version": VERSION, "license": LICENCE})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def tensor(image):
    return (image.astype(np.float32) * np.float32(1 / 255))[None]


def best_scores(run, images):
    """Highest score of each class in each image, (images, classes), and the raw outputs."""
    outputs = np.stack([run.run(None, {"image": tensor(image)})[0][0] for image in images])
    scores = np.zeros((len(images), len(trays.CLASSES)), np.float32)
    for kind in range(len(trays.CLASSES)):
        scores[:, kind] = np.where(outputs[:, :, 5] == kind, outputs[:, :, 4], 0).max(1)
    return scores, outputs


def present(boxes):
    return np.array([[(rows[:, 4] == kind).any() for kind in range(len(trays.CLASSES))] for rows in boxes])


def choose_threshold(without, having):
    """Between the scores of trays without and with the defect; where they overlap, false rejects decide."""
    low, high = np.quantile(without, 1 - FALSE_REJECT_PER_CLASS), np.quantile(having, 0.01)
    middle = (low + high) / 2 if high > low else low + 1e-3
    return round(float(np.clip(middle, 0.15, 0.9)), 3)


def upper_bound(errors, count):
    """95 % upper Clopper-Pearson bound by bisection on the binomial tail."""
    from math import comb

    if errors >= count:
        return 1.0
    low, high = errors / count, 1.0
    for _ in range(60):
        p = (low + high) / 2
        tail = sum(comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(errors + 1))
        low, high = (p, high) if tail > 0.05 else (low, p)
    return high


def share(errors, count):
    return f"{errors} of {count} ({100 * errors / count:.2f} %, at 95 % below {100 * upper_bound(errors, count):.2f} %)"


def overlap(a, b):
    area = lambda r: max(0, r[2] - r[0]) * max(0, r[3] - r[1])
    meet = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return meet / max(area(a) + area(b) - meet, 1e-6)


def measure(run, folder, thresholds):
    """Rows of the model card, from trays that nothing was chosen on."""
    _, images, boxes = trays.load(folder)
    scores, outputs = best_scores(run, images)
    truth, found = present(boxes), scores >= np.array(thresholds)
    clean = ~truth.any(1)
    lines = [
        f"{len(images)} rendered trays of 640×480 px that were used for nothing else",
        f"| clean trays rejected | {share(int(found[clean].any(1).sum()), int(clean.sum()))} |",
        f"| defective trays passed | {share(int((~found[~clean].any(1)).sum()), int((~clean).sum()))} |",
    ]
    ious = []
    for kind, name in enumerate(trays.CLASSES):
        missed = int((truth[:, kind] & ~found[:, kind]).sum())
        lines.append(f"| trays with {name} in which none was found | {share(missed, int(truth[:, kind].sum()))} |")
    for rows, output in zip(boxes, outputs):
        for row in rows:
            ious.append(max([overlap(row, o) for o in output if o[4] > 0 and o[5] == row[4]], default=0))
    lines.append(f"| mean overlap (IoU) of a defect with its best box | {np.mean(ious):.3f} |")
    return lines


def pick_golden(outputs, thresholds):
    """The image with most kinds of defect whose scores all stay far from their thresholds."""
    best, choice = (0, 0.0), None
    for at, rows in enumerate(outputs):
        rows = rows[rows[:, 4] > 0]
        limit = np.array(thresholds)[rows[:, 5].astype(int)]
        above = rows[:, 4] >= limit
        margin = float(np.abs(rows[:, 4] - limit).min(initial=1.0))
        rank = (len(set(rows[above, 5])), margin)
        if margin > 0.1 and rank > best:
            best, choice = rank, at
    return choice


def write_golden(folder, source, name, image, output):
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(source) / name, folder / "golden" / "input.jpg")
    (folder / "golden" / "tensor.f32").write_bytes(tensor(image).astype("<f4").tobytes())
    (folder / "golden" / "output.f32").write_bytes(output.astype("<f4").tobytes())


def write_manifest(folder, thresholds):
    manifest = {
        "name": NAME,
        "version": VERSION,
        "model": "model.onnx",
        "sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "input": {
            "width": trays.WIDTH,
            "height": trays.HEIGHT,
            "layout": "nchw",
            "colour_order": "rgb",
            "scale": 0.003921568859368563,
            "resize_filter": "bilinear",
            "letterbox": list(trays.LETTERBOX),
        },
        "head": "nms_free",
        "classes": [
            {"name": name, "threshold": threshold, "severity": SEVERITY[name]}
            for name, threshold in zip(trays.CLASSES, thresholds)
        ],
        "licence": LICENCE,
        "golden": {
            "image": "golden/input.jpg",
            "tensor": "golden/tensor.f32",
            "output": "golden/output.f32",
            "tolerance": 1e-4,
            "tensor_tolerance_max": 4.0,
            "tensor_tolerance_mean": 0.5,
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def write_card(folder, lines, parameters, note):
    thresholds = json.loads((folder / "manifest.json").read_text())["classes"]
    size = (folder / "model.onnx").stat().st_size
    card = f"""# {NAME} {VERSION}

A detector for the demo line and the tests, trained from nothing on rendered trays (`vision::synthetic`). It has seen
no photograph: on a real line it is a placeholder until a model is trained on that line's own images.

- {parameters:,} parameters, {size / 1e6:.1f} MB ONNX (opset 17), input `[1, 3, {trays.HEIGHT}, {trays.WIDTH}]`, output `[1, 50, 6]` without
  suppression. Own architecture and training code in `vision/training/`, licence {LICENCE}.
- {note}

## Measured

On {lines[0]}:

| measure | value |
|---|---|
{chr(10).join(lines[1:])}

Thresholds, chosen on other trays (scores are not probabilities and not comparable between classes):
{", ".join(f"{c['name']} {c['threshold']}" for c in thresholds)}.

These numbers say that training, export and pipeline work; trays drawn by the same program are easier than trays.

## Files

`manifest.json` describes the model; `golden/` holds an image, its tensor and the model's output as Python's ONNX
Runtime {onnxruntime.__version__} computed them. `Detector::load` reproduces all three before the model may judge a frame.
"""
    (folder / "README.md").write_text(card)


def publish(weights, calibrate, test, folder, note):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    export(weights, folder / "model.onnx")
    run = session(folder / "model.onnx")
    names, images, boxes = trays.load(calibrate)
    scores, outputs = best_scores(run, images)
    truth = present(boxes)
    thresholds = []
    for kind, name in enumerate(trays.CLASSES):
        without, having = scores[~truth[:, kind], kind], scores[truth[:, kind], kind]
        thresholds.append(choose_threshold(without, having))
        spread = np.round(np.quantile(without, [0.5, 0.99, 1]), 3), np.round(np.quantile(having, [0, 0.01, 0.5]), 3)
        print(name, "without", spread[0], "with", spread[1], "threshold", thresholds[-1], flush=True)

    golden = pick_golden(outputs, thresholds)
    write_golden(folder, calibrate, names[golden], images[golden], outputs[golden])
    write_manifest(folder, thresholds)
    lines = measure(run, test, thresholds)
    print("\n".join(lines))
    write_card(folder, lines, sum(p.numel() for p in Detector(len(trays.CLASSES)).parameters()), note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("calibrate")
    parser.add_argument("test")
    parser.add_argument("folder")
    parser.add_argument("--note", default="Trained by `vision/training/retrain.sh`.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    publish(arguments.weights, arguments.calibrate, arguments.test, arguments.folder, arguments.note)
