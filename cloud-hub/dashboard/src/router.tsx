// Which address shows which page. Everything of a plant lives under /t/:tenant/p/:plant.
import type { QueryClient } from "@tanstack/react-query";
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Link,
  Outlet,
  redirect,
} from "@tanstack/react-router";
import { meQuery } from "./api/queries";
import type { Verdict } from "./api/types";
import type { Span } from "./pages/plant_ops/line";
import { Shell } from "./components/shell";
import { problemWords } from "./components/state";
import { CcpBoardPage } from "./pages/fsq/ccp_board";
import { HoldsPage } from "./pages/fsq/holds";
import { SignInPage } from "./pages/identity/sign_in";
import { LinesPage } from "./pages/plant_ops/lines";
import { NowPage } from "./pages/plant_ops/now";
import { ensureSession } from "./session";

interface RouterContext {
  client: QueryClient;
}

const root = createRootRouteWithContext<RouterContext>()({
  component: Outlet,
  notFoundComponent: NotFound,
});

function NotFound() {
  return (
    <main className="page">
      <h1>No such page</h1>
      <Link to="/">Go to the first page</Link>
    </main>
  );
}

function Broken({ error }: { error: unknown }) {
  return (
    <main className="page">
      <h1>This page broke</h1>
      <p className="problem" role="alert">{problemWords(error)}</p>
      <a href="/">Start again</a>
    </main>
  );
}

/** The plain address leads to the signed-in user's plant. */
const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  beforeLoad: async ({ context }) => {
    if ((await ensureSession()) === null) throw redirect({ to: "/login" });
    const me = await context.client.fetchQuery(meQuery).catch(() => null);
    if (me === null) throw redirect({ to: "/login" });
    throw redirect({
      to: "/t/$tenant/p/$plant/now",
      params: { tenant: me.tenant.slug, plant: me.plant.code },
    });
  },
});

const login = createRoute({
  getParentRoute: () => root,
  path: "/login",
  validateSearch: (search: Record<string, unknown>): { next?: string } =>
    typeof search["next"] === "string" ? { next: search["next"] } : {},
  component: SignInPage,
});

interface LinkSearch {
  token?: string;
  tenant?: string;
}

function linkSearch(search: Record<string, unknown>): LinkSearch {
  const { token, tenant } = search;
  return {
    ...(typeof token === "string" ? { token } : {}),
    ...(typeof tenant === "string" ? { tenant } : {}),
  };
}

const recover = createRoute({
  getParentRoute: () => root,
  path: "/recover",
  validateSearch: linkSearch,
  component: lazyRouteComponent(() => import("./pages/identity/recover"), "RecoverPage"),
});

const verifyEmail = createRoute({
  getParentRoute: () => root,
  path: "/verify-email",
  validateSearch: linkSearch,
  component: lazyRouteComponent(() => import("./pages/identity/recover"), "VerifyEmailPage"),
});

const plant = createRoute({
  getParentRoute: () => root,
  path: "/t/$tenant/p/$plant",
  beforeLoad: async ({ location }) => {
    if ((await ensureSession()) === null) throw redirect({ to: "/login", search: { next: location.href } });
  },
  component: Shell,
});

const plantHome = createRoute({
  getParentRoute: () => plant,
  path: "/",
  beforeLoad: ({ params }) => {
    throw redirect({ to: "/t/$tenant/p/$plant/now", params });
  },
});

const now = createRoute({ getParentRoute: () => plant, path: "/now", component: NowPage });
const lines = createRoute({ getParentRoute: () => plant, path: "/lines", component: LinesPage });

const line = createRoute({
  getParentRoute: () => plant,
  path: "/lines/$line",
  validateSearch: (search: Record<string, unknown>): { span?: Span } => {
    const { span } = search;
    return span === "15m" || span === "1h" || span === "8h" ? { span } : {};
  },
  // uPlot is a third of the code and only this page needs it.
  component: lazyRouteComponent(() => import("./pages/plant_ops/line"), "LinePage"),
});

interface TrendsSearch {
  tags?: string;
  hours?: number;
}

const trends = createRoute({
  getParentRoute: () => plant,
  path: "/trends",
  validateSearch: (search: Record<string, unknown>): TrendsSearch => {
    const { tags, hours } = search;
    return {
      ...(typeof tags === "string" || typeof tags === "number" ? { tags: String(tags) } : {}),
      ...(typeof hours === "number" ? { hours } : {}),
    };
  },
  component: lazyRouteComponent(() => import("./pages/plant_ops/trends"), "TrendsPage"),
});

const alarms = createRoute({
  getParentRoute: () => plant,
  path: "/alarms",
  component: lazyRouteComponent(() => import("./pages/plant_ops/alarms"), "AlarmsPage"),
});

const ccp = createRoute({ getParentRoute: () => plant, path: "/ccp", component: CcpBoardPage });
const holds = createRoute({ getParentRoute: () => plant, path: "/holds", component: HoldsPage });

interface VisionSearch {
  verdict?: Verdict | "any";
  line?: string | undefined;
  class?: string | undefined;
}

const vision = createRoute({
  getParentRoute: () => plant,
  path: "/vision",
  validateSearch: (search: Record<string, unknown>): VisionSearch => {
    const { verdict, line: line_id, class: name } = search;
    const known = verdict === "reject" || verdict === "unknown" || verdict === "pass" || verdict === "any";
    return {
      ...(known ? { verdict } : {}),
      ...(typeof line_id === "string" ? { line: line_id } : {}),
      ...(typeof name === "string" ? { class: name } : {}),
    };
  },
  component: lazyRouteComponent(() => import("./pages/vision/defects"), "DefectsPage"),
});

const record = createRoute({
  getParentRoute: () => plant,
  path: "/record",
  component: lazyRouteComponent(() => import("./pages/integrity/record"), "RecordPage"),
});

const integrators = createRoute({
  getParentRoute: () => plant,
  path: "/integrators",
  component: lazyRouteComponent(() => import("./pages/integrator/integrators"), "IntegratorsPage"),
});

const tree = root.addChildren([
  home,
  login,
  recover,
  verifyEmail,
  plant.addChildren([plantHome, now, lines, line, trends, alarms, ccp, holds, vision, record, integrators]),
]);

export function makeRouter(client: QueryClient) {
  return createRouter({
    routeTree: tree,
    context: { client },
    defaultErrorComponent: Broken,
    scrollRestoration: true,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
