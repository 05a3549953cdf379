// Does Now ever say "nothing needs you" when it cannot know? Rendered, with the clock in our hands.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ccpsQuery, closedUnacknowledgedQuery, openDeviationsQuery, openHoldsQuery, recentDeviationsQuery } from "../../api/queries";
import type { Ccp, Deviation, Me, Tag } from "../../api/types";
import { PlantProvider, type Plant } from "../../components/plant";
import { store } from "../../live/store";
import { ActNowPanel } from "./now";

const START_US = 1_760_000_000_000_000;
const hubUs = () => START_US + performance.now() * 1000;

const me: Me = {
  user: { id: "u", email: "", display_name: "Sam", role: "supervisor" },
  tenant: { slug: "akron", name: "" },
  plant: { code: "akron", name: "Akron", zone: "America/New_York" },
  can: ["deviation.acknowledge"],
};
const tag = { id: 1, name: "TT-101", period_ms: 1000 } as Tag;
const plant: Plant = {
  me, zone: me.plant.zone, lines: [], tags: new Map([[1, tag]]), params: { tenant: "akron", plant: "akron" },
};
const ccp = {
  id: "c", code: "CCP-1", line_id: "l", tag_id: 1, limit_low: 72, limit_high: null, unit: "degC", state: "in_control",
  last: null, challenge: null,
} as Ccp;
const deviation = {
  id: "d", ccp_id: "c", ccp_code: "CCP-1", line_id: "l", kind: "limit", status: "open", window_from_us: START_US,
  value_extreme: 70.9, limit_low: 72, limit_high: null, unit: "degC", hold_id: null, hold_code: null,
  acknowledged_us: null,
} as Deviation;

function show(deviations: Deviation[], closed: Deviation[] = []): void {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  client.setQueryData(openDeviationsQuery.queryKey, deviations);
  client.setQueryData(closedUnacknowledgedQuery.queryKey, closed);
  client.setQueryData(recentDeviationsQuery.queryKey, { items: [], next: null });
  client.setQueryData(openHoldsQuery.queryKey, []);
  client.setQueryData(ccpsQuery.queryKey, [ccp]);
  render(
    <QueryClientProvider client={client}>
      <PlantProvider value={plant}>
        <ActNowPanel />
      </PlantProvider>
    </QueryClientProvider>,
  );
}

const pass = (duration_ms: number) => act(() => vi.advanceTimersByTime(duration_ms));

function hubSpeaks(): void {
  store.takeHeartbeat({ server_now_us: hubUs(), edges: {} });
  store.takeSamples({ t_hub_us: hubUs(), v: [[1, hubUs(), 73.2, 0, 0]] });
}

describe("the Act now panel", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("fetch", () => new Promise(() => undefined));
    store.forgetEverything();
  });
  afterEach(() => {
    cleanup();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  it("says that the alarm state is unknown, that nothing is needed, and that it is unknown again", () => {
    show([]);
    expect(screen.queryByText("Alarm state unknown")).not.toBeNull();
    expect(screen.queryByText(/Nothing needs you/)).toBeNull();
    hubSpeaks();
    pass(2_000);
    expect(screen.queryByText(/Nothing needs you. Last checked \d\d:\d\d:\d\d/)).not.toBeNull();
    expect(screen.queryByText("Alarm state unknown")).toBeNull();
    pass(18_000); // the hub falls silent
    expect(screen.queryByText("Alarm state unknown")).not.toBeNull();
    expect(screen.queryByText(/Nothing needs you/)).toBeNull();
  });

  it("offers to acknowledge a deviation to those who may", () => {
    hubSpeaks();
    show([deviation]);
    pass(2_000);
    expect(screen.queryByText("CCP-1 critical limit broken")).not.toBeNull();
    expect(screen.queryByRole("button", { name: "Acknowledge CCP-1 critical limit broken" })).not.toBeNull();
  });

  it("shows a deviation that is over and not acknowledged, however many came after it", () => {
    hubSpeaks();
    show([], [{ ...deviation, status: "closed", window_to_us: START_US + 1 }]);
    pass(2_000);
    expect(screen.queryByText(/Nothing needs you/)).toBeNull();
    expect(screen.queryByRole("button", { name: "Acknowledge CCP-1 critical limit broken" })).not.toBeNull();
  });
});
