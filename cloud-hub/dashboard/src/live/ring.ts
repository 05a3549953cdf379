// The newest readings of one tag in fixed memory, in source-time order. A message writes here and
// nothing else happens; drawing is somebody else's decision.

export class Ring {
  readonly capacity: number;
  private readonly time: Float64Array;
  private readonly value: Float64Array;
  private readonly meta: Uint32Array;
  private start = 0;
  private count = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.time = new Float64Array(capacity);
    this.value = new Float64Array(capacity);
    this.meta = new Uint32Array(capacity);
  }

  get length(): number {
    return this.count;
  }

  private slot(index: number): number {
    return (this.start + index) % this.capacity;
  }

  timeAt(index: number): number {
    return this.time[this.slot(index)] as number;
  }

  /** NaN stands for "no value". */
  valueAt(index: number): number {
    return this.value[this.slot(index)] as number;
  }

  qualityAt(index: number): number {
    return (this.meta[this.slot(index)] as number) & 0xffff;
  }

  flagsAt(index: number): number {
    return (this.meta[this.slot(index)] as number) >>> 16;
  }

  newestTime(): number | null {
    return this.count === 0 ? null : this.timeAt(this.count - 1);
  }

  clear(): void {
    this.start = 0;
    this.count = 0;
  }

  /** Writes one reading; a time seen before replaces its reading, an older one is put in its place. */
  write(time_us: number, value: number | null, quality: number, flags: number): void {
    const at = this.lowerBound(time_us);
    if (at < this.count && this.timeAt(at) === time_us) {
      this.set(at, time_us, value, quality, flags);
      return;
    }
    if (this.count === this.capacity) {
      if (at === 0) return; // older than everything kept
      this.start = (this.start + 1) % this.capacity;
      this.count -= 1;
      this.insert(at - 1, time_us, value, quality, flags);
      return;
    }
    this.insert(at, time_us, value, quality, flags);
  }

  /** First index whose time is not before `time_us`. */
  lowerBound(time_us: number): number {
    let low = 0;
    let high = this.count;
    if (high > 0 && this.timeAt(high - 1) < time_us) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.timeAt(middle) < time_us) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private insert(at: number, time_us: number, value: number | null, quality: number, flags: number): void {
    this.count += 1;
    for (let index = this.count - 1; index > at; index -= 1) {
      const to = this.slot(index);
      const from = this.slot(index - 1);
      this.time[to] = this.time[from] as number;
      this.value[to] = this.value[from] as number;
      this.meta[to] = this.meta[from] as number;
    }
    this.set(at, time_us, value, quality, flags);
  }

  private set(at: number, time_us: number, value: number | null, quality: number, flags: number): void {
    const slot = this.slot(at);
    this.time[slot] = time_us;
    this.value[slot] = value ?? Number.NaN;
    this.meta[slot] = (quality & 0xffff) | (flags << 16);
  }
}
