// A stand-in for the hub while developing the pages: the REST answers and the live stream of the
// contract over a made-up plant, and the files of dist. `node test/fake-hub.mjs [port]`, then sign in
// as akron / supervisor@akron.example / demo. POST /_fake/<mode> switches quiet, silent, down, normal.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { id, makePlant, MINUTE_US, plant, readingAt, series, trayImage } from "./fake-plant.mjs";

const dist = fileURLToPath(new URL("../dist", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const CSP = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'";
const nowUs = () => Date.now() * 1000;
const TOKEN = "fake-token";

export const LOGIN = { tenant: "akron", email: "supervisor@akron.example", password: "demo" };

function makeRecords(world) {
  const lot = (n, code, sku, quantity, unit, status = "held") => ({ lot_id: id(60 + n), lot_code: code, sku, quantity, unit, status });
  const deviations = [
    { id: id(40), ccp_id: id(30), ccp_code: "CCP-1", line_id: id(10), kind: "limit", status: "open",
      window_from_us: world.dip.from_us, window_to_us: world.dip.to_us, detected_us: world.dip.from_us + 1_200_000,
      value_extreme: 70.94, limit_low: 72, limit_high: null, unit: "degC", limit_version: 1, hold_id: id(50),
      hold_code: "H-118", acknowledged_by: null, acknowledged_us: null, late: false,
      detail: "ZS-106 stayed forward for 75 s below the limit" },
    { id: id(41), ccp_id: id(31), ccp_code: "CCP-4", line_id: id(12), kind: "limit", status: "open",
      window_from_us: world.started_us - 300 * MINUTE_US, window_to_us: world.started_us - 290 * MINUTE_US,
      detected_us: world.started_us - 200 * MINUTE_US, value_extreme: 72.8, limit_low: 74, limit_high: null,
      unit: "degC", limit_version: 1, hold_id: id(51), hold_code: "H-117", acknowledged_by: "Dana Ortiz",
      acknowledged_us: world.started_us - 180 * MINUTE_US, late: true, detail: "" },
    { id: id(42), ccp_id: id(30), ccp_code: "CCP-1", line_id: id(10), kind: "sensor_stuck", status: "closed",
      window_from_us: world.started_us - 1900 * MINUTE_US, window_to_us: world.started_us - 1890 * MINUTE_US,
      detected_us: world.started_us - 1899 * MINUTE_US, value_extreme: null, limit_low: 72, limit_high: null,
      unit: "degC", limit_version: 1, hold_id: null, hold_code: null, acknowledged_by: "Dana Ortiz",
      acknowledged_us: world.started_us - 1880 * MINUTE_US, late: false, detail: "" },
  ];
  const holds = [
    { id: id(50), code: "H-118", status: "open", deviation_id: id(40), reason: "CCP-1 below 72.00 degC with forward flow",
      placed_us: world.dip.from_us + 2_100_000, widened: false, lots: [lot(0, "OWM32-6324-1A", "OWM32", 4120, "bottles")] },
    { id: id(51), code: "H-117", status: "open", deviation_id: id(41), reason: "CCP-4 below 74.00 degC, found in late data",
      placed_us: world.started_us - 200 * MINUTE_US, widened: true,
      lots: [lot(1, "LAS12-6324-3A", "LAS12", 640, "cases"), lot(2, "LAS12-6324-3B", "LAS12", 212.5, "kg", "quarantined")] },
  ];
  return { deviations, holds };
}

const CLASSES = ["foreign_body", "seal_contamination", "over_bake", "crack"];

function makeResults(world) {
  return Array.from({ length: 14 }, (_, n) => {
    const x = 120 + ((n * 173) % 900);
    const y = 40 + ((n * 97) % 560);
    const is_unknown = n % 6 === 5;
    return {
      id: id(100 + n), taken_us: world.started_us - n * 7 * MINUTE_US, camera: "VS-306", line_id: id(12),
      verdict: is_unknown ? "unknown" : "reject", reason: is_unknown ? "image ends early" : "foreign body over threshold",
      defects: is_unknown ? [] : [{ class: CLASSES[n % 4], score: 0.93 - n * 0.02, x0: x, y0: y, x1: x + 130, y1: y + 110 }],
      width_px: 1280, height_px: 720, model: { name: "tray-defects", version: "1", sha256: "9f".repeat(32) },
      has_image: !is_unknown && n !== 3,
    };
  });
}

function makePending(world) {
  const value = (n, name, sample, unit, change) => ({ id: id(200 + n), client: "press-7", device: "oven-3", name, unit, sample,
    proposed_name: `oven-3/${name}`, stale_after_s: null, readings: 940 * (n + 1), held: Math.min(1000, 940 * (n + 1)),
    dropped: Math.max(0, 940 * (n + 1) - 1000), first_seen_us: world.started_us - 40 * MINUTE_US,
    last_seen_us: world.started_us - 1_000_000, dismissed_us: null, ...change });
  return [value(0, "core_temperature", "82.4", "degC"), value(1, "telemetry.very.deep.nested.belt_speed_setpoint", "1.25", "m/s"),
    value(2, "door", "1", "", { stale_after_s: 300 }), value(3, "firmware", "v2.1.0", "", { dismissed_us: world.started_us, held: 0 })];
}

function restOf(state) {
  const { world, deviations, holds, results } = state;
  const page = (items) => ({ items, next: null });
  const last = (tag) => {
    const period_us = tag.period_ms * 1000;
    const time_us = Math.floor(nowUs() / period_us) * period_us;
    const reading = readingAt(world, tag, time_us);
    return reading === null ? null : { time_us, value: reading[0], quality: reading[1] };
  };
  const tagOf = (name) => world.tags.find((tag) => tag.name === name);
  const shown = ({ normal, swing, line, ...tag }) => ({ ...tag, last: last(tagOf(tag.name)) });
  const line = (each, index) => {
    const tags = world.tags.filter((tag) => tag.line === index);
    return {
      id: each.id, code: each.code, name: each.name, plant_id: plant.id, state: each.state,
      since_us: world.started_us - (90 + index * 40) * MINUTE_US, rate_per_min: tags.at(-1).normal, target_per_min: each.target,
      batch: each.sku === null ? null : { id: id(20 + index), code: `B-${700 + index}`, sku: each.sku, lot_code: each.lot },
      open_holds: state.is_quiet ? 0 : [1, 0, 1, 0][index], open_deviations: state.is_quiet ? 0 : [1, 0, 0, 0][index],
      key_tags: tags.slice(0, -1).slice(0, 3).map((tag) => tag.id), rate_tag_id: tags.at(-1).id,
    };
  };
  const ccp = (n, code, name, tag_name, line_id, ccp_state) => {
    const tag = tagOf(tag_name);
    const seen = last(tag);
    const to_us = Math.floor(nowUs() / MINUTE_US) * MINUTE_US;
    return {
      id: id(n), code, name, line_id, tag_id: tag.id, limit_low: tag.limit_low, limit_high: tag.limit_high, unit: tag.unit,
      limit_version: 1, state: ccp_state, last: seen, margin: seen === null ? null : seen.value - tag.limit_low,
      last_check: { from_us: to_us - MINUTE_US, to_us, verdict: "in_control", value_min: 73.01, value_max: 73.4,
        value_last: 73.2, good: 60, bad: 0, missing: 0 },
      open_deviation_id: state.is_quiet ? null : n === 30 ? id(40) : id(41), challenge: null,
    };
  };
  const ccps = () => [
    ccp(30, "CCP-1", "HTST holding tube", "TT-101", id(10), state.is_quiet ? "in_control" : "deviation"),
    ccp(31, "CCP-4", "Oven lethality", "TT-310", id(12), "in_control"),
    { id: id(32), code: "CCP-5", name: "Metal detector challenge", line_id: id(13), tag_id: null, limit_low: null, limit_high: null,
      unit: "", limit_version: 1, state: "unknown", last: null, margin: null, last_check: null, open_deviation_id: null,
      challenge: { every_us: 60 * MINUTE_US, grace_us: 5 * MINUTE_US, due_us: world.started_us + 60 * MINUTE_US, is_missed: false } },
  ];
  const open = (items, query) => (state.is_quiet ? [] : items.filter((item) => !query.get("status") || item.status === query.get("status")));
  return {
    "auth/me": () => ({ user: { id: id(2), email: LOGIN.email, display_name: "Samantha Reyes-Whitfield", role: "supervisor" },
      tenant: { slug: "akron", name: "Lakeshore Kitchens" }, plant: { code: plant.code, name: plant.name, zone: plant.zone },
      can: ["deviation.acknowledge", "hold.read", "audit.read", "alarm.read", "alarm.act", "tag.adopt"] }),
    "audit/verify": () => ({ rows: 3, first_broken: null }),
    audit: () => page([3, 2, 1].map((seq) => ({ seq, at_us: nowUs() - seq * 60_000_000, action: seq === 3 ? "denied" : "update",
      actor: { kind: "user", id: id(1), name: "Sam Reyes" }, entity: "supplier", entity_id: id(9), correlation_id: "c-1",
      before: { name: "Erie Spice", version: 1 }, after: { name: "Erie Spice Co", version: 2 }, why: seq === 2 ? "Renamed" : null }))),
    "plant-ops/lines": () => page(world.lines.map(line)),
    "plant-ops/tags": () => page(world.tags.map(shown)),
    "plant-ops/batches": () => page(world.lines.flatMap((each, index) => each.sku === null ? [] : [
      { id: id(20 + index), code: `B-${700 + index}`, sku: each.sku, line_id: each.id, state: "running",
        started_us: world.started_us - 95 * MINUTE_US, completed_us: null, lot_code: each.lot },
      { id: id(25 + index), code: `B-${690 + index}`, sku: each.sku, line_id: each.id, state: "complete",
        started_us: world.started_us - 500 * MINUTE_US, completed_us: world.started_us - 110 * MINUTE_US, lot_code: `${each.lot}0` }])),
    "plant-ops/readings": (query) => {
      const tag = world.tags.find((each) => each.id === Number(query.get("tag_id")));
      const [from_us, to_us] = [Number(query.get("from_us")), Number(query.get("to_us"))];
      return { tag_id: tag.id, from_us, to_us, ...series(world, tag, from_us, to_us, Number(query.get("points") ?? 600)) };
    },
    "plant-ops/series": (query) => {
      const [from_us, to_us] = [Number(query.get("from_us")), Number(query.get("to_us"))];
      const tags = query.get("tags").split(",").map((number) => {
        const tag = world.tags.find((each) => each.id === Number(number));
        if (to_us - from_us > 12 * 60 * MINUTE_US) return bucketsOf(world, tag, from_us, to_us);
        const { points } = series(world, tag, from_us, to_us, 600);
        const gap_us = from_us + (to_us - from_us) / 3;
        return { tag_id: tag.id, name: tag.name, unit: tag.unit, period_ms: tag.period_ms, resolution_us: 0,
          points: points.filter(([time_us]) => time_us < gap_us || time_us > gap_us + 5 * MINUTE_US), buckets: [],
          gaps: [{ from_us: gap_us, to_us: gap_us + 5 * MINUTE_US, kind: "not_read", reason: "no answer from the PLC" }],
          gaps_left_out: 0, n: points.length, good_share: 0.987, mean: tag.normal, good_s: 3600, limits: limitsOf(tag, from_us, to_us) };
      });
      const dip_us = to_us - 40 * MINUTE_US;
      return { from_us, to_us, tags, events: [{ kind: "deviation", id: id(40), code: "CCP-1", subject: "TT-101",
        from_us: dip_us, to_us: dip_us + 3 * MINUTE_US, priority: null }] };
    },
    "sensors/alarms": () => page(state.is_quiet ? [] : [
      { id: id(80), version: 2, edge: null, rule_id: id(90), kind: "threshold", line_id: id(10), code: "chill.warm", subject: "TT-403",
        message: "Chiller too warm", priority: 2, state: "unacknowledged", is_active: true, raised_us: world.started_us - 12 * MINUTE_US,
        cleared_us: null, found_us: world.started_us - 2 * MINUTE_US, withdrawn_us: null, shelved_until_us: null, acked_us: null,
        acked_by: null, value: 6.4, score: null, unit: "degC", response: "Check the door, then the evaporator." },
      { id: id(81), version: 1, edge: "akron-1", rule_id: null, kind: null, line_id: null, code: "source.down", subject: "plc-2",
        message: "", priority: 3, state: "returned_unacknowledged", is_active: false, raised_us: world.started_us - 40 * MINUTE_US,
        cleared_us: world.started_us - 31 * MINUTE_US, found_us: null, withdrawn_us: null, shelved_until_us: null, acked_us: null,
        acked_by: null, value: null, score: null, unit: null, response: null },
      { id: id(82), version: 4, edge: null, rule_id: id(91), kind: "no_data", line_id: id(12), code: "oven.silent", subject: "TT-310",
        message: "Oven sensor silent", priority: 3, state: "shelved", is_active: true, raised_us: world.started_us - 90 * MINUTE_US,
        cleared_us: null, found_us: world.started_us - 90 * MINUTE_US, withdrawn_us: null,
        shelved_until_us: world.started_us + 60 * MINUTE_US, acked_us: world.started_us, acked_by: "Sam Reyes", value: 188.2,
        score: null, unit: "degC", response: null }]),
    "sensors/alarms/kpis": (query) => ({ from_us: Number(query.get("from_us")), to_us: Number(query.get("to_us")), operators: 1,
      alarms: 131, per_operator_10_min: 0.91, peak_10_min: 14, floods: [], flood_share: 0.004, standing: 3,
      chattering: [{ code: "level.high", subject: "LT-201", count: 7, share: 0.31 }], stale: [],
      top: [{ code: "level.high", subject: "LT-201", count: 41, share: 0.31 }, { code: "chill.warm", subject: "TT-403", count: 12, share: 0.09 }],
      priority_mix: [0.04, 0.17, 0.79] }),
    "fsq/ccps": () => page(ccps()),
    "fsq/deviations": (query) => page(open(deviations, query).filter((each) =>
      !query.get("acknowledged") || String(each.acknowledged_us !== null) === query.get("acknowledged"))),
    "fsq/holds": (query) => page(open(holds, query)),
    edges: () => page([{ id: id(70), name: "akron-1", state: state.mode === "silent" ? "offline" : "online",
      last_seen_us: state.seen_us(), last_frame_us: nowUs(), lag_ms: 180, backlog_frames: state.mode === "silent" ? 12_480 : 0,
      oldest_us: null, version: "0.1.0", boot: id(71), config_revision: 3, config_state: "applied", commands_open: 0,
      certificate_until_us: nowUs() + 60 * 86_400_000_000 },
      // A gateway with a long name, and a caller over HTTP.
      ...[["gateway-01a1fbadb87477cc886d9033f91a21", "offline"], ["http-01a1fbadb87477cc886d9033f91a21c3", "on_demand"]].map(([name, is], n) => ({
        id: id(72 + n), name, state: is, last_seen_us: nowUs() - 600_000_000, last_frame_us: null, lag_ms: null, backlog_frames: null,
        oldest_us: null, version: null, boot: null, config_revision: null, config_state: null, commands_open: 0,
        certificate_until_us: null }))]),
    "integrator/pending-tags": () => page(state.pending),
    "integrator/errors": () => page([
      { client: "press-7", code: "BAD_JSON", number: "E101", count: 1312, topic: "v1/akron/l3/oven/telemetry", sample: "{temperature:25}",
        hint: "object keys must be quoted", first_us: nowUs() - 300 * MINUTE_US, last_us: nowUs() - MINUTE_US },
      { client: "http-01a1fbadb87477cc886d9033f91a21c3", code: "IMPOSSIBLE_TIME", number: "E124", count: 3, topic: "v1/gateway/telemetry", sample: "1899-12-31",
        hint: "before 1990; set the clock", first_us: nowUs() - 900 * MINUTE_US, last_us: nowUs() - 700 * MINUTE_US }]),
    "integrator/devices": () => page(["oven-3", "dock-door-sensor-with-a-long-name", "chiller"].map((name, n) => ({ id: id(210 + n), client: "press-7",
      name, is_online: n !== 1, since_us: nowUs() - (n + 1) * 90 * MINUTE_US, last_seen_us: nowUs() - n * 11 * MINUTE_US }))),
    "vision/results": (query) => {
      const matching = results.filter((each) => (!query.get("verdict") || each.verdict === query.get("verdict")) &&
        (!query.get("line_id") || each.line_id === query.get("line_id")));
      const from = Number(query.get("cursor") ?? 0);
      return { items: matching.slice(from, from + 8), next: from + 8 < matching.length ? String(from + 8) : null };
    },
  };
}

/** Means with least and greatest, as the hub answers a long range. */
function bucketsOf(world, tag, from_us, to_us) {
  const resolution_us = 10 * MINUTE_US;
  const first_us = Math.ceil(from_us / resolution_us) * resolution_us;
  const buckets = [];
  for (let at_us = first_us; at_us < to_us; at_us += resolution_us) {
    const seen = Array.from({ length: 20 }, (_, n) => at_us + n * 30_000_000).map((us) => [us, readingAt(world, tag, us)?.[0] ?? null])
      .filter(([, value]) => value !== null);
    const by_value = [...seen].sort((a, b) => a[1] - b[1]);
    const is_odd = Math.floor(at_us / resolution_us) % 40 === 0;
    buckets.push({ from_us: at_us, n: 600, n_good: is_odd ? 540 : 600, first: seen[0], min: by_value[0], max: by_value.at(-1),
      last: seen.at(-1), mean: seen.reduce((sum, [, value]) => sum + value, 0) / seen.length, quality: is_odd ? 0x4000 : 0 });
  }
  return { tag_id: tag.id, name: tag.name, unit: tag.unit, period_ms: tag.period_ms, resolution_us, points: null, buckets, gaps: [],
    gaps_left_out: 0, n: 600 * buckets.length, good_share: 0.99, mean: tag.normal, good_s: (to_us - from_us) / 1e6,
    limits: limitsOf(tag, from_us, to_us) };
}

/** A critical limit that was tightened in the middle of the range, and the threshold of a rule. */
function limitsOf(tag, from_us, to_us) {
  if (tag.limit_low === null) return [];
  const changed_us = from_us + (to_us - from_us) / 2;
  const limit = { kind: "critical", code: "CCP-1", high: null, priority: null };
  return [
    { ...limit, version: 2, low: tag.limit_low, from_us: changed_us, to_us: null },
    { ...limit, version: 1, low: tag.limit_low - 0.5, from_us: null, to_us: changed_us },
    { kind: "rule", code: "htst.warm", version: 1, low: null, high: tag.limit_low + 2.5, priority: 3, from_us: null, to_us: null },
  ];
}

function problem(response, status, title, detail) {
  response.writeHead(status, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ type: "about:blank", title, status, detail }));
}

