// @vitest-environment happy-dom
// Sessions that renew themselves: once at a time, never as somebody else, and never ended by a hub that is away.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { endSession, ensureSession, ownerOf, readSession, renewSession, signOut, startSession } from "./session";

function token(sub: string, serial: number): string {
  const part = (value: unknown): string => btoa(JSON.stringify(value)).replaceAll("=", "");
  return `${part({ alg: "HS256" })}.${part({ sub, tenant: "akron", serial })}.x`;
}

function answer(status: number, body: unknown): Response {
  return new Response(JSON.stringify(body), { status });
}

const ask = vi.fn<(url: string, init: RequestInit) => Promise<Response>>();

beforeEach(() => {
  vi.stubGlobal("fetch", ask);
  sessionStorage.clear();
  localStorage.clear();
  ask.mockReset();
});

afterEach(() => vi.unstubAllGlobals());

describe("a session", () => {
  it("is renewed once, however many ask at the same time", async () => {
    startSession("akron", token("sam", 1), -1);
    ask.mockResolvedValue(answer(200, { access_token: token("sam", 2), expires_in_s: 900 }));
    const all = await Promise.all([ensureSession(), ensureSession(), renewSession()]);
    expect(ask).toHaveBeenCalledTimes(1);
    expect(new Headers(ask.mock.calls[0]?.[1].headers).get("x-requested-with")).toBe("foodflow");
    expect(all[0]?.token).toBe(token("sam", 2));
  });

  it("does not become another person's who signed in on another tab", async () => {
    startSession("akron", token("sam", 1), 900);
    ask.mockResolvedValue(answer(200, { access_token: token("kim", 1), expires_in_s: 900 }));
    expect(await renewSession()).toBe(false);
    expect(ownerOf(readSession()?.token ?? "")?.sub).toBe("sam");
  });

  it("outlives a hub that is away, and asks nothing where nobody has signed in", async () => {
    expect(await ensureSession()).toBeNull();
    expect(ask).not.toHaveBeenCalled();
    startSession("akron", token("sam", 1), 900);
    ask.mockRejectedValue(new TypeError("offline"));
    expect(await renewSession()).toBe(false);
    expect(readSession()?.token).toBe(token("sam", 1));
  });

  it("ends on the hub and here, and a new tab of the same browser goes on with the cookie until then", async () => {
    startSession("akron", token("sam", 1), 900);
    sessionStorage.clear();
    ask.mockResolvedValue(answer(200, { access_token: token("sam", 2), expires_in_s: 900 }));
    expect((await ensureSession())?.tenant).toBe("akron");
    ask.mockResolvedValue(new Response(null, { status: 204 }));
    await signOut();
    expect(ask.mock.calls.at(-1)?.[0]).toContain("auth/logout");
    expect(await ensureSession()).toBeNull();
    endSession();
  });
});
