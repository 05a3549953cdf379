// Who is signed in on this tab: an access token in sessionStorage that is renewed before it expires. What renews
// it is a cookie that scripts cannot read. It never decides what a user may do.

const KEY = "foodflow.session";
const LAST_TENANT = "foodflow.tenant";
/** Set while this browser may hold a cookie: without it there is nothing to ask for. */
const HAS_COOKIE = "foodflow.cookie";
const API_AUTH = "/api/v1/auth";
/** Renewed after this share of its life, with jitter so that tabs do not all ask at once. */
const RENEW_AT = 0.7;
const RENEW_JITTER = 0.1;
/** Tells the hub that the cookie was sent by this application and not by a foreign form. */
export const OWN_REQUEST = { "x-requested-with": "foodflow" } as const;

export interface Session {
  tenant: string;
  token: string;
  expires_ms: number;
}

/** What sign-in and renewal answer. */
interface Granted {
  access_token: string;
  expires_in_s: number;
}

const ended = new Set<() => void>();
const renewed = new Set<(session: Session) => void>();
let timer: ReturnType<typeof setTimeout> | undefined;
let renewing: Promise<boolean> | null = null;

function stored(): Session | null {
  const text = sessionStorage.getItem(KEY);
  if (text === null) return null;
  try {
    const session = JSON.parse(text) as Session;
    return typeof session.token === "string" && typeof session.expires_ms === "number" ? session : null;
  } catch {
    return null;
  }
}

export function readSession(now_ms: number = Date.now()): Session | null {
  const session = stored();
  return session !== null && session.expires_ms > now_ms ? session : null;
}

export function lastTenant(): string {
  return localStorage.getItem(LAST_TENANT) ?? "";
}

/** This browser is about to get the cookie, by signing in here or at an identity provider. */
export function expectCookie(): void {
  localStorage.setItem(HAS_COOKIE, "yes");
}

export function startSession(tenant: string, token: string, expires_in_s: number): void {
  const session: Session = { tenant, token, expires_ms: Date.now() + expires_in_s * 1000 };
  sessionStorage.setItem(KEY, JSON.stringify(session));
  localStorage.setItem(LAST_TENANT, tenant);
  expectCookie();
  plan(expires_in_s * 1000);
  for (const listener of renewed) listener(session);
}

function plan(life_ms: number): void {
  clearTimeout(timer);
  const share = RENEW_AT + RENEW_JITTER * Math.random();
  timer = setTimeout(() => void renewSession(), life_ms * share);
}

/** A token's account and tenant; null for what is no JWT. Read only to notice that another account signed in. */
export function ownerOf(token: string): { sub: string; tenant: string } | null {
  const payload = token.split(".")[1];
  if (payload === undefined) return null;
  try {
    const claims = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/"))) as Record<string, unknown>;
    const { sub, tenant } = claims;
    return typeof sub === "string" && typeof tenant === "string" ? { sub, tenant } : null;
  } catch {
    return null;
  }
}

/** One renewal at a time in the whole browser: the cookie is good once, and a second use of it ends the session. */
function exclusively<T>(work: () => Promise<T>): Promise<T> {
  // Absent where the page does not come by HTTPS.
  const locks = navigator.locks as LockManager | null | undefined;
  return locks ? (locks.request("foodflow.renewal", work) as Promise<T>) : work();
}

async function ask(before: Session | null): Promise<boolean> {
  let response: Response;
  try {
    response = await fetch(`${API_AUTH}/refresh`, {
      method: "POST",
      headers: { "content-type": "application/json", ...OWN_REQUEST },
      body: "{}",
      cache: "no-store",
    });
  } catch {
    // The hub is away, which ends nothing: the token serves until it expires, then the next request asks again.
    return false;
  }
  if (response.status === 401) localStorage.removeItem(HAS_COOKIE);
  if (!response.ok) return false;
  const granted = (await response.json()) as Granted;
  const owner = ownerOf(granted.access_token);
  const was = before === null ? null : ownerOf(before.token);
  // Another account signed in on another tab and the cookie is theirs now.
  if (was !== null && (owner?.sub !== was.sub || owner.tenant !== was.tenant)) return false;
  startSession(owner?.tenant ?? before?.tenant ?? lastTenant(), granted.access_token, granted.expires_in_s);
  return true;
}

/** Exchanges the cookie for a new access token; false when there is none or the session has ended. */
export function renewSession(): Promise<boolean> {
  renewing ??= exclusively(() => ask(stored())).finally(() => {
    renewing = null;
  });
  return renewing;
}

/** A good session if there can be one: this tab's, or a new token for the cookie of another tab. */
export async function ensureSession(): Promise<Session | null> {
  if (readSession() === null && localStorage.getItem(HAS_COOKIE) !== null) await renewSession();
  return readSession();
}

/** Ends the session on the hub, on every tab; the page forgets it even when the hub cannot be told. */
export async function signOut(): Promise<void> {
  try {
    await fetch(`${API_AUTH}/logout`, {
      method: "POST",
      headers: { "content-type": "application/json", ...OWN_REQUEST },
      body: "{}",
      keepalive: true,
    });
  } catch {
    // Its tokens expire by themselves.
  }
  localStorage.removeItem(HAS_COOKIE);
  endSession();
}

/** Forgets the token and tells the listeners, so that the page can show the sign-in form. */
export function endSession(): void {
  clearTimeout(timer);
  sessionStorage.removeItem(KEY);
  for (const listener of ended) listener();
}

export function onSessionEnd(listener: () => void): () => void {
  ended.add(listener);
  return () => ended.delete(listener);
}

export function onSessionRenewed(listener: (session: Session) => void): () => void {
  renewed.add(listener);
  return () => renewed.delete(listener);
}

/** A page that was loaded anew goes on with the token it has. */
export function resumeSession(): void {
  const left = readSession();
  if (left !== null) plan(left.expires_ms - Date.now());
}