function stream(state, request, response, query) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const wanted = new Set((query.get("tags") ?? "").split(",").filter(Boolean).map(Number));
  let cursor = Number(request.headers["last-event-id"] ?? 0);
  const send = (event, data) => {
    if (state.mode === "down") return;
    cursor += 1;
    response.write(`id: ${cursor}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  const heartbeat = () => send("heartbeat", { server_now_us: nowUs(), edges: { "akron-1": {
    state: state.mode === "silent" ? "offline" : "online", lag_ms: 180, backlog_frames: state.mode === "silent" ? 12_480 : 0 } } });
  send("hello", { server_now_us: nowUs(), tenant: "akron", can: [], cursor: String(cursor), schema: 1 });
  heartbeat();
  const sent = new Map();
  const samples = () => {
    if (state.mode === "silent") return;
    const v = [];
    for (const tag of state.world.tags) {
      const period_us = tag.period_ms * 1000;
      const time_us = Math.floor(nowUs() / period_us) * period_us;
      if (!wanted.has(tag.id) || sent.get(tag.id) === time_us) continue;
      const reading = readingAt(state.world, tag, time_us);
      sent.set(tag.id, time_us);
      if (reading !== null) v.push([tag.id, time_us, reading[0], reading[1], 2]);
    }
    if (v.length > 0) send("samples", { t_hub_us: nowUs(), v });
  };
  const timers = [setInterval(heartbeat, 5000), setInterval(samples, 1000)];
  const onEvent = (event, data) => send(event, data);
  state.listeners.add(onEvent);
  request.on("close", () => {
    timers.forEach(clearInterval);
    state.listeners.delete(onEvent);
  });
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return chunks.length === 0 ? {} : JSON.parse(Buffer.concat(chunks).toString());
}

function setMode(state, mode) {
  state.is_quiet = mode === "quiet";
  if (mode === "silent") state.silent_from_us = nowUs() - 245_000_000;
  state.mode = mode;
  for (const listener of state.listeners) for (const event of ["deviation", "hold", "line", "edge"]) listener(event, { id: id(40), version: 2 });
}

async function api(state, rest, request, response, path, query) {
  const json = (body) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (path === "auth/login") {
    const body = await bodyOf(request);
    const is_right = body.email === LOGIN.email && body.password === LOGIN.password && body.tenant === LOGIN.tenant;
    if (!is_right) return problem(response, 401, "Unauthenticated", "tenant, e-mail or password is wrong");
    if (body.cookie === true) response.setHeader("set-cookie", "refresh=fake; Path=/api/v1/auth; HttpOnly; SameSite=Strict");
    return json({ access_token: TOKEN, token_type: "Bearer", expires_in_s: 900 });
  }
  if (path === "auth/refresh") {
    if (!(request.headers.cookie ?? "").includes("refresh=fake")) return problem(response, 401, "Unauthenticated", "no session");
    return json({ access_token: TOKEN, token_type: "Bearer", expires_in_s: 900 });
  }
  if (path === "auth/logout") {
    response.setHeader("set-cookie", "refresh=; Path=/api/v1/auth; Max-Age=0");
    response.writeHead(204);
    return response.end();
  }
  if (/^auth\/oidc\/[^/]+\/providers$/.test(path)) return json({ items: [], next: null });
  const token = request.headers.authorization?.slice(7) ?? query.get("access_token");
  if (token !== TOKEN) return problem(response, 401, "Unauthenticated", "no valid token");
  if (path === "live") return stream(state, request, response, query);
  const image = /^vision\/results\/([^/]+)\/image$/.exec(path);
  if (image !== null) {
    const result = state.results.find((each) => each.id === image[1]);
    const spots = result.defects.map((box) => ({ x: (box.x0 + box.x1) / 2 / 1280, y: (box.y0 + box.y1) / 2 / 720, r: 0.045 }));
    response.writeHead(200, { "content-type": "image/bmp" });
    return response.end(trayImage(480, 270, spots));
  }
  const acknowledged = /^fsq\/deviations\/([^/]+)\/acknowledge$/.exec(path);
  if (acknowledged !== null && request.method === "POST") {
    const deviation = state.deviations.find((each) => each.id === acknowledged[1]);
    await bodyOf(request);
    deviation.acknowledged_by = "Sam Reyes";
    deviation.acknowledged_us = nowUs();
    for (const listener of state.listeners) listener("deviation", { id: deviation.id, version: 2 });
    return json(deviation);
  }
  const decided = /^integrator\/pending-tags\/([^/]+)\/(adopt|dismiss|restore)$/.exec(path);
  if (decided !== null && request.method === "POST") {
    const tag = state.pending.find((each) => each.id === decided[1]);
    const { name = tag.proposed_name } = await bodyOf(request);
    if (name === "TT-101") return problem(response, 409, "Conflict", "a tag of that name exists");
    if (decided[2] !== "adopt") tag.dismissed_us = decided[2] === "dismiss" ? nowUs() : null;
    else state.pending.splice(state.pending.indexOf(tag), 1);
    if (decided[2] === "adopt") return json({ tag_id: 99, name, stored: tag.held, dropped: tag.dropped });
    response.writeHead(204);
    return response.end();
  }
  const one = /^fsq\/deviations\/([^/]+)$/.exec(path);
  if (one !== null) return json(state.deviations.find((each) => each.id === one[1]));
  if (rest[path] === undefined) return problem(response, 404, "Not found");
  return json(rest[path](query));
}

function file(response, path) {
  const found = extname(path) !== "" && existsSync(join(dist, path)) ? path : "/index.html";
  response.writeHead(200, { "content-type": TYPES[extname(found)] ?? "application/octet-stream", "content-security-policy": CSP });
  createReadStream(join(dist, found)).pipe(response);
}

/** Starts the fake hub; resolves with its address once it listens. */
export function startFakeHub(port = 0) {
  const world = makePlant(nowUs());
  const state = { world, ...makeRecords(world), results: makeResults(world), pending: makePending(world), listeners: new Set(), mode: "normal", is_quiet: false,
    silent_from_us: 0, seen_us: () => (state.mode === "silent" ? state.silent_from_us : nowUs()) };
  const rest = restOf(state);
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://hub");
    const fake = /^\/_fake\/(\w+)$/.exec(url.pathname);
    if (fake !== null) {
      setMode(state, fake[1]);
      return response.end("ok\n");
    }
    if (!url.pathname.startsWith("/api/v1/")) return file(response, url.pathname);
    return api(state, rest, request, response, url.pathname.slice(8), url.searchParams).catch((error) => problem(response, 500, "Fault", String(error)));
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => {
      resolve({ url: `http://127.0.0.1:${server.address().port}`, setMode: (mode) => setMode(state, mode), close: () => {
        server.closeAllConnections();
        server.close();
      } });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const hub = await startFakeHub(Number(process.argv[2] ?? 8080));
  process.stdout.write(`${hub.url}\n`);
}
