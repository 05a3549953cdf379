// The frame around every page of a plant: header with data trust and plant clock, navigation, bands.
// It loads who is signed in and the plant's master data, and holds the live stream open.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Navigate, Outlet, useLocation, useNavigate, useParams } from "@tanstack/react-router";
import { useEffect, useMemo, useRef } from "react";
import { ccpsQuery, edgesQuery, linesQuery, meQuery, tagsQuery } from "../api/queries";
import type { Ccp, Line, Tag } from "../api/types";
import { clockTime } from "../format";
import { useLiveStream, useNowUs } from "../live/live";
import { store } from "../live/store";
import { onSessionEnd, signOut } from "../session";
import { Navigation } from "./navigation";
import { PlantProvider, type Plant } from "./plant";
import { setShortcuts, useShortcutsOn } from "./shortcuts";
import { ProblemNote } from "./state";
import { BehindBand, TrustText } from "./trust";

/** Every tag that some page shows; the stream is asked for these and no more. */
export function shownTags(lines: readonly Line[], ccps: readonly Ccp[]): number[] {
  const tags = new Set<number>();
  for (const line of lines) {
    for (const tag of line.key_tags) tags.add(tag);
    if (line.rate_tag_id !== null) tags.add(line.rate_tag_id);
  }
  for (const ccp of ccps) if (ccp.tag_id !== null) tags.add(ccp.tag_id);
  return [...tags].sort((a, b) => a - b);
}

/** Sends the user to the sign-in form when the session ends, and forgets what was shown. */
function useSessionEnd(): void {
  const navigate = useNavigate();
  const client = useQueryClient();
  const location = useLocation();
  const href = useRef(location.href);
  href.current = location.href;
  useEffect(
    () =>
      onSessionEnd(() => {
        client.clear();
        store.forgetEverything();
        void navigate({ to: "/login", search: { next: href.current } });
      }),
    [client, navigate],
  );
}

/** A line or CCP may name a tag that an edge has only now published: then the tags are read again, once. */
function useUnknownTags(wanted: number[] | null, tags: Tag[] | undefined, refetch: () => unknown): void {
  const asked = useRef("");
  useEffect(() => {
    if (wanted === null || tags === undefined) return;
    const known = new Set(tags.map((tag) => tag.id));
    const unknown = wanted.filter((tag_id) => !known.has(tag_id)).join();
    if (unknown === "" || unknown === asked.current) return;
    asked.current = unknown;
    refetch();
  }, [wanted, tags, refetch]);
}

export function Shell() {
  useSessionEnd();
  const params = useParams({ from: "/t/$tenant/p/$plant" });
  const me = useQuery(meQuery);
  const lines = useQuery(linesQuery);
  const tags = useQuery(tagsQuery);
  const ccps = useQuery(ccpsQuery);
  const edges = useQuery(edgesQuery);

  useEffect(() => {
    if (tags.data !== undefined) store.takeTags(tags.data);
  }, [tags.data]);
  useEffect(() => {
    if (edges.data !== undefined) store.takeEdges(edges.data);
  }, [edges.data]);

  const wanted = useMemo(
    () => (lines.data && ccps.data ? shownTags(lines.data, ccps.data) : null),
    [lines.data, ccps.data],
  );
  // When master data cannot be read, alarms are still wanted: the stream opens without samples.
  const has_failed = lines.error !== null || ccps.error !== null;
  useLiveStream(me.data?.user.id ?? null, wanted ?? (has_failed ? [] : null));

  useUnknownTags(wanted, tags.data, tags.refetch);

  const plant = useMemo<Plant | null>(() => {
    if (me.data === undefined || lines.data === undefined || tags.data === undefined) return null;
    const by_id = new Map<number, Tag>(tags.data.map((tag) => [tag.id, tag]));
    return { me: me.data, zone: me.data.plant.zone, lines: lines.data, tags: by_id, params };
  }, [me.data, lines.data, tags.data, params]);

  if (plant === null) {
    const error = me.error ?? lines.error ?? tags.error;
    const retry = () => void Promise.all([me.refetch(), lines.refetch(), tags.refetch()]);
    return (
      <main className="page">
        {error === null ? (
          <p className="quiet" role="status">Loading the plant…</p>
        ) : (
          <ProblemNote what="The plant was not loaded" error={error} retry={retry} />
        )}
      </main>
    );
  }
  const own = { tenant: plant.me.tenant.slug, plant: plant.me.plant.code };
  if (own.tenant !== params.tenant || own.plant !== params.plant) {
    return <Navigate to="/t/$tenant/p/$plant/now" params={own} replace />;
  }
  return (
    <PlantProvider value={plant}>
      <Frame plant={plant} />
    </PlantProvider>
  );
}

function Frame({ plant }: { plant: Plant }) {
  const main = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const shown = useRef(pathname);
  useEffect(() => {
    if (shown.current === pathname) return;
    shown.current = pathname;
    main.current?.focus({ preventScroll: true });
  }, [pathname]);
  return (
    <>
      <a className="skip" href="#content">
        Skip to content
      </a>
      <header className="header">
        <p className="product">
          FoodFlow <span className="plant-name">{plant.me.plant.name}</span>
        </p>
        <Navigation />
        <TrustText plant={plant} />
        <PlantClock zone={plant.zone} />
        <UserMenu plant={plant} />
      </header>
      <BehindBand />
      <main id="content" className="page" ref={main} tabIndex={-1}>
        <Outlet />
      </main>
    </>
  );
}

function PlantClock({ zone }: { zone: string }) {
  const now_us = useNowUs();
  return (
    <span className="clock" title={zone}>
      {now_us === null ? "--:--:--" : clockTime(now_us, zone)}{" "}
      <span className="zone">{zone.split("/").pop()?.replaceAll("_", " ")}</span>
    </span>
  );
}

function UserMenu({ plant }: { plant: Plant }) {
  const { display_name: name, role } = plant.me.user;
  const has_shortcuts = useShortcutsOn();
  return (
    <details className="user">
      <summary><span className="user-name">{name}</span></summary>
      <div className="user-panel">
        <p>{name}</p>
        <p className="quiet">
          {role.replaceAll("_", " ")}, {plant.me.tenant.name}
        </p>
        <p className="quiet">Times in {plant.zone}</p>
        <label className="check">
          <input type="checkbox" checked={has_shortcuts} onChange={(event) => setShortcuts(event.target.checked)} />
          Single-key shortcuts
        </label>
        <button type="button" className="button" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </details>
  );
}
