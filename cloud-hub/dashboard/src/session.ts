// Who is signed in on this tab: a bearer token in sessionStorage, gone when the tab closes.
// It never refreshes a token and never decides what a user may do.

const KEY = "foodflow.session";

export interface Session {
  tenant: string;
  token: string;
  expires_ms: number;
}

const ended = new Set<() => void>();

export function readSession(now_ms: number = Date.now()): Session | null {
  const text = sessionStorage.getItem(KEY);
  if (text === null) return null;
  try {
    const session = JSON.parse(text) as Session;
    return typeof session.token === "string" && session.expires_ms > now_ms ? session : null;
  } catch {
    return null;
  }
}

export function startSession(tenant: string, token: string, expires_in_s: number): void {
  const session: Session = { tenant, token, expires_ms: Date.now() + expires_in_s * 1000 };
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

/** Forgets the token and tells the listeners, so that the page can show the sign-in form. */
export function endSession(): void {
  sessionStorage.removeItem(KEY);
  for (const listener of ended) listener();
}

export function onSessionEnd(listener: () => void): () => void {
  ended.add(listener);
  return () => ended.delete(listener);
}
