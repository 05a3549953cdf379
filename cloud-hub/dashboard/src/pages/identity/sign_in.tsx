// Sign in with tenant, e-mail and password; afterwards back to the page that was asked for.
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate, useRouter, useSearch } from "@tanstack/react-router";
import { useState, type FormEvent } from "react";
import { ApiError, post } from "../../api/client";
import { meQuery } from "../../api/queries";
import type { Login } from "../../api/types";
import { problemWords } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { store } from "../../live/store";
import { startSession } from "../../session";

const LAST_TENANT = "foodflow.tenant";

function words(error: unknown): string {
  if (error instanceof ApiError && error.status === 401) return "Tenant, e-mail or password is wrong.";
  if (error instanceof ApiError && error.status === 429) return "Too many attempts. Wait a minute, then try again.";
  return `${problemWords(error)}.`;
}

/** Only a path of this application, never another origin. */
export function safeNext(next: string | undefined): string | null {
  return next !== undefined && /^\/t\/[^/\\]/.test(next) ? next : null;
}

export function SignInPage() {
  useTitle("Sign in");
  const { next } = useSearch({ from: "/login" });
  const navigate = useNavigate();
  const router = useRouter();
  const client = useQueryClient();
  const [error, setError] = useState<string | null>(null);
  const [is_busy, setBusy] = useState(false);

  async function signIn(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string): string => String(form.get(name) ?? "");
    setBusy(true);
    setError(null);
    try {
      const body = { tenant: text("tenant").trim(), email: text("email").trim(), password: text("password") };
      const login = await post<Login>("auth/login", body, true);
      startSession(body.tenant, login.access_token, login.expires_in_s);
      localStorage.setItem(LAST_TENANT, body.tenant);
      store.forgetEverything();
      client.clear();
      const path = safeNext(next);
      if (path !== null) {
        router.history.push(path);
        return;
      }
      const me = await client.fetchQuery(meQuery);
      await navigate({
        to: "/t/$tenant/p/$plant/now",
        params: { tenant: me.tenant.slug, plant: me.plant.code },
      });
    } catch (fault) {
      setError(words(fault));
      setBusy(false);
    }
  }

  return (
    <main className="sign-in">
      <h1>FoodFlow OS</h1>
      {next !== undefined && error === null && <p className="quiet">Your session has ended. Sign in to go on.</p>}
      <form onSubmit={(event) => void signIn(event)} aria-label="Sign in">
        <label>
          Tenant
          <input name="tenant" autoComplete="organization" autoCapitalize="none" required maxLength={63}
            defaultValue={localStorage.getItem(LAST_TENANT) ?? ""} />
        </label>
        <label>
          E-mail
          <input name="email" type="email" autoComplete="username" required maxLength={254} />
        </label>
        <label>
          Password
          <input name="password" type="password" autoComplete="current-password" required maxLength={1024} />
        </label>
        <div role="alert">{error !== null && <p className="problem">{error}</p>}</div>
        <button type="submit" className="button primary" disabled={is_busy}>
          {is_busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
