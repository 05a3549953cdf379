// Sign in with tenant, e-mail and password, or at the tenant's own identity provider; afterwards back to the page
// that was asked for.
import { useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useRouter, useSearch } from "@tanstack/react-router";
import { useEffect, useState, type FormEvent } from "react";
import { API, ApiError, getAnonymous, post } from "../../api/client";
import { meQuery } from "../../api/queries";
import type { Login, Page, SignInProvider } from "../../api/types";
import { problemWords } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { store } from "../../live/store";
import { expectCookie, lastTenant, startSession } from "../../session";

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
  const [tenant, setTenant] = useState(lastTenant);

  async function signIn(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string): string => String(form.get(name) ?? "");
    setBusy(true);
    setError(null);
    try {
      const body = { tenant: text("tenant").trim(), email: text("email").trim(), password: text("password"), cookie: true };
      const login = await post<Login>("auth/login", body, true);
      startSession(body.tenant, login.access_token, login.expires_in_s);
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
            defaultValue={tenant} onBlur={(event) => setTenant(event.target.value.trim())} />
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
        <Providers tenant={tenant} next={safeNext(next) ?? "/"} />
        <Link to="/recover" search={{}}>Forgot your password?</Link>
      </form>
    </main>
  );
}

/** Where else people of this tenant may sign in; nothing for a tenant that has no provider or does not exist. */
function Providers({ tenant, next }: { tenant: string; next: string }) {
  const [providers, setProviders] = useState<SignInProvider[]>([]);
  useEffect(() => {
    setProviders([]);
    if (!/^[a-z][a-z0-9-]*$/.test(tenant)) return;
    const abort = new AbortController();
    getAnonymous<Page<SignInProvider>>(`auth/oidc/${tenant}/providers`, abort.signal)
      .then((page) => setProviders(page.items))
      // Signing in by password does not depend on this list.
      .catch(() => undefined);
    return () => abort.abort();
  }, [tenant]);
  return providers.map((provider) => (
    <a key={provider.name} className="button" onClick={expectCookie}
      href={`${API}/auth/oidc/${tenant}/${encodeURIComponent(provider.name)}/start?return_to=${encodeURIComponent(next)}`}>
      Sign in with {provider.display_name ?? provider.name}
    </a>
  ));
}
