// The words of the hub's REST API and live stream, as the dashboard reads them.
// Times are integer UTC microseconds in fields ending `_us`; quality is the high half of an OPC UA StatusCode.

export type Id = string;
export type Micros = number;

export interface Page<T> {
  items: T[];
  next: string | null;
}

/** RFC 9457 problem document. */
export interface Problem {
  type?: string;
  title: string;
  status: number;
  detail?: string;
  instance?: string;
  correlation_id?: string;
}

/** An identity provider that a tenant's people may sign in with. */
export interface SignInProvider {
  name: string;
  display_name?: string;
}

/** One deed of the audit chain. */
export interface AuditEntry {
  seq: number;
  at_us: Micros;
  actor: { kind: string; id: string | null; name: string | null };
  action: string;
  entity: string;
  entity_id: string | null;
  before: unknown;
  after: unknown;
  why: string | null;
  correlation_id: string | null;
}

/** What verifying the chain found. */
export interface AuditVerdict {
  rows: number;
  first_broken: { seq: number; why: string } | null;
}

export interface Login {
  access_token: string;
  token_type: "Bearer";
  expires_in_s: number;
}

export interface Me {
  user: { id: Id; email: string; display_name: string; role: string };
  tenant: { slug: string; name: string };
  plant: { code: string; name: string; zone: string };
  can: string[];
}

export interface Line {
  id: Id;
  code: string;
  name: string;
  plant_id: Id;
  state: "running" | "stopped" | "unknown";
  since_us: Micros | null;
  rate_per_min: number | null;
  target_per_min: number | null;
  batch: { id: Id; code: string; sku: string; lot_code: string | null } | null;
  open_holds: number;
  open_deviations: number;
  key_tags: number[];
  rate_tag_id: number | null;
}

export interface LastReading {
  time_us: Micros;
  value: number | null;
  quality: number;
}

export interface Tag {
  id: number;
  name: string;
  description: string;
  unit: string;
  line_id: Id | null;
  edge: string | null;
  /** How often a reading is due; 0 means on change. */
  period_ms: number;
  limit_low: number | null;
  limit_high: number | null;
  ccp_id: Id | null;
  last: LastReading | null;
}

/** One point of a series; a null value marks bad quality. */
export type Point = [time_us: Micros, value: number | null, quality: number];

export interface Readings {
  tag_id: number;
  from_us: Micros;
  to_us: Micros;
  /** 0 = raw readings, otherwise the width of one min/max bucket. */
  resolution_us: number;
  points: Point[];
}

export interface Batch {
  id: Id;
  code: string;
  sku: string;
  line_id: Id;
  state: "planned" | "running" | "complete";
  started_us: Micros | null;
  completed_us: Micros | null;
  lot_code: string | null;
}

export type CcpState =
  | "in_control"
  | "deviation"
  | "monitoring_gap"
  | "diverted"
  | "not_running"
  | "unknown";

export interface Ccp {
  id: Id;
  code: string;
  name: string;
  line_id: Id;
  /** Null until an edge publishes the tag. */
  tag_id: number | null;
  limit_low: number | null;
  limit_high: number | null;
  unit: string;
  limit_version: number;
  state: CcpState;
  last: LastReading | null;
  margin: number | null;
  last_check: {
    from_us: Micros;
    to_us: Micros;
    verdict: string;
    value_min: number | null;
    value_max: number | null;
    value_last: number | null;
    good: number;
    bad: number;
    missing: number;
  } | null;
  open_deviation_id: Id | null;
  /** Null when it is monitored all the time. */
  challenge: CcpChallenge | null;
}

/** When a control point is challenged; between, it owes no reading. */
export interface CcpChallenge {
  every_us: Micros;
  grace_us: Micros;
  due_us: Micros | null;
  is_missed: boolean;
}

export type DeviationKind =
  | "limit"
  | "monitoring_gap"
  | "sensor_stuck"
  | "hold_time"
  | "cooling"
  | "challenge"
  | "missed_check";

export interface Deviation {
  id: Id;
  ccp_id: Id;
  ccp_code: string;
  line_id: Id;
  kind: DeviationKind;
  status: "open" | "closed";
  window_from_us: Micros;
  window_to_us: Micros | null;
  detected_us: Micros;
  value_extreme: number | null;
  limit_low: number | null;
  limit_high: number | null;
  unit: string;
  limit_version: number;
  hold_id: Id | null;
  hold_code: string | null;
  acknowledged_by: string | null;
  acknowledged_us: Micros | null;
  late: boolean;
  detail: string;
}

export type LotStatus = "released" | "held" | "quarantined" | "in_process";

export interface HeldLot {
  lot_id: Id;
  lot_code: string;
  sku: string;
  quantity: number;
  unit: string;
  status: LotStatus;
}

export interface Hold {
  id: Id;
  code: string;
  status: "open" | "closed";
  deviation_id: Id | null;
  reason: string;
  placed_us: Micros;
  widened: boolean;
  lots: HeldLot[];
}

