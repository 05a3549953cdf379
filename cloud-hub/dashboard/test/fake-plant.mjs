// A small plant for the fake hub: lines, tags and their values as pure functions of time. A fixture
// for looking at the pages; the real hub is what the pages are tested against.

export const MINUTE_US = 60_000_000;
const id = (n) => `0190a000-0000-7000-8000-${String(n).padStart(12, "0")}`;

export const plant = { id: id(1), code: "akron", name: "Lakeshore Kitchens, Akron", zone: "America/New_York" };

// [name, description, unit, line, period_ms, low, high, normal, swing]
const TAGS = [
  ["TT-101", "Holding tube outlet", "degC", 0, 1000, 72, null, 73.2, 0.12],
  ["TT-102", "Recorder probe", "degC", 0, 1000, null, null, 73.3, 0.12],
  ["FT-103", "HTST flow", "L/h", 0, 1000, null, 9200, 8950, 40],
  ["TT-107", "Product cold out", "degC", 0, 5000, null, 4.4, 3.4, 0.15],
  ["L1-RATE", "Line 1 rate", "per min", 0, 1000, null, null, 156, 2],
  ["TT-201", "Kettle 1 core", "degC", 1, 1000, null, null, 88, 0.3],
  ["TT-206", "Chiller air", "degC", 1, 10_000, null, null, -2, 0.6],
  ["L2-RATE", "Line 2 rate", "per min", 1, 1000, null, null, 0, 0],
  ["TT-310", "Tray core after oven", "degC", 2, 2000, 74, null, 80.5, 1.1],
  ["TT-302", "Oven zone 2", "degC", 2, 2000, 191, 201, 196, 0.8],
  ["L3-RATE", "Line 3 rate", "per min", 2, 2000, null, null, 57.5, 1],
  ["AT-401", "Wash water PAA", "ppm", 3, 10_000, 60, 80, 70, 4],
  ["TT-403", "Salad product", "degC", 3, 30_000, null, 5, 3.8, 0.4],
  ["L4-RATE", "Line 4 rate", "per min", 3, 2000, null, null, 48, 1],
];

const LINES = [
  ["L1", "HTST & Bottle Fill", 160, "running", "OWM32", "OWM32-6324-1A"],
  ["L2", "Kettle Cook & Blast Chill", 40, "stopped", null, null],
  ["L3", "Bake & Tray Pack", 60, "running", "LAS12", "LAS12-6324-3B"],
  ["L4", "RTE Deli Salad", 50, "running", "PSL12", "PSL12-6324-4A"],
];

/** Everything that does not change while the fake hub runs. */
export function makePlant(started_us) {
  const dip = { from_us: started_us - 22 * MINUTE_US, to_us: started_us - 22 * MINUTE_US + 75_000_000 };
  const gap = { from_us: started_us - 40 * MINUTE_US, to_us: started_us - 37 * MINUTE_US };
  const fault = { from_us: started_us - 12 * MINUTE_US, to_us: started_us - 11 * MINUTE_US };
  const lines = LINES.map(([code, name, target, state, sku, lot], index) => ({ id: id(10 + index), code, name, target, state, sku, lot }));
  const tags = TAGS.map(([name, description, unit, line, period_ms, low, high, normal, swing], index) => ({
    id: index + 1, name, description, unit, line_id: lines[line].id, edge: "akron-1", period_ms,
    limit_low: low, limit_high: high, ccp_id: name === "TT-101" ? id(30) : name === "TT-310" ? id(31) : null,
    normal, swing, line,
  }));
  return { started_us, dip, gap, fault, lines, tags };
}

/** Deterministic noise between -1 and 1. */
function noise(seed) {
  const x = Math.sin(seed * 12.9898) * 43_758.5453;
  return (x - Math.floor(x)) * 2 - 1;
}

/** [value|null, quality] of a tag at a time; null when there is no reading at all. */
export function readingAt(world, tag, time_us) {
  const inside = ({ from_us, to_us }) => time_us >= from_us && time_us < to_us;
  if (tag.name === "TT-102" && inside(world.gap)) return null;
  if (tag.name === "TT-107" && inside(world.fault)) return [null, 0x8000];
  const step = Math.floor(time_us / (tag.period_ms * 1000));
  const slow = Math.sin(time_us / 4e8 + tag.id) * tag.swing;
  let value = tag.normal + slow + noise(step + tag.id * 1000) * tag.swing * 0.7;
  if ((tag.name === "TT-101" || tag.name === "TT-102") && inside(world.dip)) value -= 2.1;
  if (tag.name === "AT-401" && step % 173 === 0) value = 57.5; // one single sample out of limits
  return [Math.round(value * 100) / 100, 0];
}

export function series(world, tag, from_us, to_us, points) {
  const period_us = tag.period_ms * 1000;
  const raw = [];
  for (let t = Math.ceil(from_us / period_us) * period_us; t <= to_us; t += period_us) {
    const reading = readingAt(world, tag, t);
    if (reading !== null) raw.push([t, ...reading]);
  }
  if (raw.length <= points) return { resolution_us: 0, points: raw };
  const resolution_us = Math.ceil((to_us - from_us) / (points / 2));
  const buckets = new Map();
  for (const point of raw) {
    const key = Math.floor((point[0] - from_us) / resolution_us);
    const bucket = buckets.get(key) ?? { low: null, high: null, bad: null };
    if (point[1] === null) bucket.bad = point;
    else {
      if (bucket.low === null || point[1] < bucket.low[1]) bucket.low = point;
      if (bucket.high === null || point[1] > bucket.high[1]) bucket.high = point;
    }
    buckets.set(key, bucket);
  }
  const out = [];
  for (const { low, high, bad } of buckets.values()) {
    out.push(...new Set([low, high, bad].filter((each) => each !== null)));
  }
  return { resolution_us, points: out.sort((a, b) => a[0] - b[0]) };
}

/** A tray as an uncompressed bitmap, smaller than the frame that the boxes are measured in. */
export function trayImage(width, height, spots) {
  const row = Math.ceil((width * 3) / 4) * 4;
  const body = Buffer.alloc(54 + row * height);
  body.write("BM", 0, "latin1");
  body.writeUInt32LE(body.length, 2);
  body.writeUInt32LE(54, 10);
  body.writeUInt32LE(40, 14);
  body.writeInt32LE(width, 18);
  body.writeInt32LE(height, 22);
  body.writeUInt16LE(1, 26);
  body.writeUInt16LE(24, 28);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const is_tray = x > width * 0.08 && x < width * 0.92 && y > height * 0.1 && y < height * 0.9;
      const grain = Math.round(noise(x * 91 + y * 17) * 8);
      let [r, g, b] = is_tray ? [196 + grain, 150 + grain, 92 + grain] : [70, 74, 78];
      for (const spot of spots) {
        if (Math.hypot((x / width - spot.x) / spot.r, (y / height - spot.y) / (spot.r * 1.4)) < 0.8) [r, g, b] = [44, 30, 26];
      }
      const at = 54 + (height - 1 - y) * row + x * 3;
      body[at] = b;
      body[at + 1] = g;
      body[at + 2] = r;
    }
  }
  return body;
}

export { id };
