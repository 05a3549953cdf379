"""The detector: a small convolutional backbone, one feature map at stride 8, a score map per class and a box per cell.

Each defect is one peak of its class's score map, so the exported graph keeps only local maxima (a max pool) and needs
no suppression afterwards: output [1, 50, 6] with rows x1, y1, x2, y2, score, class; unused rows are zero.
"""

import torch
from torch import nn
from torch.nn import functional as F

STRIDE = 8
ROWS = 50
SCORE_FLOOR = 0.05


def conv(inside, outside, size=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside), nn.SiLU()
    )


class Block(nn.Module):
    """Residual bottleneck: 1x1 to half the channels, 3x3 back."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels // 2, 1), conv(channels // 2, channels))

    def forward(self, x):
        return x + self.body(x)


class Detector(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stage8 = nn.Sequential(
            conv(3, 16, stride=2), conv(16, 32, stride=2), Block(32), conv(32, 64, stride=2), Block(64), Block(64)
        )
        self.stage16 = nn.Sequential(conv(64, 96, stride=2), Block(96), Block(96))
        self.stage32 = nn.Sequential(conv(96, 128, stride=2), Block(128))
        self.side16, self.side32 = conv(96, 64, 1), conv(128, 64, 1)
        self.fuse16, self.fuse8 = conv(64, 64), conv(64, 64)
        self.score = nn.Sequential(conv(64, 48), nn.Conv2d(48, classes, 1))
        self.box = nn.Sequential(conv(64, 32), nn.Conv2d(32, 4, 1))
        nn.init.constant_(self.score[-1].bias, -4.6)
        nn.init.constant_(self.box[-1].bias, 1.0)

    def forward(self, x):
        """Returns score logits (B, C, H, W) and distances to the box's four edges (B, 4, H, W) in network pixels."""
        c8 = self.stage8(x)
        c16 = self.stage16(c8)
        c32 = self.stage32(c16)
        p16 = self.fuse16(self.side16(c16) + F.interpolate(self.side32(c32), scale_factor=2.0, mode="nearest"))
        p8 = self.fuse8(c8 + F.interpolate(p16, scale_factor=2.0, mode="nearest"))
        return self.score(p8), F.softplus(self.box(p8)) * STRIDE


def cell_centres(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (x.float() + 0.5) * STRIDE, (y.float() + 0.5) * STRIDE


class Exported(nn.Module):
    """The detector with its peaks read out, as it is written to ONNX."""

    def __init__(self, detector, height, width):
        super().__init__()
        self.detector = detector
        x, y = cell_centres(height // STRIDE, width // STRIDE)
        self.register_buffer("x", x.reshape(1, -1))
        self.register_buffer("y", y.reshape(1, -1))

    def forward(self, image):
        logits, distance = self.detector(image)
        heat = logits.sigmoid()
        classes, cells = heat.shape[1], heat.shape[2] * heat.shape[3]
        # Two peaks of one class closer than two cells are one defect.
        peak = (heat == F.max_pool2d(heat, 5, 1, 2)).float() * heat
        score, index = peak.reshape(1, classes * cells).topk(ROWS, dim=1)
        kind = torch.div(index, cells, rounding_mode="floor")
        cell = index - kind * cells
        left, top, right, bottom = distance.reshape(1, 4, cells).unbind(1)
        take = lambda values: values.gather(1, cell)
        x, y = take(self.x), take(self.y)
        rows = torch.stack(
            [x - take(left), y - take(top), x + take(right), y + take(bottom), score, kind.float()], dim=2
        )
        return rows * (score > SCORE_FLOOR).float().unsqueeze(2)