/** A box in pixels of the source frame. */
export interface Defect {
  class: string;
  score: number;
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

export type Verdict = "pass" | "reject" | "unknown";

export interface VisionResult {
  id: Id;
  taken_us: Micros;
  camera: string;
  line_id: Id | null;
  verdict: Verdict;
  reason: string | null;
  defects: Defect[];
  width_px: number;
  height_px: number;
  model: { name: string; version: string; sha256: string };
  has_image: boolean;
}

export interface Edge {
  id: Id;
  name: string;
  state: "online" | "offline" | "never" | "on_demand";
  last_seen_us: Micros | null;
  last_frame_us: Micros | null;
  lag_ms: number | null;
  backlog_frames: number | null;
  oldest_us: Micros | null;
  version: string | null;
  boot: string | null;
  /** Newest configuration that was sent from here; null when none was. */
  config_revision: number | null;
  config_state: EdgeConfigState | null;
  /** Commands that are not answered yet. */
  commands_open: number;
  /** End of its newest client certificate; null when it has none from here. */
  certificate_until_us: Micros | null;
}

export type EdgeConfigState = "pending" | "applied" | "refused" | "rolled_back" | "superseded";

// --- live stream -----------------------------------------------------------------------------

export interface EdgeHealth {
  state: Edge["state"];
  lag_ms: number | null;
  backlog_frames: number | null;
}

export interface HelloEvent {
  server_now_us: Micros;
  tenant: string;
  can: string[];
  cursor: string | number;
  schema: number;
}

export interface HeartbeatEvent {
  server_now_us: Micros;
  edges: Record<string, EdgeHealth>;
}

export type LiveSample = [
  tag_id: number,
  time_us: Micros,
  value: number | null,
  quality: number,
  flags: number,
];

export interface SamplesEvent {
  t_hub_us: Micros;
  v: LiveSample[];
}

export const FLAG_LATE = 1;
export const FLAG_SIMULATED = 2;

export type AlarmStateName =
  | "normal"
  | "unacknowledged"
  | "acknowledged"
  | "returned_unacknowledged"
  | "latched"
  | "shelved"
  | "suppressed"
  | "out_of_service";

/** One occurrence of an alarm, of an edge or of the hub. */
export interface Alarm {
  id: string;
  version: number;
  /** Null: the hub's own, which can be acted on here. */
  edge: string | null;
  rule_id: string | null;
  line_id: string | null;
  code: string;
  subject: string;
  message: string;
  priority: number | null;
  state: AlarmStateName;
  is_active: boolean;
  raised_us: number | null;
  cleared_us: number | null;
  found_us: number | null;
  withdrawn_us: number | null;
  shelved_until_us: number | null;
  acked_us: number | null;
  acked_by: string | null;
  value: number | null;
  unit: string | null;
  response: string | null;
}

export interface AlarmActor {
  code: string;
  subject: string;
  count: number;
  share: number;
}

export interface AlarmFlood {
  from_us: number;
  to_us: number;
  alarms: number;
  first_code: string;
  first_subject: string;
}

export interface AlarmKpis {
  from_us: number;
  to_us: number;
  operators: number;
  alarms: number;
  per_operator_10_min: number;
  peak_10_min: number;
  floods: AlarmFlood[];
  flood_share: number;
  chattering: AlarmActor[];
  stale: AlarmActor[];
  standing: number;
  top: AlarmActor[];
  priority_mix: [number, number, number];
}

/** Time and value. */
export type SeriesValue = [number, number];

export interface SeriesBucket {
  from_us: number;
  n: number;
  n_good: number;
  first: SeriesValue | null;
  min: SeriesValue | null;
  max: SeriesValue | null;
  last: SeriesValue | null;
  mean: number | null;
  quality: number;
}

export interface SeriesGap {
  from_us: number;
  to_us: number;
  kind: "silent" | "bad" | "not_read" | "lost";
  reason: string | null;
}

export interface TagSeries {
  tag_id: number;
  name: string;
  unit: string;
  period_ms: number;
  resolution_us: number;
  points: [number, number | null, number][] | null;
  buckets: SeriesBucket[];
  gaps: SeriesGap[];
  gaps_left_out: number;
  n: number;
  good_share: number | null;
  mean: number | null;
  good_s: number;
  limits: SeriesLimit[];
}

/** A limit while it was in force; one that changed is two. */
export interface SeriesLimit {
  kind: "critical" | "rule";
  code: string;
  version: number;
  low: number | null;
  high: number | null;
  priority: number | null;
  from_us: number | null;
  to_us: number | null;
}

export interface SeriesEvent {
  kind: "deviation" | "alarm" | "hold";
  id: string;
  code: string;
  subject: string;
  from_us: number;
  to_us: number | null;
  priority: number | null;
}

export interface Series {
  from_us: number;
  to_us: number;
  tags: TagSeries[];
  events: SeriesEvent[];
}

// --- integrators -----------------------------------------------------------------------------

/** A value that came and is no tag yet. */
export interface PendingTag {
  id: Id;
  client: string;
  device: string;
  name: string;
  proposed_name: string;
  unit: string;
  stale_after_s: number | null;
  sample: string;
  readings: number;
  held: number;
  dropped: number;
  first_seen_us: Micros;
  last_seen_us: Micros;
  dismissed_us: Micros | null;
}

export interface AdoptedTag {
  tag_id: number;
  name: string;
  stored: number;
  dropped: number;
}

export interface IntegratorDevice {
  id: Id;
  client: string;
  name: string;
  is_online: boolean;
  since_us: Micros;
  last_seen_us: Micros;
}

/** What a client was told in the last day. */
export interface IntegratorError {
  client: string;
  code: string;
  number: string;
  count: number;
  topic: string;
  hint: string;
  sample: string;
  first_us: Micros;
  last_us: Micros;
}
